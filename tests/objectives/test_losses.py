"""Objectives against torch's own losses; how a batch is cut changes neither loss nor gradient."""

import copy
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headway.config.contracts import DataSpec, Place
from headway.config.errors import UserError
from headway.data._splits import TensorSplit
from headway.feed import Feed
from headway.nn.draws import Draws, name_streams
from headway.nn.dropout import Dropout
from headway.objectives import causal_lm, classify, regress
from headway.objectives._chunks import Chunk, Schedule
from headway.optim import SGD

pytestmark = pytest.mark.quick

N, D, CLASSES, T, V = 13, 7, 5, 3, 11
IGNORED = causal_lm.IGNORED


class Net(nn.Module):
    """Two layers with dropout between them; tokens are embedded first."""

    def __init__(self, outputs, tokens=False):
        super().__init__()
        self.first = nn.Embedding(V, 17) if tokens else nn.Linear(D, 17)
        self.dropout = Dropout(0.3)
        self.second = nn.Linear(17, outputs)

    def forward(self, input, rng=None):
        return self.second(self.dropout(torch.tanh(self.first(input)), rng))


def data(kind):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(N, D, dtype=torch.float64, generator=generator)
    if kind == "classify":
        return {"input": x, "target": torch.randint(0, CLASSES, (N,), generator=generator)}
    if kind == "regress":
        return {"input": x, "target": torch.randn(N, 2, dtype=torch.float64, generator=generator)}
    target = torch.randint(0, V, (N, T), generator=generator)
    target[torch.rand(N, T, generator=generator) < 0.4] = IGNORED
    target[3] = IGNORED
    return {"input": torch.randint(0, V, (N, T), generator=generator), "target": target}


KINDS = {"classify": (classify, CLASSES), "regress": (regress, 2), "causal_lm": (causal_lm, V)}


class Engine:
    """One process's strategy, or one rank's whose sums over the ranks are known beforehand."""

    tells_waiting = False

    def __init__(self, objective, global_count=None):
        self.objective = objective
        self.global_count = global_count
        self.optimizers = [objective.configure_optimizers()]
        self.gradients = None
        self.last = []

    def forward(self, *arguments):
        return self.objective(*arguments)

    def accumulate(self, *, last):
        self.last.append(last)

    def backward(self, loss, computed):
        loss.backward()

    def update(self, optimizer, clip_norm):
        self.gradients = {name: weight.grad.clone() for name, weight in self.objective.net.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()

    def sum_over_ranks(self, values):
        return values if self.global_count is None or values.ndim else torch.full_like(values, self.global_count)


def build(kind, *, place=None, micro_batch=None, batch_size=N, split=None, global_count=None, seed=3, **settings):
    module, outputs = KINDS[kind]
    torch.manual_seed(seed)
    net = name_streams(Net(outputs, tokens=kind == "causal_lm").double())

    def feed(seed):
        return Feed(
            split or TensorSplit(data(kind)),
            batch_size=batch_size,
            micro_batch=micro_batch,
            place=place or Place(),
            seed=seed,
        )

    objective = module.Config(kind=kind, **settings).build(
        net,
        optim=SGD(kind="sgd", lr=0.5),
        schedule=Schedule(seed=3, total_steps=7, validate_every=7, steps_per_call=1),
        train=feed(9),
        validation=feed(None),
    )
    engine = Engine(objective, global_count)
    objective._trainer = SimpleNamespace(strategy=engine, fit_loop=MagicMock())
    return objective, engine


def counted(kind, batch):
    return int((batch["target"] != IGNORED).sum()) if kind == "causal_lm" else len(batch["input"])


def test_the_squared_loss_is_the_error_of_the_probabilities():
    objective, _ = build("classify", loss="squared")
    batch = data("classify")
    outcome = objective.outcome(objective.net.eval(), batch, None, None)
    probability = objective.net(batch["input"]).softmax(1).detach().numpy()
    by_hand = sum(
        (probability[row, c] - float(c == target)) ** 2
        for row, target in enumerate(batch["target"].tolist())
        for c in range(CLASSES)
    )
    assert outcome.loss_sum.item() == pytest.approx(by_hand)


def test_the_squared_loss_has_no_gradient_where_the_net_is_sure_and_wrong():
    sure = torch.tensor([[30.0, 0.0, 0.0]], requires_grad=True)
    classify.squared_error(sure, torch.tensor([1])).sum().backward()
    assert sure.grad.abs().max() < 1e-10
    entropy = torch.autograd.grad(F.cross_entropy(sure, torch.tensor([1])), sure)[0]
    assert entropy.abs().max() > 0.99


# ---- the pure heart ------------------------------------------------------------------------------


def test_classify_is_torchs_cross_entropy():
    objective, _ = build("classify")
    batch = data("classify")
    outcome = objective.eval().outcome(objective.net, batch, None, None)
    logits = objective.net(batch["input"])
    torch.testing.assert_close(outcome.loss_sum, F.cross_entropy(logits, batch["target"]) * N)
    assert int(outcome.counted) == N
    assert int(outcome.sums["accuracy"]) == int((logits.argmax(1) == batch["target"]).sum())
    assert outcome.state is None


def test_label_smoothing_is_torchs_and_only_while_training():
    objective, _ = build("classify", label_smoothing=0.2)
    batch, target = data("classify"), data("classify")["target"]
    draws = Draws(3, 0, 0, N)
    smoothed = objective.train().outcome(objective.net, batch, None, draws).loss_sum
    logits = objective.net(batch["input"], draws)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits, target, reduction="sum", label_smoothing=0.2))
    by_hand = -(0.8 * F.one_hot(target, CLASSES) + 0.2 / CLASSES) * logits.log_softmax(1)
    torch.testing.assert_close(smoothed, by_hand.sum())
    plain = objective.eval().outcome(objective.net, batch, None, None).loss_sum
    torch.testing.assert_close(plain, F.cross_entropy(objective.net(batch["input"]), target, reduction="sum"))


