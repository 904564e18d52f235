"""Schedules as written on paper, decay where it belongs, steps as torch makes them."""

import math

import pytest
import torch
from torch import nn

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.optim import OPTIMIZERS, AdamW, Schedule, parameter_groups

pytestmark = pytest.mark.quick


def config(kind, **settings):
    return validate_section(OPTIMIZERS[kind], {"kind": kind, "lr": 0.1, **settings}, path="optim")


# ---- schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_warm_up_climbs_along_a_line_to_the_peak(kind):
    schedule = Schedule(kind=kind, warmup_steps=5, final=0.1)
    assert [schedule.factor(step, 23) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("warmup", [0, 7])
def test_the_rate_goes_from_the_peak_down_to_its_end(kind, final, warmup):
    schedule = Schedule(kind=kind, warmup_steps=warmup, final=final)
    factors = [schedule.factor(step, 101) for step in range(warmup, 101)]
    assert factors[0] == 1.0
    assert factors[-1] == pytest.approx(final, abs=1e-12)
    assert factors == sorted(factors, reverse=True)
    assert schedule.factor(100 + 13, 101) == pytest.approx(final, abs=1e-12)


def test_a_cosine_is_half_a_cosine_and_a_line_is_a_line():
    cosine, line = Schedule(kind="cosine", final=0.2), Schedule(kind="linear", final=0.2)
    for step in range(11):
        assert cosine.factor(step, 11) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * step / 10)) / 2)
        assert line.factor(step, 11) == pytest.approx(1 - 0.8 * step / 10)


def test_a_cosine_is_the_one_of_torch():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    twin = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=22, eta_min=0.1)
    for step in range(23):
        assert Schedule(kind="cosine", final=0.1).factor(step, 23) == pytest.approx(twin.get_last_lr()[0])
        optimizer.step()
        twin.step()


def test_an_inverse_square_root_is_the_schedule_of_the_transformer():
    warmup, width, peak = 7, 64, (64 * 7) ** -0.5
    schedule = Schedule(kind="inverse_sqrt", warmup_steps=warmup)
    for step in range(1, 101):
        expected = width**-0.5 * min(step**-0.5, step * warmup**-1.5)
        assert schedule.factor(step - 1, 101) * peak == pytest.approx(expected, rel=1e-12)
    assert schedule.factor(warmup - 1, 101) == 1.0


def test_a_constant_rate_stays():
    assert {Schedule().factor(step, 7) for step in range(11)} == {1.0}


@pytest.mark.parametrize("total", [1, 2, 5])
def test_a_run_of_few_steps_has_a_rate_at_every_one(total):
    for kind in ("constant", "linear", "cosine"):
        for warmup in (0, 1, 5, 13):
            factors = [Schedule(kind=kind, warmup_steps=warmup).factor(step, total) for step in range(total)]
            assert all(0 <= factor <= 1 for factor in factors)
            assert factors[0] > 0


def test_a_schedule_can_be_named_in_short():
    assert config("sgd", schedule="cosine").schedule == Schedule(kind="cosine")


# ---- who decays ----------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(3, 7)
        self.filters = nn.Conv2d(2, 3, 5)
        self.linear = nn.Linear(7, 3, bias=True)
        self.norm = nn.LayerNorm(7)
        self.slope = nn.PReLU()
        self.tied = nn.Linear(7, 3, bias=False)
        self.tied.weight = self.embedding.weight
        self.frozen = nn.Linear(7, 7)
        self.frozen.requires_grad_(False)


