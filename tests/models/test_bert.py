"""BERT against transformers' with the weights carried over, its sizes, its padding and its start."""

import importlib.util
import math

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import normal
from headway.init.base import initialize
from headway.models import bert
from headway.nn.draws import Draws, name_streams

pytestmark = pytest.mark.quick

B, T, V, C = 2, 7, 31, 5
SIZES = {"num_layers": 3, "num_heads": 2, "width": 22, "hidden": 53, "dropout": 0.0}
SPEC = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, masked=True)
CLASSES = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, num_classes=C)
BASE = {"num_layers": 12, "num_heads": 12, "width": 768, "hidden": None}
LARGE = {"num_layers": 24, "num_heads": 16, "width": 1024, "hidden": None}

transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed here"
)


def build(spec=SPEC, **settings):
    return validate_section(bert.Config, {"kind": "bert", **SIZES, **settings}, path="model").build(spec)


def stir(net):
    """Draws every weight, norms and biases included, so that none is at a value that hides a mistake."""
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(index))
    return net


@pytest.fixture
def token_BT():  # noqa: N802 - names its axes
    """Returns tokens of which the second row's last two are padding."""
    tokens = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(5))
    tokens[1, -2:] = 0
    return tokens


@pytest.fixture
def segment_BT():  # noqa: N802 - names its axes
    return (torch.arange(T) > torch.tensor([[2], [4]])).long()


def carried_over(ours):
    """Returns transformers' BERT with our weights."""
    from transformers import BertConfig, BertForPreTraining, BertForSequenceClassification

    model = BertForPreTraining if ours.classifier is None else BertForSequenceClassification
    theirs = model(
        BertConfig(
            vocab_size=V, max_position_embeddings=T, hidden_size=22, num_hidden_layers=3, num_attention_heads=2,
            intermediate_size=53, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=C,
        )
    ).double()  # fmt: skip
    names = {
        "token_embedding": "bert.embeddings.word_embeddings",
        "position_embedding": "bert.embeddings.position_embeddings",
        "segment_embedding": "bert.embeddings.token_type_embeddings",
        "embedding_norm": "bert.embeddings.LayerNorm",
        "pooler": "bert.pooler.dense",
    }
    for index in range(3):
        layer = f"bert.encoder.layer.{index}"
        names |= {
            f"layers.{index}.attention.{part}": f"{layer}.attention.self.{part}" for part in ("query", "key", "value")
        }
        names |= {
            f"layers.{index}.attention.output": f"{layer}.attention.output.dense",
            f"layers.{index}.attention_norm": f"{layer}.attention.output.LayerNorm",
            f"layers.{index}.expand": f"{layer}.intermediate.dense",
            f"layers.{index}.contract": f"{layer}.output.dense",
            f"layers.{index}.mlp_norm": f"{layer}.output.LayerNorm",
        }
    if ours.classifier is None:
        names |= {
            "token_head.dense": "cls.predictions.transform.dense",
            "token_head.norm": "cls.predictions.transform.LayerNorm",
            "token_head.output": "cls.predictions.decoder",
            "next_head": "cls.seq_relationship",
        }
    else:
        names["classifier"] = "classifier"
    pairs = [(ours.get_submodule(own), theirs.get_submodule(other)) for own, other in names.items()]
    with torch.no_grad():
        for own, other in pairs:
            other.weight.copy_(own.weight)
            if getattr(own, "bias", None) is not None:
                other.bias.copy_(own.bias)
    return theirs, pairs


def assert_same_gradients(pairs, padding_row):
    for own, other in pairs:
        gradient = own.weight.grad.clone()
        if own is padding_row:
            # Transformers' embedding of the padding token learns nothing; its net never looks at it either.
            gradient[0] = other.weight.grad[0]
        torch.testing.assert_close(gradient, other.weight.grad, rtol=0, atol=1e-12)
        if getattr(own, "bias", None) is not None:
            torch.testing.assert_close(own.bias.grad, other.bias.grad, rtol=0, atol=1e-12)


@transformers
def test_both_heads_logits_and_gradients_are_those_of_transformers(token_BT, segment_BT):
    ours = stir(build().double())
    theirs, pairs = carried_over(ours)
    assert len(pairs) == 5 + 3 * 8 + 4
    target_BT = torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(7)).masked_fill(token_BT == 0, -100)
    following_B = torch.tensor([1, 0])
    out = ours(token_BT, None, segment_BT)
    expected = theirs(
        token_BT,
        attention_mask=token_BT != 0,
        token_type_ids=segment_BT,
        labels=target_BT,
        next_sentence_label=following_B,
    )
    real_BT = token_BT != 0
    torch.testing.assert_close(out.token_logits[real_BT], expected.prediction_logits[real_BT], rtol=0, atol=1e-12)
    torch.testing.assert_close(out.next_logits, expected.seq_relationship_logits, rtol=0, atol=1e-12)
    assert out.token_logits.abs().max() > 0.5
    loss = nn.functional.cross_entropy(out.token_logits.flatten(0, 1), target_BT.flatten())
    loss = loss + nn.functional.cross_entropy(out.next_logits, following_B)
    torch.testing.assert_close(loss, expected.loss, rtol=0, atol=1e-12)
    loss.backward()
    expected.loss.backward()
    assert_same_gradients(pairs, None)


