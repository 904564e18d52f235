"""Every weight the same: what not to do.

Units of a layer that start alike get the same gradient and stay alike: however wide, the layer is one unit.
Source: Goodfellow, Bengio and Courville 2016, section 8.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headway.init.base import WeightInit


class Config(WeightInit):
    """Configures the scheme."""

    value: float = 0.0
    """What every weight starts at."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Sets one weight in place."""
        weight.fill_(self.value)