def test_biases_norms_and_slopes_do_not_decay():
    net = Net()
    names = {weight: name for name, weight in net.named_parameters()}
    decays, spared = parameter_groups(net, 0.1)
    assert (decays["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert [names[weight] for weight in decays["params"]] == ["embedding.weight", "filters.weight", "linear.weight"]
    assert [names[weight] for weight in spared["params"]] == [
        *("filters.bias", "linear.bias", "norm.weight", "norm.bias", "slope.weight"),
    ]


def test_a_net_without_vectors_has_one_group():
    assert len(parameter_groups(nn.Linear(3, 5, bias=False), 0.1)) == 1


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_decay_shrinks_weights_and_leaves_biases(kind):
    net = nn.Linear(3, 5)
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for weight in net.parameters():
        weight.grad = torch.zeros_like(weight)
    config(kind, weight_decay=0.5).build(net).step()
    torch.testing.assert_close(net.weight, before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(net.bias, before["bias"])


# ---- the steps -----------------------------------------------------------------------------------


def trained(build):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2)).double()
    optimizer = build(net)
    x, target = torch.randn(11, 5, dtype=torch.float64), torch.randn(11, 2, dtype=torch.float64)
    for _ in range(13):
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        optimizer.step()
    return torch.cat([weight.detach().flatten() for weight in net.parameters()])


def by_hand(update, decay):
    """Returns an optimizer of a few lines: the papers' equations, with a memory for each weight."""

    class ByHand:
        def __init__(self, net):
            self.weights = list(net.parameters())
            self.memories = [{} for _ in self.weights]

        def zero_grad(self):
            for weight in self.weights:
                weight.grad = None

        @torch.no_grad()
        def step(self):
            for weight, memory in zip(self.weights, self.memories, strict=True):
                update(weight, weight.grad, memory, decay if weight.ndim > 1 else 0.0)

    return ByHand


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_makes_the_steps_of_its_paper(momentum, nesterov):
    def update(weight, gradient, memory, decay):
        gradient = gradient + decay * weight
        memory["v"] = momentum * memory.get("v", 0.0) + gradient
        weight -= 0.1 * (gradient + momentum * memory["v"] if nesterov else memory["v"])

    if nesterov and not momentum:
        with pytest.raises(UserError, match=r"^optim: nesterov is true but momentum is 0; set optim\.momentum$"):
            config("sgd", nesterov=True)
        return
    optim = config("sgd", momentum=momentum, nesterov=nesterov, weight_decay=0.3)
    torch.testing.assert_close(trained(optim.build), trained(by_hand(update, 0.3)), rtol=0, atol=1e-13)


def test_adamw_makes_the_steps_of_its_paper():
    def update(weight, gradient, memory, decay):
        memory["t"] = memory.get("t", 0) + 1
        memory["m"] = 0.8 * memory.get("m", 0.0) + 0.2 * gradient
        memory["v"] = 0.95 * memory.get("v", 0.0) + 0.05 * gradient**2
        mean, square = memory["m"] / (1 - 0.8 ** memory["t"]), memory["v"] / (1 - 0.95 ** memory["t"])
        weight *= 1 - 0.1 * decay
        weight -= 0.1 * mean / (square.sqrt() + 1e-5)

    optim = config("adamw", betas=[0.8, 0.95], eps=1e-5, weight_decay=0.3)
    torch.testing.assert_close(trained(optim.build), trained(by_hand(update, 0.3)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_without_decay_it_is_torchs_own(kind):
    twin = {"sgd": torch.optim.SGD, "adamw": lambda weights, lr: torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)}[
        kind
    ]
    expected = trained(lambda net: twin(net.parameters(), lr=0.1))
    torch.testing.assert_close(trained(config(kind).build), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("kind", "settings", "line"),
    [
        ("adamw", {"betas": [0.9, 1.0]}, "optim: betas should be in [0, 1) (got [0.9, 1.0])"),
        ("adamw", {"momentum": 0.9}, "optim.momentum is not known"),
        ("sgd", {"betas": [0.9, 0.99]}, "optim.betas is not known"),
        (
            "sgd",
            {"schedule": "cosin"},
            "optim.schedule.kind: input should be 'constant', 'linear', 'cosine' or 'inverse_sqrt' (got 'cosin')",
        ),
        ("sgd", {"schedule": "inverse_sqrt"}, "optim.schedule: kind is inverse_sqrt, whose peak is where the warm-up"),
        (
            "sgd",
            {"schedule": {"warmup": 3}},
            "optim.schedule.warmup is not known; did you mean optim.schedule.warmup_steps?",
        ),
    ],
)
def test_what_an_optimizer_has_not_is_refused(kind, settings, line):
    with pytest.raises(UserError) as caught:
        config(kind, **settings)
    assert str(caught.value).startswith(line)


def test_the_usual_defaults():
    assert config("adamw") == AdamW(kind="adamw", lr=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