def test_regress_is_torchs_mean_squared_error():
    objective, _ = build("regress")
    batch = data("regress")
    outcome = objective.eval().outcome(objective.net, batch, None, None)
    found = objective.net(batch["input"])
    torch.testing.assert_close(outcome.loss_sum / outcome.counted, F.mse_loss(found, batch["target"]))
    torch.testing.assert_close(
        outcome.sums["absolute_error"] / outcome.counted, F.l1_loss(found, batch["target"]).detach()
    )


def test_causal_lm_is_torchs_cross_entropy_over_what_is_not_masked():
    objective, _ = build("causal_lm")
    batch = data("causal_lm")
    outcome = objective.eval().outcome(objective.net, batch, None, None)
    logits = objective.net(batch["input"])
    torch.testing.assert_close(
        outcome.loss_sum / outcome.counted, F.cross_entropy(logits.transpose(1, 2), batch["target"])
    )
    assert int(outcome.counted) == counted("causal_lm", batch) < N * T
    assert int(objective.count(batch)) == int(outcome.counted)


def test_a_masked_token_counts_for_nothing():
    objective, _ = build("causal_lm")
    objective.eval()
    batch = data("causal_lm")
    before = objective.outcome(objective.net, batch, None, None)
    masked = (batch["target"] == IGNORED).nonzero()[0]
    changed = {**batch, "input": batch["input"].clone()}
    # What the net here says of a token depends on that token alone.
    changed["input"][tuple(masked)] = (changed["input"][tuple(masked)] + 1) % V
    after = objective.outcome(objective.net, changed, None, None)
    assert torch.equal(before.loss_sum, after.loss_sum)
    gradients = [torch.autograd.grad(outcome.loss_sum, objective.net.second.weight)[0] for outcome in (before, after)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-14)


def test_the_heart_leaves_the_objective_as_it_is():
    for kind in KINDS:
        objective, _ = build(kind)
        before = copy.deepcopy({name: value for name, value in vars(objective).items() if name in ("step", "_carried")})
        one = objective.outcome(objective.net, data(kind), None, Draws(3, 0, 0, N))
        two = objective.outcome(objective.net, data(kind), None, Draws(3, 0, 0, N))
        assert torch.equal(one.loss_sum, two.loss_sum)
        assert {name: vars(objective)[name] for name in before} == before


@pytest.mark.parametrize(
    ("kind", "spec", "line"),
    [
        ("classify", DataSpec("features", (D,), target_size=2), "objective.kind: classify needs classes"),
        ("regress", DataSpec("features", (D,), num_classes=2), "objective.kind: regress needs real targets"),
        ("causal_lm", DataSpec("features", (D,), num_classes=2), "objective.kind: causal_lm needs tokens"),
    ],
)
def test_data_without_the_target_is_refused(kind, spec, line):
    with pytest.raises(UserError) as caught:
        KINDS[kind][0].Config(kind=kind).check(spec)
    assert str(caught.value).startswith(line)


