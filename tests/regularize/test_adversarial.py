"""The fast gradient sign method against one written out for logistic regression."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headway.config.contracts import DataSpec, Outcome
from headway.config.errors import UserError
from headway.fit import fit
from headway.nn.draws import Draws, name_streams
from headway.nn.dropout import Dropout
from headway.regularize.adversarial import Config
from headway.strategies import single

B, D, CLASSES = 23, 7, 5
SPEC = DataSpec("features", (D,), num_classes=CLASSES)


def batch():
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, D, generator=generator, dtype=torch.float64)
    return {"input": x, "target": torch.randint(0, CLASSES, (B,), generator=generator)}


def classify(net, rng=None):
    def loss(batch):
        logits = net(batch["input"]) if rng is None else net(batch["input"], rng)
        hits = (logits.argmax(1) == batch["target"]).sum()
        return Outcome(F.cross_entropy(logits, batch["target"], reduction="sum"), len(logits), None, {"accuracy": hits})

    return loss


def attacked_by_hand(net, epsilon):
    """Returns x + epsilon * sign of (p - y) W: softmax regression's gradient, in numpy."""
    x, target = batch()["input"].numpy(), batch()["target"].numpy()
    weight, bias = net.weight.detach().numpy(), net.bias.detach().numpy()
    score = np.exp(x @ weight.T + bias)
    error = score / score.sum(1, keepdims=True) - np.eye(CLASSES)[target]
    return torch.from_numpy(x + epsilon * np.sign(error @ weight))


@pytest.mark.quick
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_loss_is_mixed_with_that_under_attack(share: float) -> None:
    torch.manual_seed(3)
    net = nn.Linear(D, CLASSES).double()
    loss = classify(net)
    clean = loss(batch())
    found = Config(epsilon=0.2, share=share).build(SPEC, seed=1).add_loss(loss, batch(), clean)
    attacked = loss({**batch(), "input": attacked_by_hand(net, 0.2)})
    expected = share * clean.loss_sum + (1 - share) * attacked.loss_sum
    torch.testing.assert_close(found.loss_sum, expected)
    assert found.counted == B
    assert found.sums == clean.sums
    gradients = [torch.autograd.grad(value, net.weight, retain_graph=True)[0] for value in (found.loss_sum, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.quick
def test_no_gradient_reaches_the_weights_by_the_attack_itself() -> None:
    torch.manual_seed(3)
    net = nn.Linear(D, CLASSES).double()
    Config(epsilon=0.2).build(SPEC, seed=1).add_loss(classify(net), batch(), classify(net)(batch()))
    assert net.weight.grad is None


@pytest.mark.quick
def test_robust_accuracy_counts_what_is_right_under_attack() -> None:
    torch.manual_seed(3)
    net = nn.Linear(D, CLASSES).double()
    loss = classify(net)
    with torch.no_grad():
        found = Config(epsilon=0.4).build(SPEC, seed=1).add_metrics(loss, batch(), loss(batch()))
    hits = (net(attacked_by_hand(net, 0.4)).argmax(1) == batch()["target"]).sum()
    assert int(found.sums["robust_accuracy"]) == int(hits)
    assert int(hits) < int(found.sums["accuracy"])


@pytest.mark.quick
def test_the_attack_sees_the_masks_that_the_net_is_trained_under() -> None:
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout, self.output = Dropout(0.5), nn.Linear(D, CLASSES)

        def forward(self, x, rng):
            return self.output(self.dropout(x, rng))

    torch.manual_seed(3)
    net = name_streams(Net().double())
    rng = Draws(3, 0, 0, B)
    dropped = net.dropout(torch.ones(B, D, dtype=torch.float64), rng) == 0
    seen = []
    loss = classify(net, rng)

    def watched(batch):
        seen.append(batch["input"])
        return loss(batch)

    Config(epsilon=0.2).build(SPEC, seed=1).add_loss(watched, batch(), loss(batch()))
    # What is dropped does not touch the loss: its gradient is zero and so is its change.
    assert (seen[-1] == batch()["input"]).equal(dropped)


@pytest.mark.quick
def test_what_cannot_be_attacked_is_refused() -> None:
    strategy = single.Config(kind="single")
    with pytest.raises(UserError, match=r"regularize\.adversarial: changes real values .* gives tokens; leave it out"):
        Config(epsilon=0.1).check(DataSpec("tokens", (31,), vocab_size=97), strategy)
    with pytest.raises(UserError, match=r"regularize\.adversarial: needs classes"):
        Config(epsilon=0.1).check(DataSpec("features", (7,), target_size=2), strategy)
    Config(epsilon=0.1).check(SPEC, strategy)


@pytest.mark.quick
def test_an_objective_without_accuracy_is_refused() -> None:
    outcome = Outcome(torch.tensor(0.0), B, None, {})
    with pytest.raises(UserError, match="counts accuracy"):
        Config(epsilon=0.1).build(SPEC, seed=1).add_metrics(lambda batch: outcome, batch(), outcome)


def test_a_run_reports_accuracy_under_attack_and_can_be_judged_by_it(tmp_path, tiny_mlp) -> None:
    changes = {"trainer.monitor": "val/robust_accuracy", "trainer.monitor_mode": "max", "trainer.max_steps": 60}
    attacks = {"regularize.adversarial.epsilon": 0.2}
    plain = fit(tiny_mlp, {**changes, **attacks, "regularize.adversarial.share": 1.0}, runs=tmp_path, progress=False)
    trained = fit(tiny_mlp, {**changes, **attacks}, runs=tmp_path, progress=False)
    for result in (plain, trained):
        assert result.metrics["test/robust_accuracy"] < result.metrics["test/accuracy"]
    assert trained.metrics["test/robust_accuracy"] > plain.metrics["test/robust_accuracy"]
