"""Starts a net: one scheme for the weights, a constant for the biases, the same under every strategy.

Each weight has a generator of its own, keyed by its name, so a layer added or left out changes no
other layer's draw, and a rank that holds only some of the weights draws them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import InitConfig, Scale
from headway.config.keys import derive


class WeightInit(InitConfig):
    """What every scheme shares."""

    bias: float = Field(default=0.0, ge=-1, le=1)
    """Value that every bias starts at: zero, or a small positive constant."""
    bias_std: float = Field(default=0.0, ge=0)
    """Standard deviation of the biases around `bias`."""


@torch.no_grad()
def initialize(
    net: nn.Module, config: InitConfig, *, scales: Mapping[str, Scale] | None = None, known: bool = True
) -> nn.Module:
    """Draws every weight of a net's layers in place; returns the net.

    Weights of two or more axes (linear, convolution, embedding) follow the scheme; biases of
    those layers, and of layers that share a weight, start at `config.bias`. What else a net has (norms' scales, learned
    slopes) starts as its layer made it. A layer's attribute `init_scale` multiplies its draw, and a layer with weights
    of its own draws them in its method `headway_init(draw=, bias=, generator=)`. What the scheme knows
    (`config.given`) replaces the draw, unless `known` is false: for a net whose every weight a checkpoint will bring.
    """
    drawn: set[Tensor] = set()
    for name, layer in net.named_modules():
        if hasattr(layer, "headway_init"):
            _let_draw(layer, config, name)
            continue
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(weight, nn.Parameter) and weight.ndim < 2:
            continue
        if isinstance(weight, nn.Parameter) and weight not in drawn:
            drawn.add(weight)
            draw = torch.empty(weight.shape, dtype=torch.float32)
            config.fill(draw, generator=_generator(config, f"{name}.weight"))
            scale = (scales or {}).get(f"{name}.weight", Scale()).draw
            weight.copy_(draw * (float(getattr(layer, "init_scale", 1.0)) * scale))
        if isinstance(bias, nn.Parameter):
            _start_bias(bias, config, f"{name}.bias")
    own = net.state_dict()
    for name, value in config.given(net).items() if known else ():
        own[name].copy_(value)
    return net


def _let_draw(layer: nn.Module, config: InitConfig, name: str) -> None:
    generator = _generator(config, name)
    cast(Any, layer).headway_init(
        draw=lambda weight: config.fill(weight, generator=generator),
        bias=getattr(config, "bias", 0.0),
        generator=generator,
    )
    std = getattr(config, "bias_std", 0.0)
    vectors = [weight for weight in layer.parameters(recurse=False) if weight.ndim == 1]
    if std and vectors:
        # A layer with two biases adds them up: noise on one is noise on both.
        vectors[0].add_(std * torch.randn(vectors[0].shape, generator=generator))


def _start_bias(bias: nn.Parameter, config: InitConfig, name: str) -> None:
    draw = torch.full(bias.shape, getattr(config, "bias", 0.0), dtype=torch.float32)
    std = getattr(config, "bias_std", 0.0)
    if std:
        draw += std * torch.randn(bias.shape, generator=_generator(config, name))
    bias.copy_(draw)


def _generator(config: InitConfig, name: str) -> torch.Generator:
    assert config.seed is not None, "the recipe resolves init.seed"
    return torch.Generator().manual_seed(derive(config.seed, "init", name))


def fan_in(weight: Tensor) -> int:
    """Returns D, the number of values that one output of a layer sums over."""
    return prod(weight.shape[1:])
