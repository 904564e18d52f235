"""Starts a net: one scheme for the weights, a constant for the biases, the same under every strategy.

Each weight has a generator of its own, keyed by its name, so a layer added or left out changes no
other layer's draw, and a rank that holds only some of the weights draws them alike.
"""

from __future__ import annotations

from math import prod

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import InitConfig
from headway.config.keys import derive


class WeightInit(InitConfig):
    """What every scheme shares."""

    bias: float = Field(default=0.0, ge=0, le=1)
    """Value that every bias starts at: zero, or a small positive constant."""


@torch.no_grad()
def initialize(net: nn.Module, config: InitConfig) -> nn.Module:
    """Draws every weight of a net's layers in place; returns the net.

    Weights of two or more axes (linear, convolution, embedding) follow the scheme; biases of
    those layers are set to `config.bias`. What else a net has (norms' scales, learned slopes)
    starts as its layer made it. A layer's attribute `init_scale` multiplies its draw.
    """
    assert config.seed is not None, "the recipe resolves init.seed"
    drawn: set[Tensor] = set()
    for layer_name, layer in net.named_modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim < 2 or weight in drawn:
            continue
        drawn.add(weight)
        generator = torch.Generator().manual_seed(derive(config.seed, "init", f"{layer_name}.weight"))
        draw = torch.empty(weight.shape, dtype=torch.float32)
        config.fill(draw, generator=generator)
        weight.copy_(draw * float(getattr(layer, "init_scale", 1.0)))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, nn.Parameter):
            bias.fill_(getattr(config, "bias", 0.0))
    return net


def fan_in(weight: Tensor) -> int:
    """Returns D, the number of values that one output of a layer sums over."""
    return prod(weight.shape[1:])
