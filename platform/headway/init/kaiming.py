"""Variance 2 / fan in: what a rectifier needs, since it passes half of its input.

Source: He et al. 2015, "Delving deep into rectifiers", equation 10.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor

from headway.init.base import WeightInit, fan_in


class Config(WeightInit):
    """Configures the scheme."""

    gain: float = Field(default=math.sqrt(2.0), gt=0)
    """Factor on every weight; sqrt(2) is for ReLU, 1 for a linear layer."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        weight.normal_(0.0, self.gain / math.sqrt(fan_in(weight)), generator=generator)
