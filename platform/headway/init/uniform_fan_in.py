"""U[-1/sqrt(D), 1/sqrt(D)], D the number of inputs of a unit: the lecture's first choice.

Source: LeCun et al. 1998, "Efficient BackProp", section 4.6, in its uniform form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headway.init.base import WeightInit, fan_in


class Config(WeightInit):
    """Configures the scheme."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        bound = 1.0 / math.sqrt(fan_in(weight))
        weight.uniform_(-bound, bound, generator=generator)
