"""Gated recurrent units: one gate mixes the old state with the new, another says how much of the old the new sees.

Source: Cho et al. 2014, section 2.3, with the reset gate applied after the matrix product, as cuDNN has it.
"""

from __future__ import annotations

from headway.models._recurrent import RecurrentConfig
from headway.nn.recurrent import GRULayer


class Config(RecurrentConfig):
    """Configures a `RecurrentNet` of GRU layers."""

    def build_layer(self, num_inputs: int) -> GRULayer:
        """Returns one layer for inputs of this width."""
        return GRULayer(num_inputs, self.hidden, **self.layer_settings())
