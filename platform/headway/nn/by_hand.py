"""Back-propagation of a feed-forward net, written out: the lecture's equations, one line each.

Source: Rumelhart, Hinton and Williams 1986; Bishop 2006, section 5.3. `docs/backpropagation.md` derives every line.

This is for reading and for checking: training uses autograd, to which the tests hold every function here. All
of it works on a minibatch at once, and a loss is the mean over its rows.

Shapes: B rows, I inputs of a layer, O its outputs, C classes, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

HandActivation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "abs", "gelu"]
"""The element-wise non-linearities without a weight of their own."""


class Affine(NamedTuple):
    """A layer's weights: `a = x W^T + b`. As a gradient: what the loss is differentiated to by each of them."""

    weight: Tensor
    """W, (O, I)."""
    bias: Tensor
    """b, (O,)."""


class Trace(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    inputs: list[Tensor]
    """What each layer read, (B, I)."""
    sums: list[Tensor]
    """What each layer gave before its activation, (B, O)."""


# ---- forward -------------------------------------------------------------------------------------


def forward(x_BI: Tensor, layers: Sequence[Affine], activation: HandActivation) -> tuple[Tensor, Trace]:
    """Returns the output of the last layer, which is linear, and the trace.

    `x^1 = x`, then `a^l = x^l W^l^T + b^l` and `x^(l+1) = f(a^l)`.
    """
    trace = Trace([], [])
    for place, (weight_OI, bias_O) in enumerate(layers):
        trace.inputs.append(x_BI)
        trace.sums.append(x_BI @ weight_OI.T + bias_O)
        last = place == len(layers) - 1
        x_BI = trace.sums[-1] if last else activate(trace.sums[-1], activation)
    return x_BI, trace


def activate(a: Tensor, activation: HandActivation) -> Tensor:
    """Returns f(a)."""
    return _FUNCTION[activation](a)


def differentiate(a: Tensor, activation: HandActivation) -> Tensor:
    """Returns f'(a); where f has a corner, what autograd has there: 0 for relu and abs, the slope for leaky_relu."""
    return _DERIVATIVE[activation](a)


# ---- losses: the value, and its gradient by the net's output ---------------------------------------


def softmax(a_BC: Tensor) -> Tensor:
    """Returns `p_c = exp(a_c) / sum_k exp(a_k)`; the largest a is taken off all, which changes nothing but overflow."""
    exp_BC = torch.exp(a_BC - a_BC.max(dim=1, keepdim=True).values)
    return exp_BC / exp_BC.sum(dim=1, keepdim=True)


def softmax_jacobian(p_BC: Tensor) -> Tensor:
    """Returns all of `dp_c / da_k = p_c (delta_ck - p_k)`, (B, C, C), from the probabilities."""
    return torch.diag_embed(p_BC) - p_BC.unsqueeze(2) * p_BC.unsqueeze(1)


def cross_entropy(a_BC: Tensor, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `-log p_target`, a mean over rows, and its gradient by the logits, `(p - t) / B` with t one-hot."""
    t_BC = _one_hot(target_B, like=a_BC)
    # log p = a - log sum exp a: a probability too small for its logarithm never has to be written down.
    log_p_BC = a_BC - torch.logsumexp(a_BC, dim=1, keepdim=True)
    return -(t_BC * log_p_BC).sum() / len(a_BC), (softmax(a_BC) - t_BC) / len(a_BC)


def squared_error(y_BO: Tensor, target_BO: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `sum_o (y_o - t_o)^2 / 2`, a mean over rows, and its gradient by a linear output, `(y - t) / B`."""
    error_BO = y_BO - target_BO
    return error_BO.square().sum() / (2 * len(y_BO)), error_BO / len(y_BO)


def squared_error_of_softmax(a_BC: Tensor, target_B: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the squared error of a classifier's probabilities, and its gradient by the logits.

    Here softmax's Jacobian stays in the gradient: where p is near 0 or 1 it is near 0, however wrong p is.
    """
    p_BC = softmax(a_BC)
    loss, error_BC = squared_error(p_BC, _one_hot(target_B, like=a_BC))
    return loss, torch.einsum("bc,bck->bk", error_BC, softmax_jacobian(p_BC))


# ---- backward ------------------------------------------------------------------------------------


def backward(
    delta_BO: Tensor, layers: Sequence[Affine], trace: Trace, activation: HandActivation
) -> tuple[list[Affine], Tensor]:
    """Returns the gradient of the loss by each layer's weights, and by the net's input (B, I).

    `dE/dW^l = delta^l^T x^l`, `dE/db^l = sum_B delta^l`, and from layer to layer
    `delta^(l-1) = f'(a^(l-1)) * (delta^l W^l)`.

    Args:
        delta_BO: the loss's gradient by the last layer's output, as the losses above give it.
        layers: the weights that `forward` was called with.
        trace: what it left.
        activation: f.
    """
    gradients: list[Affine] = []
    for place in reversed(range(len(layers))):
        gradients.append(Affine(delta_BO.T @ trace.inputs[place], delta_BO.sum(dim=0)))
        delta_BI = delta_BO @ layers[place].weight
        if place > 0:
            delta_BO = differentiate(trace.sums[place - 1], activation) * delta_BI
    return gradients[::-1], delta_BI


def _one_hot(target_B: Tensor, *, like: Tensor) -> Tensor:
    """Returns t (B, C), 1 at the target and 0 elsewhere."""
    return torch.zeros_like(like).scatter_(1, target_B.unsqueeze(1), 1.0)


_SLOPE = 0.01
"""Of the leaky rectifier's left half."""

_FUNCTION: dict[HandActivation, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "tanh": torch.tanh,
    "relu": lambda a: a.clamp(min=0),
    "leaky_relu": lambda a: torch.where(a > 0, a, _SLOPE * a),
    "abs": torch.abs,
    "gelu": lambda a: a * _normal_distribution(a),
}

_DERIVATIVE: dict[HandActivation, Callable[[Tensor], Tensor]] = {
    "sigmoid": lambda a: activate(a, "sigmoid") * (1 - activate(a, "sigmoid")),
    "tanh": lambda a: 1 - torch.tanh(a).square(),
    "relu": lambda a: (a > 0).to(a.dtype),
    "leaky_relu": lambda a: torch.ones_like(a).masked_fill(a <= 0, _SLOPE),
    "abs": torch.sign,
    "gelu": lambda a: _normal_distribution(a) + a * torch.exp(-a.square() / 2) / math.sqrt(2 * math.pi),
}


def _normal_distribution(a: Tensor) -> Tensor:
    """Returns the probability that a standard normal value is below a."""
    return (1 + torch.erf(a / math.sqrt(2))) / 2
