"""Back-propagation through time against autograd and finite differences, and what truncation cuts."""

import itertools

import pytest
import torch
from torch import nn

from headway.nn.by_hand_recurrent import RNN, back_propagate_through_time, back_propagate_truncated, run

pytestmark = pytest.mark.quick

B, T, I, H, C = 3, 11, 5, 7, 2  # noqa: E741


@pytest.fixture
def net():
    generator = torch.Generator().manual_seed(3)
    shapes = RNN((H, I), (H, H), (H,), (C, H), (C,))
    return RNN(*(torch.randn(*shape, dtype=torch.float64, generator=generator).mul_(0.5) for shape in shapes))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(5)
    return (
        torch.randn(B, T, I, dtype=torch.float64, generator=generator),
        torch.randint(0, C, (B, T), generator=generator),
        torch.randn(B, H, dtype=torch.float64, generator=generator),
    )


def by_autograd(net, batch, window):
    """Returns torch's loss, gradients and input gradients, with its RNN's state detached after each window."""
    layer, output = nn.RNN(I, H, batch_first=True, dtype=torch.float64), nn.Linear(H, C, dtype=torch.float64)
    with torch.no_grad():
        for own, other in zip(
            (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, output.weight, output.bias), net, strict=True
        ):
            own.copy_(other)
        layer.bias_hh_l0.zero_()
    x, target, start = batch[0].clone().requires_grad_(), batch[1], batch[2].clone().requires_grad_()
    state, loss = start.unsqueeze(0), 0.0
    for first in range(0, T, window):
        stretch = slice(first, first + window)
        given, state = layer(x[:, stretch], state)
        logits = output(given)
        loss = (
            loss + nn.functional.cross_entropy(logits.flatten(0, 1), target[:, stretch].flatten(), reduction="sum") / B
        )
        state = state.detach()
    loss.backward()
    weights = (layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, output.weight, output.bias)
    return loss.detach(), RNN(*(weight.grad for weight in weights)), x.grad, start.grad, state[0]


def assert_same(ours, expected):
    loss, gradient, by_input, by_start, last = expected
    torch.testing.assert_close(ours.loss, loss, rtol=0, atol=1e-10)
    for own, other in zip(ours.gradient, gradient, strict=True):
        assert other.abs().max() > 0.1
        torch.testing.assert_close(own, other, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.by_input, by_input, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.by_start, by_start, rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.end, last, rtol=0, atol=1e-10)


def test_the_gradient_through_time_is_that_of_autograd(net, batch):
    assert_same(back_propagate_through_time(*batch, net), by_autograd(net, batch, window=T))


@pytest.mark.parametrize("window", [1, 2, 5, 10])
def test_the_truncated_gradient_is_that_of_autograd_with_a_detached_state(net, batch, window):
    ours = back_propagate_truncated(*batch, net, window=window)
    assert_same(ours, by_autograd(net, batch, window))
    whole = back_propagate_through_time(*batch, net)
    assert ours.loss.item() == pytest.approx(whole.loss.item(), abs=1e-12)
    assert not torch.allclose(ours.gradient.recurrent, whole.gradient.recurrent, atol=1e-3)


@pytest.mark.parametrize("window", [T, T + 2])
def test_a_window_as_long_as_the_sequence_cuts_nothing(net, batch, window):
    ours, whole = back_propagate_truncated(*batch, net, window=window), back_propagate_through_time(*batch, net)
    for own, other in zip((*ours.gradient, ours.by_input), (*whole.gradient, whole.by_input), strict=True):
        assert torch.equal(own, other)


def test_the_gradient_is_what_a_small_change_of_a_weight_does_to_the_loss(net, batch):
    gradient = back_propagate_through_time(*batch, net).gradient
    for weight, by_weight in zip(net, gradient, strict=True):
        for place in itertools.islice(itertools.product(*map(range, weight.shape)), 0, None, 5):
            before, ends = weight[place].item(), []
            for moved in (before + 1e-5, before - 1e-5):
                weight[place] = moved
                ends.append(back_propagate_through_time(*batch, net).loss.item())
            weight[place] = before
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(by_weight[place].item(), abs=1e-7)


def test_a_loss_reaches_no_input_before_its_window(net, batch):
    x, target, start = batch
    state = run(x[:, :4], start, net)[-1]
    second = back_propagate_through_time(x[:, 4:8], target[:, 4:8], state, net)
    cut = back_propagate_truncated(x[:, :8], target[:, :8], start, net, window=4)
    alone = back_propagate_through_time(x[:, :4], target[:, :4], start, net)
    assert torch.equal(cut.by_input[:, :4], alone.by_input)
    assert torch.equal(cut.by_input[:, 4:], second.by_input)
    # Without the cut the second window's loss reaches the first one's input.
    assert not torch.allclose(
        back_propagate_through_time(x[:, :8], target[:, :8], start, net).by_input[:, :4], alone.by_input
    )
