"""GPT against transformers' GPT-2 with the weights carried over, its size, its ties and its start."""

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
from headway.models import gpt
from headway.nn.draws import Draws, name_streams

pytestmark = pytest.mark.quick

B, T, V = 2, 7, 31
SIZES = {"num_layers": 3, "num_heads": 2, "width": 22}
SPEC = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V)


transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed here"
)


def build(spec=SPEC, **settings):
    return validate_section(gpt.Config, {"kind": "gpt", **SIZES, **settings}, path="model").build(spec)


def start(net, seed=3):
    return initialize(net, normal.Config(kind="normal", seed=seed))


@pytest.fixture
def token_BT():  # noqa: N802 - names its axes
    return torch.randint(0, V, (B, T), generator=torch.Generator().manual_seed(5))


def carried_over(ours):
    """Returns transformers' GPT-2 or GPT-1 with our weights; its layers are (in, out) where ours are (out, in)."""
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    pre = ours.config.norm == "pre"
    theirs = (GPT2LMHeadModel if pre else OpenAIGPTLMHeadModel)(
        (GPT2Config if pre else OpenAIGPTConfig)(
            vocab_size=V, n_positions=T, n_embd=22, n_layer=3, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
        )
    ).double()
    names = {
        "attention_norm": "ln_1", "attention.query_key_value": "attn.c_attn", "attention.output": "attn.c_proj",
        "mlp_norm": "ln_2", "expand": "mlp.c_fc", "contract": "mlp.c_proj",
    }  # fmt: skip
    modules = dict(theirs.named_modules())
    pairs = [
        (ours.token_embedding, modules["transformer.wte" if pre else "transformer.tokens_embed"]),
        (ours.position_embedding, modules["transformer.wpe" if pre else "transformer.positions_embed"]),
    ]
    if pre:
        pairs.append((ours.norm, modules["transformer.ln_f"]))
    for index, block in enumerate(ours.blocks):
        for own, other in names.items():
            pairs.append((block.get_submodule(own), modules[f"transformer.h.{index}.{other}"]))
    with torch.no_grad():
        for own, other in pairs:
            other.weight.copy_(own.weight.T if isinstance(own, nn.Linear) else own.weight)
            if getattr(own, "bias", None) is not None:
                other.bias.copy_(own.bias)
    return theirs, pairs


def stir(net):
    """Draws every weight, norms and biases included, so that none is at a value that hides a mistake."""
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(index))
    return net


@transformers
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_logits_and_gradients_are_those_of_transformers(token_BT, norm):
    ours = stir(build(norm=norm).double())
    theirs, pairs = carried_over(ours)
    out, expected = ours(token_BT), theirs(token_BT).logits
    assert out.abs().max() > 0.5
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for logits in (out, expected):
        nn.functional.cross_entropy(logits.flatten(0, 1), token_BT.roll(-1, 1).flatten()).backward()
    assert len(pairs) == (3 if norm == "pre" else 2) + 3 * 6
    for own, other in pairs:
        gradient = own.weight.grad.T if isinstance(own, nn.Linear) else own.weight.grad
        torch.testing.assert_close(gradient, other.weight.grad, rtol=0, atol=1e-12)
        if getattr(own, "bias", None) is not None:
            torch.testing.assert_close(own.bias.grad, other.bias.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "positions", "tokens", "weights"),
    [
        ((12, 12, 768, "post"), 512, 40_478, 116_534_784),
        ((12, 12, 768, "pre"), 1024, 50_257, 124_439_808),
        ((24, 16, 1024, "pre"), 1024, 50_257, 354_823_168),
        ((36, 20, 1280, "pre"), 1024, 50_257, 774_030_080),
        ((48, 25, 1600, "pre"), 1024, 50_257, 1_557_611_200),
    ],
)
def test_published_sizes_have_as_many_weights_as_published(sizes, positions, tokens, weights):
    spec = DataSpec(input_kind="tokens", input_shape=(positions,), vocab_size=tokens)
    with torch.device("meta"):
        net = build(spec, **dict(zip(("num_layers", "num_heads", "width", "norm"), sizes, strict=True)))
    assert sum(weight.numel() for weight in net.parameters()) == weights


@transformers
def test_transformers_counts_the_same_weights():
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    with torch.device("meta"):
        nets = GPT2LMHeadModel(GPT2Config()), OpenAIGPTLMHeadModel(OpenAIGPTConfig())
    assert [sum(weight.numel() for weight in net.parameters()) for net in nets] == [124_439_808, 116_534_784]


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("cuts", [[1] * T, [3, 4], [2, 1, 4]])
def test_a_sequence_in_pieces_gives_the_logits_of_the_whole(token_BT, norm, cuts):
    net, state, pieces = stir(build(norm=norm).double()), None, []
    for piece in token_BT.split(cuts, dim=1):
        logits, state = net(piece, None, state, carry=True)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), net(token_BT), rtol=0, atol=1e-12)
    assert {value.shape for value in state.values()} == {(B, 2, T, 11)}
    assert len(state) == 2 * 3


