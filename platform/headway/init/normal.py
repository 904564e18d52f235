"""N(0, std**2) for every weight, whatever its shape: GPT-2's choice with std 0.02.

Source: Radford et al. 2018, section 4.1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from headway.init.base import WeightInit


class Config(WeightInit):
    """Configures the scheme."""

    std: float = Field(default=0.02, ge=0)
    """Standard deviation of the weights."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        weight.normal_(0.0, self.std, generator=generator)
