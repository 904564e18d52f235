"""Dropout whose mask is drawn once a sequence and shared by all its steps.

Source: Gal and Ghahramani 2016, section 4: the inputs and outputs of a recurrent layer, and what it carries from
step to step, each lose the same units at every step. A mask that is drawn anew at each step would wear the
carried state away.

Shapes: B sequences, T steps, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from headway.nn.draws import Draws, KeyedModule


class VariationalDropout(KeyedModule):
    """Zeroes each unit of a sequence, at all its steps, with probability `rate` while training.

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x_BTD: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns (B, T, D)."""
        scale_BD = self.scale(x_BTD, x_BTD.shape[2], rng)
        return x_BTD if scale_BD is None else x_BTD * scale_BD.unsqueeze(1)

    def scale(self, like: Tensor, width: int, rng: Draws | None) -> Tensor | None:
        """Returns (B, width): 0 for a dropped unit, 1 / (1 - rate) for a kept one. None where none is dropped.

        Args:
            like: (B, ...), whose rows, type and device the mask has.
            width: number of units.
            rng: where the mask comes from; the library's generator where None.
        """
        if not self.training or self.rate == 0.0:
            return None
        if rng is None:
            return F.dropout(torch.ones(len(like), width, dtype=like.dtype, device=like.device), self.rate)
        return rng.scale(self.stream, (width,), self.rate, like.dtype)

    def extra_repr(self) -> str:
        """Returns what `print(net)` shows."""
        return f"rate={self.rate}"
