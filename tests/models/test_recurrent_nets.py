"""RNN, LSTM and GRU as language models and over sequences: their twins, their ties, their start, what they refuse."""

import math

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import normal, uniform_fan_in
from headway.init.base import initialize
from headway.models import gru, lstm, rnn
from headway.nn.draws import Draws, name_streams

pytestmark = pytest.mark.quick

B, T, V, D, H, CLASSES = 3, 11, 31, 5, 7, 2
TEXT = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V)
CARRIED = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, carried=True)
LABELLED = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, num_classes=CLASSES)
SERIES = DataSpec(input_kind="sequence", input_shape=(T, D), num_classes=CLASSES)
REAL = DataSpec(input_kind="sequence", input_shape=(T, D), target_size=3)
MODULES = {"rnn": rnn, "lstm": lstm, "gru": gru}
TWINS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def build(kind, spec=TEXT, **settings):
    settings = {"kind": kind, "hidden": H, **settings}
    return name_streams(validate_section(MODULES[kind].Config, settings, path="model").build(spec))


def tokens(*shape):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(5))


def carried_over(net, kind, num_inputs, num_layers):
    """Returns torch's layers with the net's weights."""
    twin = TWINS[kind](num_inputs, H, num_layers, batch_first=True).double()
    with torch.no_grad():
        for own, other in zip(net.recurrent.parameters(), twin.parameters(), strict=True):
            other.copy_(own)
    return twin


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("kind", MODULES)
def test_a_language_model_is_embedding_layers_and_output(kind, num_layers):
    net = build(kind, embedding=D, num_layers=num_layers).double()
    twin = carried_over(net, kind, D, num_layers)
    token_BT = tokens(B, T)
    out = net(token_BT)
    expected = nn.functional.linear(twin(net.embedding(token_BT))[0], net.output.weight, net.output.bias)
    assert out.shape == (B, T, V)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)

    def gradients(logits, layers):
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens(B, T).roll(-1, 1).flatten())
        return torch.autograd.grad(loss, [net.embedding.weight, *layers.parameters()])

    for one, two in zip(gradients(out, net.recurrent), gradients(expected, twin), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("spec", [SERIES, REAL, LABELLED])
@pytest.mark.parametrize("kind", MODULES)
def test_one_target_a_sequence_is_answered_from_the_last_step(kind, spec):
    net = build(kind, spec, num_layers=2).double()
    width = D if spec.input_kind == "sequence" else H
    x = torch.randn(B, T, D, dtype=torch.float64) if spec.input_kind == "sequence" else tokens(B, T)
    read = x if spec.input_kind == "sequence" else net.embedding(x)
    expected = net.output(carried_over(net, kind, width, 2)(read)[0][:, -1])
    assert expected.shape == (B, spec.num_classes or spec.target_size)
    torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("kind", "weights"), [("rnn", 7 * (5 + 7 + 2)), ("lstm", 4 * 7 * 14), ("gru", 3 * 7 * 14)])
def test_a_layer_has_as_many_weights_as_its_equations(kind, weights):
    net = build(kind, embedding=D)
    assert sum(weight.numel() for weight in net.recurrent.parameters()) == weights


