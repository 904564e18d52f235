"""muP: a parametrization under which the best learning rate of a narrow net is that of a wide one.

A weight is of one of three kinds, told by which of its axes grow with the net's width: an input weight (only the
outputs grow, such as an embedding), a hidden one (both grow), an output one (only the inputs grow). With m the width
over `base_width`:

              deviation of the draw            learning rate under AdamW
    input     as at the base width             1
    hidden    gain / sqrt(fan in)              1 / m
    output    gain / sqrt(fan in) / sqrt(m)    1 / m

Biases and norms are input weights, and so is an embedding, though it has no fan in: its deviation stays. At the base
width the net is that of `kaiming` with the same gain. Attention is left as it is, so a wider net should have more heads
and not wider ones.

Source: Yang et al. 2022, "Tensor Programs V", table 3 and appendix B (the column of Adam).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import Scale
from headway.config.errors import UserError
from headway.init.base import WeightInit, fan_in


class Config(WeightInit):
    """Configures the scheme."""

    by_width: ClassVar[bool] = True

    base_width: PositiveInt
    """Width at which the learning rate was chosen: of the model's setting `width`, or of its first hidden layer."""
    gain: float = Field(default=math.sqrt(2.0), gt=0)
    """Factor on every weight at the base width; sqrt(2) is for ReLU."""

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        weight.normal_(0.0, self.gain / math.sqrt(fan_in(weight)), generator=generator)

    def scales(self, net: nn.Module, wider: nn.Module, *, width: int) -> dict[str, Scale]:
        """Returns each weight's factors.

        Raises:
            UserError: an output layer that shares its weight with what reads the input has no rate of its own.
        """
        m = width / self.base_width
        users: dict[nn.Parameter, list[nn.Module]] = {}
        for layer in net.modules():
            for weight in layer.parameters(recurse=False):
                users.setdefault(weight, []).append(layer)
        found: dict[str, Scale] = {}
        for name, weight in net.named_parameters():
            if weight.ndim < 2:
                continue
            grown = wider.get_parameter(name).shape
            outputs_grow, inputs_grow = grown[0] > weight.shape[0], grown[1] > weight.shape[1]
            embeds = [isinstance(layer, nn.Embedding) for layer in users[weight]]
            if (any(embeds) and not all(embeds)) or getattr(net, "tied", False):
                raise UserError(
                    f"init.kind: mup wants output weights of their own, and this {type(net).__name__} uses its input's "
                    "once more; set model.tied=false if it has that, or use another init"
                )
            if any(embeds):
                if inputs_grow:
                    found[name] = Scale(draw=math.sqrt(m))
            elif inputs_grow and outputs_grow:
                found[name] = Scale(lr=1.0 / m)
            elif inputs_grow:
                found[name] = Scale(draw=1.0 / math.sqrt(m), lr=1.0 / m)
        return found
