"""What filter banks and pooling make of an image's size, and the ways to pool.

Source: LeCun, Kavukcuoglu and Farabet 2010, section I; L2 pooling: Kavukcuoglu et al. 2009.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["max", "average", "l2"]


def output_pixels(size: int, *, window: int, stride: int = 1, padding: int = 0) -> int:
    """Returns how many places a window of so many pixels has along an axis: floor((size + 2 p - w) / s) + 1."""
    return (size + 2 * padding - window) // stride + 1


def build_pooling(kind: Pooling, size: int, stride: int) -> nn.Module:
    """Returns a pooling of squares of this size, which move by this stride, in pixels."""
    match kind:
        case "max":
            return nn.MaxPool2d(size, stride)
        case "average":
            return nn.AvgPool2d(size, stride)
        case "l2":
            return L2Pool(size, stride)


class L2Pool(nn.Module):
    """The root of the sum of squares.

    Args:
        size: height and width of the pooled square, in pixels.
        stride: between squares, in pixels.
    """

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size = size
        self.stride = stride

    def forward(self, x_BCYX: Tensor) -> Tensor:
        """Returns (B, C, fewer, fewer)."""
        energy = F.avg_pool2d(x_BCYX.square(), self.size, self.stride, divisor_override=1)
        # The root has no slope at zero, where rectifiers put whole squares: none is passed on there.
        silent = energy == 0
        return torch.where(silent, 0.0, torch.where(silent, 1.0, energy).sqrt())
