"""A random rotation (or its nearest rectangular relative): every singular value is `gain`.

Source: Saxe, McClelland and Ganguli 2014, section 3.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.init.base import WeightInit


class Config(WeightInit):
    """Configures the scheme."""

    gain: float = Field(default=1.0, gt=0)
    """The singular value of every weight matrix."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        nn.init.orthogonal_(weight, gain=self.gain, generator=generator)