@pytest.mark.parametrize("spec", [TEXT, CARRIED])
@pytest.mark.parametrize("kind", MODULES)
def test_text_in_two_stretches_is_the_text(kind, spec):
    net = build(kind, spec, num_layers=2).double()
    token_BT = tokens(B, T)
    first, state = net(token_BT[:, :4], carry=True)
    second, _ = net(token_BT[:, 4:], None, state, carry=True)
    torch.testing.assert_close(torch.cat([first, second], 1), net(token_BT), rtol=0, atol=1e-12)
    assert {tuple(value.shape) for value in state.values()} == {(B, 2, H)}
    # Rows are the first axis: one row alone goes on from its own state.
    alone = {name: value[1:2] for name, value in state.items()}
    torch.testing.assert_close(net(token_BT[1:2, 4:], None, alone), second[1:2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", MODULES)
def test_a_state_of_zeros_is_a_start(kind):
    net = build(kind)
    _, state = net(tokens(B, 2), carry=True)
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    assert torch.equal(net(tokens(B, T), None, zeros), net(tokens(B, T)))


@pytest.mark.parametrize("kind", MODULES)
def test_tied_weights_are_one_and_stay_so(kind):
    net = initialize(build(kind, tied=True), normal.Config(kind="normal", seed=3))
    assert net.output.weight is net.embedding.weight
    loose = build(kind)
    assert sum(w.numel() for w in loose.parameters()) - sum(w.numel() for w in net.parameters()) == V * H


@pytest.mark.parametrize("kind", MODULES)
def test_loss_at_initialization_is_near_that_of_guessing(kind):
    net = initialize(build(kind, hidden=53), uniform_fan_in.Config(kind="uniform_fan_in", seed=3))
    token_BT = tokens(31, T + 1)
    loss = nn.functional.cross_entropy(net(token_BT[:, :-1]).flatten(0, 1), token_BT[:, 1:].flatten())
    assert abs(loss.item() - math.log(V)) < 0.1


@pytest.mark.parametrize("kind", MODULES)
def test_the_recipes_init_draws_every_weight(kind):
    one, two = (
        initialize(build(kind, num_layers=2, recurrent_init="orthogonal"), normal.Config(kind="normal", seed=seed))
        for seed in (3, 3)
    )
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)
    other = initialize(build(kind, num_layers=2), normal.Config(kind="normal", seed=4, std=0.7, bias=0.3))
    for layer in other.recurrent.layers:
        for weight in (layer.weight_input, layer.weight_recurrent):
            assert abs(weight.std().item() - 0.7) < 0.15
        assert (layer.bias_input + layer.bias_recurrent).min().item() == pytest.approx(0.3)
    first, second = other.recurrent.layers
    assert not torch.equal(first.weight_recurrent, second.weight_recurrent)
    assert torch.equal(
        build_and_start(kind, num_layers=1).recurrent.layers[0].weight_recurrent,
        build_and_start(kind, num_layers=2).recurrent.layers[0].weight_recurrent,
    )


def build_and_start(kind, **settings):
    return initialize(build(kind, **settings), normal.Config(kind="normal", seed=3))


def test_the_forget_gate_starts_at_the_models_setting():
    layer = initialize(build("lstm", forget_bias=2.0), normal.Config(kind="normal", seed=3)).recurrent.layers[0]
    assert [block.unique().tolist() for block in layer.bias_input.split(H)] == [[0.0], [2.0], [0.0], [0.0]]


@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3},
        {"embedding_dropout": 0.3},
        {"recurrent_dropout": 0.3},
        {"dropout": 0.2, "embedding_dropout": 0.2, "recurrent_dropout": 0.2, "variational": True},
    ],
)
@pytest.mark.parametrize("kind", MODULES)
def test_dropout_is_the_same_however_a_batch_is_cut(kind, settings):
    net, token_BT = build(kind, num_layers=2, **settings).double(), tokens(B, T)
    whole = net(token_BT, Draws(3, 5, 0, B))
    rows = [net(token_BT[row : row + 1], Draws(3, 5, row, 1)) for row in range(B)]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(net(token_BT, Draws(3, 6, 0, B)), whole)
    assert torch.equal(net.eval()(token_BT, Draws(3, 5, 0, B)), net(token_BT))


def test_layers_have_masks_of_their_own():
    net = build("lstm", num_layers=3, dropout=0.3, recurrent_dropout=0.3)
    streams = [module.stream for module in net.modules() if hasattr(module, "stream")]
    assert len(set(streams)) == len(streams) == 7


# torch's compiler looks at gradients where it goes on after a break.
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("kind", MODULES)
def test_a_compiled_net_gives_the_same(kind):
    net = build(kind)
    expected = net(tokens(B, T))
    net.compile(backend="eager")
    torch.testing.assert_close(net(tokens(B, T)), expected, rtol=0, atol=1e-6)


def test_the_objective_follows_the_target():
    config = lstm.Config(kind="lstm", hidden=H)
    named = [config.default_objective(spec) for spec in (TEXT, CARRIED, LABELLED, SERIES, REAL)]
    assert named == ["causal_lm", "causal_lm", "classify", "classify", "regress"]


@pytest.mark.parametrize(
    ("spec", "settings", "line"),
    [
        (TEXT, {"hidden": 0}, "model.hidden: input should be greater than 0 (got 0)"),
        (TEXT, {"tied": True, "embedding": 5}, "model: tied is true, but embedding 5 and hidden 7 differ; make them"),
        (TEXT, {"activation": "sigmoid"}, "model.activation: input should be 'tanh' or 'relu' (got 'sigmoid')"),
        (TEXT, {"dropout": 1.0}, "model.dropout: input should be less than 1 (got 1.0)"),
        (
            LABELLED,
            {"tied": True},
            "model.tied: true is for predicting the tokens that are read; this data has another",
        ),
        (
            REAL,
            {"embedding": 5},
            "model: embedding and embedding_dropout are for tokens, and this data gives real values",
        ),
        (REAL, {"tied": True}, "model.tied: true is for predicting the tokens that are read"),
        (
            DataSpec("image", (1, 5, 7), num_classes=2),
            {},
            "model.kind: rnn reads tokens or sequences; this data gives image",
        ),
        (DataSpec("sequence", (T, D)), {}, "model.kind: rnn predicts a class or real values, which this data has not"),
    ],
)
def test_settings_and_data_that_do_not_fit_are_refused(spec, settings, line):
    with pytest.raises(UserError) as caught:
        build("rnn", spec, **settings)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
