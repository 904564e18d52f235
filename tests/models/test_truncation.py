"""Truncated back-propagation through time: where the gradient is cut, and that nothing else is."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.section import validate_section
from headway.models import gru, lstm, rnn
from headway.objectives.causal_lm import CausalLM

pytestmark = pytest.mark.quick

B, T, V, H, L = 3, 12, 31, 7, 2
MODULES = {"rnn": (rnn, nn.RNN), "lstm": (lstm, nn.LSTM), "gru": (gru, nn.GRU)}


def build(kind):
    torch.manual_seed(5)
    settings = {"kind": kind, "hidden": H, "num_layers": L}
    spec = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, carried=True)
    return validate_section(MODULES[kind][0].Config, settings, path="model").build(spec).double()


@pytest.fixture
def token_BT1():  # noqa: N802 - names its axes
    return torch.randint(0, V, (B, T + 1), generator=torch.Generator().manual_seed(5))


def windows(token_BT1, size, fresh=()):
    """Yields a batch a window; `fresh` are pairs (window, row) that start anew besides all rows of the first."""
    for place, first in enumerate(range(0, T, size)):
        stretch = token_BT1[:, first : first + size + 1]
        anew = torch.tensor([place == 0 or (place, row) in fresh for row in range(B)])
        yield {"input": stretch[:, :-1], "target": stretch[:, 1:], "fresh": anew}


def outcomes(net, batches):
    """Yields what the objective makes of each window, its state handed on to the next."""
    state = None
    for batch in batches:
        outcome = CausalLM.outcome(
            SimpleNamespace(count=lambda batch: batch["target"].numel()), net, batch, state, None
        )
        state = outcome.state
        yield outcome


def trained(net, batches):
    """Returns the summed loss and every weight's gradient."""
    losses = [outcome.loss_sum for outcome in outcomes(net, batches)]
    total = torch.stack(losses).sum()
    return total.detach(), torch.autograd.grad(total, list(net.parameters()))


def by_torch(net, kind, batches):
    """Returns the same of torch's layers with the weights carried over, the state detached by hand."""
    twin = MODULES[kind][1](H, H, L, batch_first=True).double()
    embedding, output = nn.Embedding(V, H).double(), nn.Linear(H, V).double()
    weights = [embedding.weight, *twin.parameters(), output.weight, output.bias]
    with torch.no_grad():
        for own, other in zip(weights, net.parameters(), strict=True):
            own.copy_(other)
    state, total = None, 0.0
    for batch in batches:
        given, state = twin(embedding(batch["input"]), state)
        logits = output(given)
        total = total + nn.functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), reduction="sum")
        state = tuple(part.detach() for part in state) if kind == "lstm" else state.detach()
    return total.detach(), torch.autograd.grad(total, weights)


def assert_same(ours, theirs):
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-11)
    for one, two in zip(ours[1], theirs[1], strict=True):
        assert two.abs().max() > 0.01
        torch.testing.assert_close(one, two, rtol=0, atol=1e-11)


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("kind", MODULES)
def test_the_gradient_is_that_of_a_loop_that_detaches_the_state(kind, size, token_BT1):
    net = build(kind)
    ours = trained(net, windows(token_BT1, size))
    assert_same(ours, by_torch(net, kind, list(windows(token_BT1, size))))
    whole = trained(net, windows(token_BT1, T))
    torch.testing.assert_close(ours[0], whole[0], rtol=0, atol=1e-11)
    assert any(not torch.allclose(one, two, atol=1e-3) for one, two in zip(ours[1], whole[1], strict=True))


@pytest.mark.parametrize("kind", MODULES)
def test_a_window_as_long_as_the_sequence_is_back_propagation_through_time(kind, token_BT1):
    net = build(kind)
    ours = trained(net, windows(token_BT1, T))
    assert_same(ours, by_torch(net, kind, list(windows(token_BT1, T))))
    logits = net(token_BT1[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), token_BT1[:, 1:].flatten(), reduction="sum")
    assert_same(ours, (loss.detach(), torch.autograd.grad(loss, list(net.parameters()))))


@pytest.mark.parametrize("kind", MODULES)
def test_a_loss_has_no_gradient_in_an_earlier_window_and_all_of_it_in_its_own(kind, token_BT1):
    net = build(kind)
    embedded = []
    net.embedding.register_forward_hook(lambda module, inputs, out: embedded.append(out))
    first, second = outcomes(net, windows(token_BT1, T // 2))
    none, own = torch.autograd.grad(second.loss_sum, embedded, allow_unused=True, retain_graph=True)
    assert none is None
    assert own.abs().amax(2).gt(0).all()
    (reached,) = torch.autograd.grad(first.loss_sum, embedded[:1])
    assert reached.abs().amax(2).gt(0).all()


@pytest.mark.parametrize("kind", MODULES)
def test_the_value_of_the_state_goes_on_where_its_gradient_ends(kind, token_BT1):
    net = build(kind)
    first, second = list(windows(token_BT1, T // 2))
    _, outcome = outcomes(net, [first, second])
    changed = {**first, "input": (first["input"] + 1) % V}
    _, other = outcomes(net, [changed, second])
    assert abs(outcome.loss_sum - other.loss_sum) > 1e-4
    assert not any(part.requires_grad for part in outcome.state.values())


@pytest.mark.parametrize("kind", MODULES)
def test_a_row_that_starts_anew_forgets_and_the_others_do_not(kind, token_BT1):
    net = build(kind)
    size = T // 2
    _, outcome = outcomes(net, windows(token_BT1, size, fresh={(1, 1)}))
    _, carried = outcomes(net, windows(token_BT1, size))
    _, alone = net(token_BT1[:, size : 2 * size], carry=True)
    for name, value in outcome.state.items():
        torch.testing.assert_close(value[1], alone[name][1], rtol=0, atol=1e-12)
        torch.testing.assert_close(value[[0, 2]], carried.state[name][[0, 2]], rtol=0, atol=1e-12)
        assert not torch.allclose(value[1], carried.state[name][1], atol=1e-6)
