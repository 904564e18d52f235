"""Variance 2 / fan in: what a rectifier needs, since it passes half of its input.

Source: He et al. 2015, "Delving deep into rectifiers", equation 10. With gain 1 it is LeCun's (LeCun et al. 1998,
"Efficient BackProp", section 4.6).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from headway.init.base import WeightInit, fan_in


class Config(WeightInit):
    """Configures the scheme."""

    gain: float = Field(default=math.sqrt(2.0), gt=0)
    """Factor on every weight; sqrt(2) is for ReLU, 1 for a linear layer."""
    distribution: Literal["normal", "uniform"] = "normal"
    """What is drawn from; the variance is the same."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        std = self.gain / math.sqrt(fan_in(weight))
        if self.distribution == "normal":
            weight.normal_(0.0, std, generator=generator)
        else:
            weight.uniform_(-math.sqrt(3.0) * std, math.sqrt(3.0) * std, generator=generator)
