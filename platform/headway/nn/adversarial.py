"""Inputs changed as little as makes a net err the most: the fast gradient sign method.

Source: Goodfellow, Shlens and Szegedy 2015, "Explaining and harnessing adversarial examples", section 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def fgsm(loss: Callable[[Tensor], Tensor], x: Tensor, epsilon: float) -> Tensor:
    """Returns `x` moved by `epsilon` in each value, to where the loss grows. Gradients have to be on.

    Args:
        loss: scalar loss of inputs; each row's part depends on that row alone.
        x: inputs (rows, ...), real values.
        epsilon: size of the change, in the units of `x`.
    """
    x = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    return x.detach() + epsilon * gradient.sign()
