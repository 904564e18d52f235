"""Augmentation: each image of a batch is moved, turned, mirrored and lit a little differently at every step.

Source: Simard, Steinkraus and Platt 2003, section 2; Krizhevsky et al. 2012, section 4.1.

Shapes: B images, C channels, Y x X pixels.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor

from headway.config.contracts import Batch, DataSpec, RegularizeConfig, StrategyConfig
from headway.config.errors import UserError
from headway.nn.augmentation import Border, move
from headway.nn.draws import Draws
from headway.regularize.base import Idle, stream


class Config(RegularizeConfig):
    """Configures `Augment`."""

    translate: NonNegativeInt = 0
    """Largest shift up, down, left and right, in whole pixels."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Largest turn to either side, in degrees."""
    brightness: float = Field(default=0.0, ge=0)
    """Largest amount by which all pixels of an image get brighter or darker, in the deviations they are scaled by."""
    flip: bool = False
    """Whether half of the images, left to chance, are mirrored left to right."""
    border: Border = "mean"
    """What comes in from outside: `mean` is the mean pixel of the data, `edge` repeats the outermost pixels."""

    @model_validator(mode="after")
    def _changes_something(self) -> Config:
        if not (self.translate or self.rotate or self.brightness or self.flip):
            raise ValueError("has no effect; set translate, rotate, brightness or flip")
        return self

    def check(self, spec: DataSpec, strategy: StrategyConfig) -> None:
        """Refuses what is no image, or is shifted out of itself."""
        if spec.input_kind != "image":
            raise UserError(
                f"regularize.augment: needs images, and this data gives {spec.input_kind}; set data.layout=image "
                "where it has one, or leave it out"
            )
        side = min(spec.input_shape[1:])
        if self.translate >= side:
            raise UserError(
                f"regularize.augment.translate: {self.translate} pixels shift an image {side} pixels wide out of "
                "itself; make it smaller"
            )

    def build(self, spec: DataSpec, *, seed: int) -> Augment:
        """Returns the technique."""
        return Augment(self)


class Augment(Idle):
    """Changes the images that the net is trained on."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def change_batch(self, batch: Batch, rng: Draws | None) -> Batch:
        """Returns the batch with its images changed."""
        config, x_BCYX = self.config, batch["input"]
        draw_B5 = torch.rand(len(x_BCYX), 5) if rng is None else rng.uniform(stream("augment"), (5,))
        draw_B5 = draw_B5.to(x_BCYX.device)
        if config.flip:
            x_BCYX = torch.where(draw_B5[:, 0, None, None, None] < 0.5, x_BCYX.flip(3), x_BCYX)
        if config.translate or config.rotate:
            choices = 2 * config.translate + 1
            shift_B2 = (draw_B5[:, 1:3] * choices).floor() - config.translate
            angle_B = _either_side(draw_B5[:, 3], math.radians(config.rotate))
            x_BCYX = move(x_BCYX, angle_B=angle_B, shift_B2=shift_B2, border=config.border)
        if config.brightness:
            x_BCYX = x_BCYX + _either_side(draw_B5[:, 4, None, None, None], config.brightness).to(x_BCYX.dtype)
        return {**batch, "input": x_BCYX}


def _either_side(draw: Tensor, limit: float) -> Tensor:
    """Returns what was uniform over [0, 1), uniform over [-limit, limit)."""
    return (2.0 * draw - 1.0) * limit
