"""Dropout (Srivastava et al. 2014) with keyed masks, in its inverted form: kept values are scaled up.

Without `rng` it is the library's dropout on the global generator (`trainer.rng: fast`).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from headway.nn.draws import Draws, KeyedModule


class Dropout(KeyedModule):
    """Zeroes each value with probability `rate` while training.

    Args:
        rate: in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns a tensor of the shape of `x` (rows, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        if rng is None:
            return F.dropout(x, self.rate, training=True)
        return x * rng.scale(self.stream, x.shape[1:], self.rate, x.dtype)

    def extra_repr(self) -> str:
        """Returns what `print(net)` shows."""
        return f"rate={self.rate}"