@transformers
def test_class_logits_and_gradients_are_those_of_transformers(token_BT):
    ours = stir(build(CLASSES).double())
    theirs, pairs = carried_over(ours)
    out = ours(token_BT)
    expected = theirs(token_BT, attention_mask=token_BT != 0).logits
    assert out.shape == (B, C)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for logits in (out, expected):
        nn.functional.cross_entropy(logits, torch.tensor([3, 1])).backward()
    assert_same_gradients(pairs, ours.token_embedding)


@pytest.mark.parametrize(("sizes", "weights"), [(BASE, 110_106_428), (LARGE, 336_226_108)])
def test_published_sizes_have_as_many_weights_as_transformers_counts(sizes, weights):
    spec = DataSpec(input_kind="tokens", input_shape=(512,), vocab_size=30_522, masked=True)
    with torch.device("meta"):
        net = build(spec, **sizes)
    assert sum(weight.numel() for weight in net.parameters()) == weights


@transformers
def test_transformers_counts_the_same_weights():
    from transformers import BertConfig, BertForPreTraining

    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    with torch.device("meta"):
        nets = BertForPreTraining(BertConfig()), BertForPreTraining(BertConfig(**large))
    assert [sum(weight.numel() for weight in net.parameters()) for net in nets] == [110_106_428, 336_226_108]


def test_padding_changes_nothing_for_the_others(token_BT, segment_BT):
    net = stir(build().double())
    padded = net(token_BT, None, segment_BT)
    short = net(token_BT[1:, :-2], None, segment_BT[1:, :-2])
    torch.testing.assert_close(padded.token_logits[1:, :-2], short.token_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(padded.next_logits[1:], short.next_logits, rtol=0, atol=1e-12)


def test_every_token_looks_at_both_sides(token_BT):
    net = stir(build().double())
    out = net(token_BT).token_logits
    for changed_place in range(T - 2):
        changed = token_BT.clone()
        changed[:, changed_place] = changed[:, changed_place] % (V - 1) + 1
        assert (net(changed).token_logits - out).abs().amax(2)[:, : T - 2].gt(1e-9).all()


def test_logits_of_the_places_asked_for_are_those_of_all_at_these_places(token_BT, segment_BT):
    net = stir(build().double())
    asked_BT = torch.rand(B, T, generator=torch.Generator().manual_seed(5)) < 0.4
    found = net(token_BT, None, segment_BT, asked_BT=asked_BT)
    everywhere = net(token_BT, None, segment_BT)
    assert 0 < len(found.token_logits) < B * T
    torch.testing.assert_close(found.token_logits, everywhere.token_logits[asked_BT], rtol=0, atol=1e-12)
    assert torch.equal(found.next_logits, everywhere.next_logits)
    assert net(token_BT, asked_BT=torch.zeros_like(asked_BT)).token_logits.shape == (0, V)


def test_loss_at_initialization_is_near_that_of_guessing():
    token_BT = torch.randint(1, V, (31, T), generator=torch.Generator().manual_seed(5))
    net = initialize(build(), normal.Config(kind="normal", seed=3))
    out = net(token_BT)
    assert (
        abs(nn.functional.cross_entropy(out.token_logits.flatten(0, 1), token_BT.flatten()).item() - math.log(V)) < 0.1
    )
    assert abs(nn.functional.cross_entropy(out.next_logits, token_BT[:, 0] % 2).item() - math.log(2)) < 0.05
    assert net.token_head.output.bias.eq(0).all()
    assert net.token_head.output.weight is net.token_embedding.weight


def test_a_classifier_has_the_encoder_of_a_pretrained_net_by_the_same_names():
    pretrained, classifier = build().state_dict(), build(CLASSES).state_dict()
    shared = {
        name for name, value in classifier.items() if name in pretrained and pretrained[name].shape == value.shape
    }
    assert set(classifier) - shared == {"classifier.weight", "classifier.bias"}
    assert {name.partition(".")[0] for name in set(pretrained) - shared} == {"token_head", "next_head"}


def test_dropout_is_the_same_however_a_batch_is_cut(token_BT):
    net = name_streams(build(dropout=0.3).double())
    whole = net(token_BT, Draws(3, 5, 0, B))
    rows = [net(token_BT[row : row + 1], Draws(3, 5, row, 1)) for row in range(B)]
    torch.testing.assert_close(torch.cat([row.next_logits for row in rows]), whole.next_logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.cat([row.token_logits for row in rows]), whole.token_logits, rtol=0, atol=1e-12)
    assert not torch.allclose(net(token_BT, Draws(3, 6, 0, B)).next_logits, whole.next_logits)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(UserError, match=r"^model\.max_positions: 7 is less than the 8 tokens to read"):
        build()(torch.ones(B, T + 1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("spec", "settings", "line"),
    [
        (SPEC, {"num_heads": 3}, "model: num_heads is 3 and does not divide width 22"),
        (SPEC, {"max_positions": 5}, "model.max_positions: 5 is less than the data's sequence length 7; raise it or"),
        (DataSpec("features", (7,), num_classes=3), {}, "model.kind: bert reads tokens; this data gives features"),
        (DataSpec("tokens", (7,), vocab_size=V), {}, "model.kind: bert names hidden tokens or classes"),
    ],
)
def test_what_does_not_fit_is_refused(spec, settings, line):
    with pytest.raises(UserError) as caught:
        build(spec, **settings)
    assert str(caught.value).startswith(line)
