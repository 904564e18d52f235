"""The price of activations, added up by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headway.config.contracts import DataSpec, Outcome
from headway.config.errors import UserError
from headway.fit import fit
from headway.models.mlp import MLP
from headway.regularize import adversarial
from headway.regularize.sparse_activations import Config
from headway.run import read_metrics

B, D, CLASSES = 5, 7, 3
SPEC = DataSpec("features", (D,), num_classes=CLASSES)


def net_and_loss():
    torch.manual_seed(3)
    net = MLP(D, (11, 13), CLASSES, activation="tanh", dropout=0.0).double()

    def loss(batch):
        logits = net(batch["input"])
        return Outcome(F.cross_entropy(logits, batch["target"], reduction="sum"), len(logits), None, {})

    return net, loss


def batch():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(B, D, generator=generator, dtype=torch.float64)
    return {"input": x, "target": torch.randint(0, CLASSES, (B,), generator=generator)}


def by_hand(net):
    first, second = net.hidden
    a = torch.tanh(batch()["input"] @ first.linear.weight.T + first.linear.bias)
    b = torch.tanh(a @ second.linear.weight.T + second.linear.bias)
    return a.abs().sum() + b.abs().sum()


@pytest.mark.quick
def test_the_price_is_that_of_all_hidden_activations_and_has_their_gradient() -> None:
    net, loss = net_and_loss()
    plain, expected = loss(batch()), by_hand(net)
    technique = Config(l1=0.3).build(SPEC, seed=1)
    technique.attach(net)
    changed = technique.change_batch(batch(), None)
    found = technique.add_loss(loss, changed, loss(changed))
    torch.testing.assert_close(found.loss_sum, plain.loss_sum + 0.3 * expected)
    torch.testing.assert_close(found.sums["activation_l1"], expected.detach())
    weight = net.hidden[0].linear.weight
    gradients = [
        torch.autograd.grad(value, weight, retain_graph=True)[0]
        for value in (found.loss_sum, plain.loss_sum + 0.3 * expected)
    ]
    torch.testing.assert_close(*gradients)


@pytest.mark.quick
def test_what_other_techniques_ask_the_net_is_not_counted() -> None:
    net, loss = net_and_loss()
    sparse = Config(l1=0.3).build(SPEC, seed=1)
    attack = adversarial.Config(epsilon=0.1).build(SPEC, seed=1)
    sparse.attach(net)
    changed = sparse.change_batch(batch(), None)
    outcome = attack.add_loss(loss, changed, loss(changed))
    found = sparse.add_loss(loss, changed, outcome)
    torch.testing.assert_close(found.sums["activation_l1"], by_hand(net).detach())


@pytest.mark.quick
def test_a_net_without_activations_is_refused() -> None:
    with pytest.raises(UserError, match=r"regularize\.sparse_activations: this net has no layer"):
        Config(l1=0.3).build(SPEC, seed=1).attach(nn.Linear(D, CLASSES))


def test_the_price_makes_activations_smaller(tmp_path, tiny_mlp) -> None:
    def last(l1: float) -> float:
        run = fit(tiny_mlp, {"regularize.sparse_activations.l1": l1}, runs=tmp_path, progress=False)
        rows = [row for row in read_metrics(tmp_path / run.run_id / "metrics.jsonl") if "train/activation_l1" in row]
        return rows[-1]["train/activation_l1"]

    assert last(0.1) < 0.8 * last(1e-9)
