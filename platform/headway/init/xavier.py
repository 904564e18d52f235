"""Variance 2 / (fan in + fan out): keeps activations and gradients of a tanh net alive.

Source: Glorot and Bengio 2010, equation 16 for the uniform form, 12 for the variance of both.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.init.base import WeightInit


class Config(WeightInit):
    """Configures the scheme."""

    gain: float = Field(default=1.0, gt=0)
    """Factor on every weight; 5/3 is usual for tanh."""
    distribution: Literal["uniform", "normal"] = "uniform"
    """What is drawn from; the variance is the same."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        draw = nn.init.xavier_uniform_ if self.distribution == "uniform" else nn.init.xavier_normal_
        draw(weight, gain=self.gain, generator=generator)
