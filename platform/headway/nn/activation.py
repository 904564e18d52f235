"""The element-wise non-linearities that a recipe can name."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["sigmoid", "tanh", "relu", "leaky_relu", "prelu", "abs", "gelu"]


class Abs(nn.Module):
    """The absolute value, a rectifier that keeps both halves (Jarrett et al. 2009)."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns |x|."""
        return torch.abs(x)


def build_activation(name: Activation) -> nn.Module:
    """Returns a fresh module; `prelu` has one learned slope, so each layer needs its own."""
    match name:
        case "sigmoid":
            return nn.Sigmoid()
        case "tanh":
            return nn.Tanh()
        case "relu":
            return nn.ReLU()
        case "leaky_relu":
            return nn.LeakyReLU(0.01)
        case "prelu":
            return nn.PReLU()
        case "abs":
            return Abs()
        case "gelu":
            return nn.GELU()
