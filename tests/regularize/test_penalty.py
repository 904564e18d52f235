"""l1 and l2 against autograd of the penalised loss, and against torch's own weight decay."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.fit import fit
from headway.regularize.penalty import Config, Penalty

B, D, H, OUTPUTS = 5, 7, 11, 3


def net_and_loss():
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(D, H), nn.Tanh(), nn.LayerNorm(H), nn.Linear(H, OUTPUTS)).double()
    x, y = torch.randn(B, D, dtype=torch.float64), torch.randn(B, OUTPUTS, dtype=torch.float64)
    return net, lambda net: (net(x) - y).square().mean()


@pytest.mark.quick
@pytest.mark.parametrize(("l1", "l2"), [(0.07, 0.0), (0.0, 0.3), (0.07, 0.3)])
def test_the_gradient_is_autograds_of_the_penalised_loss(engine_of, l1: float, l2: float) -> None:
    net, loss = net_and_loss()
    twin = copy.deepcopy(net)
    matrices = [weight for weight in twin.parameters() if weight.ndim == 2]
    penalty = sum(l1 * weight.abs().sum() + l2 / 2 * weight.square().sum() for weight in matrices)
    (loss(twin) + penalty).backward()

    loss(net).backward()
    price = Penalty(l1, l2).after_backward(engine_of(net), 0)

    torch.testing.assert_close(price, penalty.detach())
    for own, other in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-14)


@pytest.mark.quick
def test_biases_and_norms_are_free(engine_of) -> None:
    net, loss = net_and_loss()
    loss(net).backward()
    before = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    Penalty(0.1, 0.1).after_backward(engine_of(net), 0)
    for name, weight in net.named_parameters():
        assert weight.grad.equal(before[name]) == (weight.ndim == 1), name


@pytest.mark.quick
def test_weights_that_are_not_trained_stay(engine_of) -> None:
    net, loss = net_and_loss()
    net[0].weight.requires_grad_(False)
    loss(net).backward()
    Penalty(0.1, 0.1).after_backward(engine_of(net), 0)
    assert net[0].weight.grad is None


def test_with_sgd_l2_is_torchs_weight_decay(tmp_path, tiny_mlp) -> None:
    tiny_mlp["optim"] = {"kind": "sgd", "lr": 0.1, "momentum": 0.9}
    changes = {"trainer.max_steps": 20, "trainer.clip_norm": None}
    fit(tiny_mlp, {**changes, "optim.weight_decay": 0.03}, runs=tmp_path, name="decay", progress=False)
    fit(tiny_mlp, {**changes, "regularize.penalty.l2": 0.03}, runs=tmp_path, name="penalty", progress=False)
    decay, penalty = (
        load_file(tmp_path / name / "checkpoints" / "00000020" / "weights.safetensors") for name in ("decay", "penalty")
    )
    for name, weight in decay.items():
        torch.testing.assert_close(penalty[name], weight, rtol=1e-5, atol=1e-6)


@pytest.mark.quick
def test_a_penalty_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"regularize\.penalty: has no effect; set l1 or l2"):
        validate_section(Config, {}, path="regularize.penalty")
