"""The n-gram net against a loop over positions, and what it sees."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import uniform_fan_in
from headway.init.base import initialize
from headway.models import ngram
from headway.nn.draws import Draws, name_streams

pytestmark = pytest.mark.quick

B, T, V, D, H, C = 3, 11, 31, 5, 7, 2
TEXT = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V)


def build(spec=TEXT, **settings):
    settings = {"kind": "ngram", "context": C, "embedding": D, "hidden": H, **settings}
    return name_streams(validate_section(ngram.Config, settings, path="model").build(spec))


def tokens(*shape):
    return torch.randint(0, V, shape, generator=torch.Generator().manual_seed(5))


def by_hand(net, tokens, context):
    """Returns the logits after each token of one sequence, position by position."""
    weights = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    rows = []
    for place in range(len(tokens)):
        seen = [tokens[at] + 1 if at >= 0 else 0 for at in range(place - context + 1, place + 1)]
        x = np.concatenate([weights["embedding.weight"][row] for row in seen])
        hidden = np.tanh(weights["hidden.bias"] + weights["hidden.weight"] @ x)
        logits = weights["output.bias"] + weights["output.weight"] @ hidden
        if "direct.weight" in weights:
            logits = logits + weights["direct.weight"] @ x
        rows.append(logits)
    return np.stack(rows)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("context", [1, 2, 5, 13])
def test_logits_are_those_of_the_equation_at_every_position(context, direct):
    net = build(context=context, direct=direct).double()
    token_BT = tokens(B, T)
    expected = np.stack([by_hand(net, row.tolist(), context) for row in token_BT])
    np.testing.assert_allclose(net(token_BT).detach().numpy(), expected, rtol=0, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    net, token_BT = build(context=3, direct=True).double(), tokens(B, 5)

    def loss(*weights):
        names = [name for name, _ in net.named_parameters()]
        logits = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (token_BT,))
        return nn.functional.cross_entropy(logits.flatten(0, 1), token_BT.roll(1, 1).flatten())

    assert torch.autograd.gradcheck(loss, tuple(net.parameters()), fast_mode=True)


def test_a_token_is_seen_for_as_long_as_the_context_and_no_longer():
    net = build(context=3).double()
    token_BT = tokens(B, T)
    changed = token_BT.clone()
    changed[:, 4] = (changed[:, 4] + 1) % V
    differs = (net(changed) - net(token_BT)).abs().amax((0, 2)) > 1e-9
    assert differs.nonzero().flatten().tolist() == [4, 5, 6]


@pytest.mark.parametrize("cut", [1, 2, 7])
def test_a_state_carries_the_context_on(cut):
    net = build(context=5).double()
    token_BT = tokens(B, T)
    first, state = net(token_BT[:, :cut], carry=True)
    second, last = net(token_BT[:, cut:], None, state, carry=True)
    torch.testing.assert_close(torch.cat([first, second], 1), net(token_BT), rtol=0, atol=1e-14)
    assert state["row"].shape == (B, 5)
    assert torch.equal(last["row"], token_BT[:, -5:] + 1)
    zeros = {"row": torch.zeros_like(state["row"])}
    assert torch.equal(net(token_BT, None, zeros), net(token_BT))


def test_nothing_is_a_token_of_its_own():
    net = build()
    assert net.embedding.num_embeddings == V + 1
    net(tokens(B, T)).sum().backward()
    assert net.embedding.weight.grad[0].abs().sum() > 0


def test_loss_at_initialization_is_near_that_of_guessing():
    net = initialize(build(hidden=53, direct=True), uniform_fan_in.Config(kind="uniform_fan_in", seed=3))
    token_BT = tokens(31, T + 1)
    loss = nn.functional.cross_entropy(net(token_BT[:, :-1]).flatten(0, 1), token_BT[:, 1:].flatten())
    assert abs(loss.item() - math.log(V)) < 0.2


@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"embedding_dropout": 0.3}])
def test_dropout_is_the_same_however_a_batch_is_cut(settings):
    net, token_BT = build(**settings).double(), tokens(B, T)
    whole = net(token_BT, Draws(3, 5, 0, B))
    rows = [net(token_BT[row : row + 1], Draws(3, 5, row, 1)) for row in range(B)]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(net(token_BT, Draws(3, 6, 0, B)), whole)


@pytest.mark.parametrize(
    ("spec", "settings", "line"),
    [
        (TEXT, {"context": 0}, "model.context: input should be greater than 0 (got 0)"),
        (
            DataSpec("features", (7,), num_classes=3),
            {},
            "model.kind: ngram predicts the next token; this data gives feat",
        ),
        (
            DataSpec("tokens", (T,), num_classes=3, vocab_size=V),
            {},
            "model.kind: ngram predicts the next token; this data gives tokens with a class",
        ),
        (
            DataSpec("tokens", (T,), vocab_size=V, carried=True),
            {},
            "data.carry: true is for nets with a recurrent state",
        ),
    ],
)
def test_settings_and_data_that_do_not_fit_are_refused(spec, settings, line):
    with pytest.raises(UserError) as caught:
        build(spec, **settings)
    assert str(caught.value).startswith(line)
