"""l1 and l2: a price on the size of the weights.

The loss is `L + l1 * sum |w| + (l2 / 2) * sum w^2`, so each weight's gradient gets
`l1 * sign(w) + l2 * w`. Biases, norms and other vectors are free. The price goes through the optimizer
like any other gradient (with adaptive rates it is scaled by them; `optim.weight_decay` is not), and is no part of the
losses that are recorded.

Source: Goodfellow, Bengio and Courville 2016, section 7.1.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from headway.config.contracts import DataSpec, Engine, RegularizeConfig
from headway.regularize.base import Idle


class Config(RegularizeConfig):
    """Configures `Penalty`."""

    l1: float = Field(default=0.0, ge=0)
    """Price of a weight's absolute value."""
    l2: float = Field(default=0.0, ge=0)
    """Price of half a weight's square."""

    @model_validator(mode="after")
    def _costs_something(self) -> Config:
        if self.l1 == self.l2 == 0:
            raise ValueError("has no effect; set l1 or l2")
        return self

    def build(self, spec: DataSpec, *, seed: int) -> Penalty:
        """Returns the technique."""
        return Penalty(self.l1, self.l2)


class Penalty(Idle):
    """Adds the gradient of `l1 * |w| + (l2 / 2) * w^2` to that of each weight of two or more axes."""

    def __init__(self, l1: float, l2: float) -> None:
        self.l1 = l1
        self.l2 = l2

    def after_backward(self, engine: Engine, step: int) -> Tensor | float:
        """Adds the gradient; returns the price of all weights."""
        prices: list[Tensor] = []

        def add(_name: str, weight: Tensor, gradient: Tensor) -> None:
            if weight.ndim < 2:
                return
            if self.l2:
                gradient.add_(weight, alpha=self.l2)
                prices.append(torch.linalg.vector_norm(weight).square() * (self.l2 / 2))
            if self.l1:
                gradient.add_(weight.sign(), alpha=self.l1)
                prices.append(torch.linalg.vector_norm(weight, 1) * self.l1)

        engine.edit_gradients(add)
        return sum(prices, start=0.0)
