"""The loss of a translation: torch's own over the tokens that count, whatever stands behind them."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.models import transformer
from headway.nn.draws import Draws, name_streams
from headway.objectives import seq2seq
from headway.objectives.causal_lm import IGNORED

pytestmark = pytest.mark.quick

B, S, T, V = 3, 5, 7, 11
PAIRS = DataSpec(input_kind="pairs", input_shape=(S,), target_length=T, vocab_size=V)
LENGTHS = (7, 2, 4)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(5)
    target_BT = torch.randint(3, V, (B, T), generator=generator)
    target_BT = target_BT.masked_fill(torch.arange(T) >= torch.tensor(LENGTHS)[:, None], IGNORED)
    source_BS = torch.randint(3, V, (B, S), generator=generator)
    return {"input": source_BS, "decoder_input": target_BT.roll(1, 1).clamp(min=0), "target": target_BT}


def build(*, dropout=0.0, **settings):
    tree = {"kind": "transformer", "num_layers": 1, "num_heads": 2, "width": 14, "dropout": dropout}
    net = validate_section(transformer.Config, tree, path="model").build(PAIRS).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(0, 0.5, generator=generator)
    config = validate_section(seq2seq.Config, {"kind": "seq2seq", **settings}, path="objective")
    schedule = SimpleNamespace(steps_per_call=1, chunk_seconds=0.1)
    nothing = {"optim": None, "schedule": schedule, "train": None, "validation": None}
    return config.build(name_streams(net), **nothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_smoothing_is_torchs_and_only_while_training(batch, smoothing):
    objective = build(label_smoothing=smoothing)
    logits = objective.net(batch["input"], batch["decoder_input"]).flatten(0, 1)
    target = batch["target"].flatten()
    for training, share in ((True, smoothing), (False, 0.0)):
        outcome = objective.train(training).outcome(objective.net, batch, None, None)
        expected = F.cross_entropy(logits, target, ignore_index=IGNORED, label_smoothing=share) * sum(LENGTHS)
        torch.testing.assert_close(outcome.loss_sum, expected)
        assert int(outcome.counted) == int(objective.count(batch)) == sum(LENGTHS)
        assert outcome.state is None


def test_smoothing_spreads_its_share_evenly_over_the_vocabulary(batch):
    objective = build(label_smoothing=0.3).train()
    log_probability_BTV = objective.net(batch["input"], batch["decoder_input"]).log_softmax(2)
    expected = 0.0
    for row, length in enumerate(LENGTHS):
        for place in range(length):
            for token in range(V):
                share = 0.3 / V + 0.7 * (token == batch["target"][row, place].item())
                expected -= share * log_probability_BTV[row, place, token].item()
    assert objective.outcome(objective.net, batch, None, None).loss_sum.item() == pytest.approx(expected)


def test_accuracy_counts_the_likeliest_tokens(batch):
    objective = build().eval()
    likeliest_BT = objective.net(batch["input"], batch["decoder_input"]).argmax(2)
    counts = batch["target"] != IGNORED
    for right in (0, 1, 5, sum(LENGTHS)):
        wrong_BT = (likeliest_BT + 1) % V
        keep = counts.flatten().cumsum(0).view(B, T) <= right
        target_BT = torch.where(keep, likeliest_BT, wrong_BT).masked_fill(~counts, IGNORED)
        outcome = objective.outcome(objective.net, {**batch, "target": target_BT}, None, None)
        assert int(outcome.sums["accuracy"]) == right


def test_how_a_batch_is_cut_and_padded_changes_neither_loss_nor_gradient(batch):
    objective = build(dropout=0.3).train()
    objective.outcome(objective.net, batch, None, Draws(3, 5, 0, B)).loss_sum.backward()
    whole = [weight.grad.clone() for weight in objective.net.parameters()]
    objective.net.zero_grad()
    for row, length in enumerate(LENGTHS):
        # As the split gives a batch of this pair alone: no longer than it is.
        alone = {name: value[row : row + 1, : length if name != "input" else S] for name, value in batch.items()}
        objective.outcome(objective.net, alone, None, Draws(3, 5, row, 1)).loss_sum.backward()
    for weight, expected in zip(objective.net.parameters(), whole, strict=True):
        torch.testing.assert_close(weight.grad, expected, rtol=0, atol=1e-12)


def test_a_net_that_knows_nothing_has_the_loss_of_guessing(batch):
    objective = build().eval()
    nn.init.zeros_(objective.net.embedding.weight)
    outcome = objective.outcome(objective.net, batch, None, None)
    assert outcome.loss_sum.item() / outcome.counted == pytest.approx(math.log(V))


def test_data_without_pairs_is_refused():
    with pytest.raises(UserError, match=r"^objective\.kind: seq2seq needs pairs of sentences, which this data has not"):
        seq2seq.Config(kind="seq2seq").check(DataSpec("tokens", (7,), vocab_size=V))
    seq2seq.Config(kind="seq2seq").check(PAIRS)
