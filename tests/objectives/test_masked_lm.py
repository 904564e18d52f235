"""BERT's loss against transformers' own, and the same however rows are dealt out."""

import importlib.util
import itertools

import pytest
import torch
import torch.nn.functional as F

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models import bert
from headway.objectives import masked_lm

pytestmark = pytest.mark.quick

B, T, V = 5, 11, 31
SPEC = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, masked=True)


def build(seed=3):
    net = bert.Config(kind="bert", num_layers=2, num_heads=3, width=15, dropout=0.0).build(SPEC).double()
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(index + seed))
    return net


def batch(hidden):
    """Returns rows of which each hides so many tokens."""
    generator = torch.Generator().manual_seed(5)
    token_BT = torch.randint(4, V, (B, T), generator=generator)
    order_BT = torch.rand(B, T, generator=generator).argsort(1)
    asked_BT = torch.zeros(B, T, dtype=torch.bool)
    for row, count in enumerate(hidden):
        asked_BT[row, order_BT[row, :count]] = True
    return {
        "input": token_BT.masked_fill(asked_BT, 3),
        "target": token_BT.masked_fill(~asked_BT, masked_lm.IGNORED),
        "segment": (torch.arange(T) > 5).long().expand(B, T).contiguous(),
        "is_next": torch.tensor([True, False, False, True, False]),
    }


def outcome(net, rows):
    # The heart is pure: it needs nothing of the module around it.
    return masked_lm.MaskedLM.outcome(masked_lm.MaskedLM.__new__(masked_lm.MaskedLM), net, rows, None, None)


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed here")
def test_rows_that_hide_equally_many_have_the_loss_of_transformers(tmp_path):
    from transformers import BertForPreTraining

    from headway.models._huggingface import save_huggingface

    net, rows = build().eval(), batch([3] * B)
    save_huggingface(net.config, net, SPEC, tmp_path)
    theirs = BertForPreTraining.from_pretrained(tmp_path, dtype=torch.float64).eval()
    expected = theirs(
        rows["input"],
        token_type_ids=rows["segment"],
        labels=rows["target"],
        next_sentence_label=(~rows["is_next"]).long(),
    ).loss
    found = outcome(net, rows)
    torch.testing.assert_close(found.loss_sum / found.counted, expected, rtol=0, atol=1e-12)


def test_both_losses_are_means_over_hidden_tokens_the_second_by_rows_that_weigh_as_many():
    hidden = [1, 4, 2, 0, 7]
    net, rows = build(), batch(hidden)
    found = outcome(net, rows)
    token_logits, next_logits = net(rows["input"], None, rows["segment"])
    token_loss = F.cross_entropy(token_logits.transpose(1, 2), rows["target"])
    by_row = F.cross_entropy(next_logits, (~rows["is_next"]).long(), reduction="none")
    next_loss = sum(count * loss for count, loss in zip(hidden, by_row, strict=True)) / sum(hidden)
    assert int(found.counted) == sum(hidden)
    torch.testing.assert_close(found.loss_sum / found.counted, token_loss + next_loss)
    sums = {name: value.item() / sum(hidden) for name, value in found.sums.items()}
    assert sums["token_loss"] == pytest.approx(token_loss.item())
    assert sums["next_loss"] == pytest.approx(next_loss.item())
    asked = rows["target"] != masked_lm.IGNORED
    right = (token_logits.argmax(2) == rows["target"])[asked].double().mean()
    assert sums["token_accuracy"] == pytest.approx(right.item())
    follows = next_logits.argmax(1) == 0
    expected = sum(count for count, ok in zip(hidden, follows == rows["is_next"], strict=True) if ok) / sum(hidden)
    assert sums["next_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("cuts", [[5], [2, 3], [1, 1, 1, 1, 1], [4, 1]])
def test_sums_and_gradients_are_the_same_however_the_rows_are_dealt_out(cuts):
    net, rows = build(), batch([1, 4, 2, 0, 7])
    whole = outcome(net, rows)
    gradient = torch.autograd.grad(whole.loss_sum, net.parameters())
    pieces = []
    for start, stop in itertools.pairwise(itertools.accumulate([0, *cuts])):
        pieces.append(outcome(net, {name: value[start:stop] for name, value in rows.items()}))
    assert sum(int(piece.counted) for piece in pieces) == int(whole.counted)
    torch.testing.assert_close(sum(piece.loss_sum for piece in pieces), whole.loss_sum, rtol=0, atol=1e-12)
    for name, value in whole.sums.items():
        torch.testing.assert_close(
            sum(piece.sums[name].double() for piece in pieces), value.double(), rtol=0, atol=1e-12
        )
    parts = [torch.autograd.grad(piece.loss_sum, net.parameters()) for piece in pieces]
    for index, expected in enumerate(gradient):
        torch.testing.assert_close(sum(part[index] for part in parts), expected, rtol=0, atol=1e-11)


def test_one_segment_has_no_second_loss():
    net, rows = build(), batch([3] * B)
    alone = outcome(net, {name: rows[name] for name in ("input", "target")})
    assert alone.loss_sum == alone.sums["token_loss"]
    assert alone.sums["next_loss"] == alone.sums["next_accuracy"] == 0
    assert set(alone.sums) == set(masked_lm.Config.metric_names)


def test_what_is_not_hidden_is_not_asked_for():
    net, rows = build(), batch([3] * B)
    found = net(rows["input"], None, rows["segment"], asked_BT=rows["target"] != masked_lm.IGNORED)
    assert found.token_logits.shape == (3 * B, V)


def test_data_without_hidden_tokens_is_refused():
    with pytest.raises(UserError, match=r"^objective\.kind: masked_lm needs hidden tokens"):
        masked_lm.Config(kind="masked_lm").check(DataSpec("tokens", (T,), vocab_size=V))
    masked_lm.Config(kind="masked_lm").check(SPEC)
