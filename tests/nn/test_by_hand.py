"""The written-out equations of a feed-forward net against autograd and against finite differences."""

import itertools
from typing import get_args

import pytest
import torch
from torch import nn

from headway.nn.activation import build_activation
from headway.nn.by_hand import (
    Affine,
    HandActivation,
    activate,
    backward,
    cross_entropy,
    differentiate,
    forward,
    softmax,
    softmax_jacobian,
    squared_error,
    squared_error_of_softmax,
)

pytestmark = pytest.mark.quick

B, I, C = 7, 5, 3  # noqa: E741
ACTIVATIONS = get_args(HandActivation)
LOSSES = {
    "cross_entropy": (cross_entropy, lambda a, t: nn.functional.cross_entropy(a, t)),
    "squared_error_of_softmax": (
        squared_error_of_softmax,
        lambda a, t: (a.softmax(1) - nn.functional.one_hot(t, C)).square().sum() / (2 * len(a)),
    ),
    "squared_error": (squared_error, lambda y, t: nn.functional.mse_loss(y, t, reduction="sum") / (2 * len(y))),
}


def net(*hidden, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [
        Affine(
            *(torch.randn(*shape, dtype=torch.float64, generator=generator) for shape in ((after, before), (after,)))
        )
        for before, after in itertools.pairwise((I, *hidden, C))
    ]


def batch(loss, rows=B):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(rows, I, dtype=torch.float64, generator=generator)
    if loss == "squared_error":
        return x, torch.randn(rows, C, dtype=torch.float64, generator=generator)
    return x, torch.randint(0, C, (rows,), generator=generator)


def twin(layers, activation):
    """Returns the same net of torch's own layers."""
    modules = []
    for layer in layers:
        linear = nn.Linear(*reversed(layer.weight.shape), dtype=torch.float64)
        linear.weight.data, linear.bias.data = layer.weight.clone(), layer.bias.clone()
        modules += [linear, build_activation(activation)]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_and_its_derivative_are_torchs(activation):
    a = torch.cat(
        [torch.linspace(-9, 9, 101, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)]
    ).requires_grad_()
    out = build_activation(activation)(a)
    torch.testing.assert_close(activate(a, activation), out, rtol=0, atol=1e-12)
    (slope,) = torch.autograd.grad(out.sum(), a)
    torch.testing.assert_close(differentiate(a.detach(), activation), slope, rtol=0, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden", [(), (11,), (13, 2, 7, 11)])
def test_loss_and_gradients_are_those_of_autograd(hidden, activation, loss):
    layers, (x, target) = net(*hidden), batch(loss)
    by_hand, by_torch = LOSSES[loss]
    theirs, read = twin(layers, activation), x.clone().requires_grad_()
    expected = by_torch(theirs(read), target)
    expected.backward()
    output, trace = forward(x, layers, activation)
    value, delta = by_hand(output, target)
    gradients, by_input = backward(delta, layers, trace, activation)
    torch.testing.assert_close(value, expected.detach(), rtol=0, atol=1e-10)
    torch.testing.assert_close(by_input, read.grad, rtol=0, atol=1e-10)
    linear = [module for module in theirs if isinstance(module, nn.Linear)]
    assert len(gradients) == len(linear) == len(hidden) + 1
    for own, other in zip(gradients, linear, strict=True):
        torch.testing.assert_close(own.weight, other.weight.grad, rtol=0, atol=1e-10)
        torch.testing.assert_close(own.bias, other.bias.grad, rtol=0, atol=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "gelu"])
def test_gradients_are_what_a_small_change_of_a_weight_does_to_the_loss(activation, loss):
    layers, (x, target) = net(11, 2), batch(loss)
    by_hand = LOSSES[loss][0]

    def value():
        return by_hand(forward(x, layers, activation)[0], target)[0]

    output, trace = forward(x, layers, activation)
    gradients, _ = backward(by_hand(output, target)[1], layers, trace, activation)
    for weight, gradient in zip(itertools.chain(*layers), itertools.chain(*gradients), strict=True):
        for place in itertools.islice(itertools.product(*map(range, weight.shape)), 0, None, 3):
            assert central_difference(value, weight, place) == pytest.approx(gradient[place].item(), abs=1e-8)


def central_difference(value, weight, place, step=1e-5):
    before = weight[place].item()
    ends = []
    for moved in (before + step, before - step):
        weight[place] = moved
        ends.append(value().item())
    weight[place] = before
    return (ends[0] - ends[1]) / (2 * step)


def test_softmax_and_its_whole_jacobian_are_those_of_autograd():
    a = torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(softmax(a), a.softmax(1), rtol=0, atol=1e-14)
    expected = torch.func.vmap(torch.func.jacrev(lambda row: row.softmax(0)))(a)
    torch.testing.assert_close(softmax_jacobian(softmax(a)), expected, rtol=0, atol=1e-12)


def test_softmax_of_large_numbers_is_a_number():
    p = softmax(torch.tensor([[1000.0, 0.0, -1000.0]], dtype=torch.float64))
    assert p.tolist() == [[1.0, 0.0, 0.0]]


def test_a_row_of_the_jacobian_sums_to_nothing():
    """Adding the same to all logits changes no probability."""
    p = softmax(torch.randn(B, C, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(softmax_jacobian(p).sum(2), torch.zeros(B, C, dtype=torch.float64), rtol=0, atol=1e-15)


def test_squared_error_saturates_where_cross_entropy_does_not():
    wrong = torch.tensor([[13.0, 0.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([1])
    assert cross_entropy(wrong, target)[1].abs().max() > 0.99
    assert squared_error_of_softmax(wrong, target)[1].abs().max() < 1e-4


def test_the_gradient_of_a_minibatch_is_the_mean_over_its_rows():
    layers, (x, target) = net(11), batch("cross_entropy")

    def gradients(x, target):
        output, trace = forward(x, layers, "tanh")
        return list(itertools.chain(*backward(cross_entropy(output, target)[1], layers, trace, "tanh")[0]))

    rows = [gradients(x[row : row + 1], target[row : row + 1]) for row in range(B)]
    for whole, *parts in zip(gradients(x, target), *rows, strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).mean(0), rtol=0, atol=1e-14)