def test_more_tokens_than_positions_are_refused(token_BT):
    net = build()
    line = r"^model\.max_positions: 7 is less than the 8 tokens to read"
    with pytest.raises(UserError, match=line):
        net(torch.zeros(B, T + 1, dtype=torch.int64))
    _, state = net(token_BT, carry=True)
    with pytest.raises(UserError, match=line):
        net(token_BT[:, :1], None, state, carry=True)


def test_loss_at_initialization_is_near_that_of_guessing():
    token_BT = torch.randint(0, V, (31, T + 1), generator=torch.Generator().manual_seed(5))
    logits = start(build())(token_BT[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), token_BT[:, 1:].flatten())
    assert abs(loss.item() - math.log(V)) < 0.05


def test_causal_mask_hides_the_future(token_BT):
    net = build().double()
    out = net(token_BT)
    for now in range(T - 1):
        changed = token_BT.clone()
        changed[:, now + 1 :] = (changed[:, now + 1 :] + 1) % V
        later = net(changed)
        torch.testing.assert_close(later[:, : now + 1], out[:, : now + 1], rtol=0, atol=1e-13)
        assert not torch.allclose(later[:, now + 1], out[:, now + 1])


def test_the_place_of_a_token_matters():
    token_BT = torch.full((1, T), 3)
    out = build().double()(token_BT)
    assert len(torch.unique(out[0].round(decimals=9), dim=0)) == T


def test_tied_weights_are_one():
    net = build()
    assert net.output.weight is net.token_embedding.weight
    loose = build(tied=False)
    assert loose.output.weight is not loose.token_embedding.weight
    assert sum(w.numel() for w in loose.parameters()) - sum(w.numel() for w in net.parameters()) == V * 22


def test_tied_weights_are_drawn_once_and_stay_tied():
    net = start(build())
    assert net.output.weight is net.token_embedding.weight
    assert torch.equal(start(build(tied=False)).token_embedding.weight, net.token_embedding.weight)


def test_residual_projections_of_gpt1_start_as_large_as_the_others():
    block = start(build(norm="post", width=106)).blocks[0]
    assert abs((block.contract.weight.std() / block.expand.weight.std()).item() - 1) < 0.02


def test_residual_projections_start_smaller():
    net = start(build(num_layers=3, width=106, num_heads=2))
    for block in net.blocks:
        for small, large in ((block.attention.output, block.attention.query_key_value), (block.contract, block.expand)):
            ratio = (small.weight.std() / large.weight.std()).item()
            assert abs(ratio - 1 / math.sqrt(6)) < 0.02


def test_without_biases_there_is_none():
    assert not [name for name, _ in build(bias=False).named_parameters() if name.endswith("bias")]


def test_dropout_is_the_same_however_a_batch_is_cut(token_BT):
    net = name_streams(build(dropout=0.3).double())
    whole = net(token_BT, Draws(3, 5, 0, B))
    rows = [net(token_BT[row : row + 1], Draws(3, 5, row, 1)) for row in range(B)]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(net(token_BT, Draws(3, 6, 0, B)), whole)
    assert torch.equal(net.eval()(token_BT, Draws(3, 5, 0, B)), net(token_BT))


def test_a_net_with_more_positions_reads_short_and_long_sequences(token_BT):
    net = build(max_positions=11).double()
    assert net(torch.zeros(B, 11, dtype=torch.int64)).shape == (B, 11, V)
    torch.testing.assert_close(net(token_BT[:, :3]), net(token_BT)[:, :3], rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_heads": 3}, "model: num_heads is 3 and does not divide width 22"),
        ({"max_positions": 5}, "model.max_positions: 5 is less than the data's sequence length 7; raise it or lower"),
        ({"num_layers": 0}, "model.num_layers: input should be greater than 0 (got 0)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, line):
    with pytest.raises(UserError) as caught:
        build(**settings)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (DataSpec("features", (7,), num_classes=3), "model.kind: gpt reads tokens; this data gives features"),
        (DataSpec("pairs", (7,), vocab_size=V), "model.kind: gpt reads tokens; this data gives pairs"),
        (
            DataSpec("tokens", (7,), vocab_size=V, num_classes=3),
            "model.kind: gpt predicts the next token and this data",
        ),
        (DataSpec("tokens", (7,), vocab_size=V, masked=True), "model.kind: gpt predicts the next token and this data"),
        (DataSpec("tokens", (7,), vocab_size=V, carried=True), "data.carry: is true, and a gpt has positions"),
    ],
)
def test_data_that_is_no_text_to_go_on_with_is_refused(spec, line):
    with pytest.raises(UserError) as caught:
        build(spec)
    assert str(caught.value).startswith(line)