# ---- a step ----------------------------------------------------------------------------------------


def step(objective):
    objective.train()
    objective.training_step(Chunk(objective.step, 1))
    return objective.report.rows[-1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_that_of_a_loop_written_by_hand(kind):
    objective, engine = build(kind)
    twin = copy.deepcopy(objective.net)
    batch = objective.train_feed.share(0).micro_batches[0].batch
    outcome = objective.outcome(twin, batch, None, Draws(3, 0, 0, N))
    loss = outcome.loss_sum / counted(kind, batch)
    loss.backward()
    row = step(objective)
    assert row["step"] == 1
    assert row["train/lr"] == 0.5
    assert row["train/loss"] == pytest.approx(loss.item(), rel=1e-12)
    for (name, weight), own in zip(twin.named_parameters(), objective.net.parameters(), strict=True):
        torch.testing.assert_close(engine.gradients[name], weight.grad, rtol=0, atol=1e-13)
        torch.testing.assert_close(own, weight - 0.5 * weight.grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_the_gradient_of_a_batch_in_pieces_is_that_of_the_whole(kind, micro_batch):
    whole, whole_engine = build(kind)
    pieces, pieces_engine = build(kind, micro_batch=micro_batch)
    rows = step(whole), step(pieces)
    assert pieces_engine.last == [False] * (-(-N // micro_batch) - 1) + [True]
    assert rows[0].keys() == rows[1].keys()
    for name, value in rows[0].items():
        assert rows[1][name] == pytest.approx(value, rel=1e-12), name
    for name, gradient in whole_engine.gradients.items():
        assert gradient.abs().sum() > 0
        torch.testing.assert_close(pieces_engine.gradients[name], gradient, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [2, 3, 17])
def test_the_average_over_ranks_of_their_gradients_is_that_of_the_whole(kind, world):
    whole, whole_engine = build(kind)
    batch = whole.train_feed.share(0).micro_batches[0].batch
    step(whole)
    mean = {name: torch.zeros_like(gradient) for name, gradient in whole_engine.gradients.items()}
    for rank in range(world):
        objective, engine = build(kind, place=Place(rank, world), micro_batch=2, global_count=counted(kind, batch))
        step(objective)
        for name, gradient in engine.gradients.items():
            mean[name] += gradient / world
    for name, gradient in whole_engine.gradients.items():
        torch.testing.assert_close(mean[name], gradient, rtol=0, atol=1e-13)


def test_a_batch_that_is_masked_whole_has_no_gradient():
    batch = data("causal_lm")
    batch["target"] = torch.full_like(batch["target"], IGNORED)
    objective, engine = build("causal_lm", split=TensorSplit(batch))
    row = step(objective)
    assert row["train/loss"] == 0.0
    assert all(gradient.eq(0).all() for gradient in engine.gradients.values())


def test_every_step_draws_other_masks():
    objective, engine = build("classify")
    objective.optim = SGD(kind="sgd", lr=1e-30)
    step(objective)
    first = engine.gradients
    step(objective)
    assert not torch.allclose(first["second.weight"], engine.gradients["second.weight"], atol=1e-6)


# ---- validation ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("batch_size", "micro_batch"), [(N, None), (5, None), (5, 2), (1, None)])
def test_a_validation_is_the_mean_over_the_split_however_it_is_cut(kind, batch_size, micro_batch):
    objective, _ = build(kind, batch_size=batch_size, micro_batch=micro_batch)
    found = objective.evaluate(objective.validation_feed, "val")
    outcome = objective.eval().outcome(objective.net, data(kind), None, None)
    count = counted(kind, data(kind))
    assert found["val/loss"] == pytest.approx((outcome.loss_sum / count).item(), rel=1e-12)
    for name, total in outcome.sums.items():
        assert found[f"val/{name}"] == pytest.approx((total / count).item(), rel=1e-12)
    assert set(found) == {"val/loss", *(f"val/{name}" for name in outcome.sums)}


def test_an_evaluation_leaves_the_mode_as_it_was():
    objective, _ = build("classify")
    for training in (True, False):
        objective.train(training)
        objective.evaluate(objective.validation_feed, "val")
        assert objective.training is training
