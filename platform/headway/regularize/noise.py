"""Gaussian noise on inputs, on weights, on gradients.

On the input it is drawn for each value (Bishop 1995, "Training with noise is equivalent to Tikhonov
regularization"). On the weights it is there from a step's first forward to its gradient, and off
again before the update (Graves 2011, "Practical variational inference for neural networks"). On the gradient
its variance falls with the step t as `1 / (1 + t)^decay` (Neelakantan et al. 2015, equation 1). Noise on
weights spares biases, norms and other vectors.

The noise of a weight, or of its gradient, is drawn whole by every rank on the CPU: alike under every strategy, and
slow where a net has a hundred million weights.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from headway.config.contracts import Batch, DataSpec, Engine, RegularizeConfig, StrategyConfig
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.regularize.base import Idle, stream, weight_generator


class Config(RegularizeConfig):
    """Configures `Noise`."""

    input: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on each input value, in the units that the net reads."""
    weight: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on each weight."""
    gradient: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on each gradient at the first step."""
    gradient_decay: float = Field(default=0.55, ge=0)
    """Exponent with which the variance of the gradient's noise falls."""

    @model_validator(mode="after")
    def _is_there(self) -> Config:
        if self.input == self.weight == self.gradient == 0:
            raise ValueError("has no effect; set input, weight or gradient")
        return self

    def check(self, spec: DataSpec, strategy: StrategyConfig) -> None:
        """Refuses noise on tokens."""
        if self.input and spec.input_kind in ("tokens", "pairs"):
            raise UserError(
                f"regularize.noise.input: {self.input} is noise on real values, and this data gives {spec.input_kind}; "
                "leave it out"
            )

    def build(self, spec: DataSpec, *, seed: int) -> Noise:
        """Returns the technique."""
        return Noise(self, seed=seed)


class Noise(Idle):
    """Disturbs batch, weights and gradients, each with streams of its own."""

    def __init__(self, config: Config, *, seed: int) -> None:
        self.config = config
        self.seed = seed

    def change_batch(self, batch: Batch, rng: Draws | None) -> Batch:
        """Returns the batch with noise on its input."""
        if not self.config.input:
            return batch
        x = batch["input"]
        noise = torch.randn_like(x) if rng is None else rng.normal(stream("noise"), x.shape[1:], dtype=x.dtype)
        return {**batch, "input": x + self.config.input * noise}

    def before_forward(self, engine: Engine, step: int) -> None:
        """Disturbs the weights."""
        if not self.config.weight:
            return

        def draw(name: str, shape: tuple[int, ...]) -> Tensor | None:
            return self._normal("weight noise", step, name, shape) * self.config.weight if len(shape) > 1 else None

        engine.disturb(draw)

    def after_backward(self, engine: Engine, step: int) -> Tensor | float:
        """Disturbs the gradient."""
        if not self.config.gradient:
            return 0.0
        deviation = self.config.gradient * (1.0 + step) ** (-self.config.gradient_decay / 2)

        def add(name: str, _weight: Tensor, gradient: Tensor) -> None:
            noise = self._normal("gradient noise", step, name, tuple(gradient.shape))
            gradient.add_(noise.to(gradient), alpha=deviation)

        engine.edit_gradients(add)
        return 0.0

    def _normal(self, purpose: str, step: int, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=weight_generator(self.seed, purpose, step, name))
