"""Vanilla recurrent net: `h_t = f(W x_t + U h_(t-1) + b)`.

Source: Elman 1990; as a language model Mikolov et al. 2010. With `recurrent_init: orthogonal` the gradient
neither dies nor bursts at the start (Saxe, McClelland and Ganguli 2014).
"""

from __future__ import annotations

from typing import Literal

from headway.models._recurrent import RecurrentConfig
from headway.nn.recurrent import VanillaLayer


class Config(RecurrentConfig):
    """Configures a `RecurrentNet` of vanilla layers."""

    activation: Literal["tanh", "relu"] = "tanh"
    """Non-linearity f of each step."""

    def build_layer(self, num_inputs: int) -> VanillaLayer:
        """Returns one layer for inputs of this width."""
        return VanillaLayer(num_inputs, self.hidden, activation=self.activation, **self.layer_settings())
