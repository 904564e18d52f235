"""Positions as waves: each pair of features turns at a speed of its own, so that no position has to be learned.

Source: Vaswani et al. 2017, section 3.5: feature 2i of position t is sin(t / 10000^(2i / D)), feature 2i + 1 the
cosine of the same.

Shapes: T positions, D width, I = ceil(D / 2) waves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_LONGEST = 10_000.0


def sinusoidal_positions(
    num_positions: int, width: int, *, first: int = 0, device: torch.device | None = None
) -> Tensor:
    """Returns float64 (T, D), for the positions from `first` on."""
    position_T1 = torch.arange(first, first + num_positions, dtype=torch.float64, device=device)[:, None]
    even_I = torch.arange(0, width, 2, dtype=torch.float64, device=device)
    angle_TI = position_T1 * torch.exp(even_I * (-math.log(_LONGEST) / width))
    # An odd width ends with a sine.
    return torch.stack([angle_TI.sin(), angle_TI.cos()], dim=2).flatten(1)[:, :width]
