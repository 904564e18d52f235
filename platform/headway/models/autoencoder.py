"""Autoencoder: an MLP that gives its input back through a narrower code; what it learns needs no labels.

While training the input may be corrupted, and the clean one asked for (Vincent et al. 2008, "Extracting and composing
robust features with denoising autoencoders"). The encoder's layers are named as those of `mlp` are, so that they can
start a classifier: `init: {kind: from_run, run: ...}`.

Shapes: B samples, I inputs, D hidden widths.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.config.errors import UserError
from headway.nn.activation import Activation, build_activation
from headway.nn.draws import Draws, KeyedModule

Corruption = Literal["none", "mask", "gaussian"]


class Config(ModelConfig):
    """Configures `Autoencoder`."""

    hidden: tuple[PositiveInt, ...] = Field(strict=False, min_length=1)
    """Width of each layer of the encoder; the last one is the code. The decoder mirrors it."""
    activation: Activation = "relu"
    """Non-linearity after each layer but the decoder's last."""
    corruption: Corruption = "mask"
    """What is done to the input while training: values set to zero, or noise added."""
    amount: float = Field(default=0.3, ge=0)
    """Probability that a value is masked, or the standard deviation of the noise."""
    tied: bool = False
    """Whether each layer of the decoder has the transposed weight of the encoder's."""

    @model_validator(mode="after")
    def _masks_a_share(self) -> Config:
        if self.corruption == "mask" and self.amount >= 1:
            raise ValueError(f"amount {self.amount} masks everything; it should be less than 1")
        return self

    def build(self, spec: DataSpec) -> Autoencoder:
        """Returns the net for these inputs.

        Raises:
            UserError: the data has no real values.
        """
        if spec.input_kind in ("tokens", "pairs"):
            raise UserError(f"model.kind: autoencoder reads real values; this data gives {spec.input_kind}; use a bert")
        return Autoencoder(self, num_inputs=prod(spec.input_shape))

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `reconstruct`."""
        return "reconstruct"


class Autoencoder(nn.Module):
    """Encoder and decoder.

    Args:
        config: widths and corruption.
        num_inputs: I.
    """

    def __init__(self, config: Config, *, num_inputs: int) -> None:
        super().__init__()
        self.corrupt = Corrupt(config.corruption, config.amount)
        widths = (num_inputs, *config.hidden)
        pairs = list(pairwise(widths))
        encoder = [Layer(before, after, config.activation) for before, after in pairs]
        decoder = [
            Layer(after, before, config.activation if place else None, tied=config.tied)
            for place, (before, after) in reversed(list(enumerate(pairs)))
        ]
        # Strategies shard the elements of a ModuleList one by one; a weight that two layers use stays with the net.
        self.hidden = nn.Sequential(*encoder) if config.tied else nn.ModuleList(encoder)
        self.decoder = nn.Sequential(*decoder) if config.tied else nn.ModuleList(decoder)
        self.tied = config.tied

    def forward(self, x: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns the reconstruction (B, I) of samples (B, ...)."""
        x_BD = self.encode(self.corrupt(x.flatten(1), rng))
        for layer, mirror in zip(self.decoder, reversed(list(self.hidden)), strict=True):
            x_BD = layer(x_BD, cast(Layer, mirror).transposed()) if self.tied else layer(x_BD)
        return x_BD

    def encode(self, x: Tensor) -> Tensor:
        """Returns the code (B, last hidden width) of samples (B, ...)."""
        x_BD = x.flatten(1)
        for layer in self.hidden:
            x_BD = layer(x_BD)
        return x_BD


class Layer(nn.Module):
    """One layer: linear, and an activation unless it is the last; tied, it has a bias and is given its weight."""

    def __init__(self, before: int, after: int, activation: Activation | None, *, tied: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after) if not tied else None
        self.bias = nn.Parameter(torch.zeros(after)) if tied else None
        self.activation = build_activation(activation) if activation is not None else nn.Identity()

    def forward(self, x_BD: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns (B, after) for (B, before)."""
        if self.linear is not None:
            return self.activation(self.linear(x_BD))
        assert weight is not None, "a tied layer is given its weight"
        return self.activation(F.linear(x_BD, weight, self.bias))

    def transposed(self) -> Tensor:
        """Returns the weight for the way back, (before, after)."""
        assert self.linear is not None, "an encoder's layer has a weight"
        return self.linear.weight.t()


class Corrupt(KeyedModule):
    """Spoils inputs while training: holes, which are not made up for by scaling the rest, or noise."""

    def __init__(self, kind: Corruption, amount: float) -> None:
        super().__init__()
        self.kind = kind
        self.amount = amount

    def forward(self, x_BI: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, I)."""
        if not self.training or self.kind == "none" or self.amount == 0:
            return x_BI
        if self.kind == "gaussian":
            shape = x_BI.shape[1:]
            noise = torch.randn_like(x_BI) if rng is None else rng.normal(self.stream, shape, dtype=x_BI.dtype)
            return x_BI + self.amount * noise
        if rng is None:
            return x_BI * (torch.rand_like(x_BI) >= self.amount)
        return x_BI * rng.keep(self.stream, x_BI.shape[1:], self.amount)
