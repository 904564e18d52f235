"""Long short-term memory: a cell that gates let values into, keep and let out.

Source: Hochreiter and Schmidhuber 1997; forget gate: Gers, Schmidhuber and Cummins 2000.
"""

from __future__ import annotations

from headway.models._recurrent import RecurrentConfig
from headway.nn.recurrent import LSTMLayer


class Config(RecurrentConfig):
    """Configures a `RecurrentNet` of LSTM layers."""

    forget_bias: float = 1.0
    """Added to the forget gate's bias at the start, so that the cell keeps what it has; 0 leaves it half open."""

    def build_layer(self, num_inputs: int) -> LSTMLayer:
        """Returns one layer for inputs of this width."""
        return LSTMLayer(num_inputs, self.hidden, forget_bias=self.forget_bias, **self.layer_settings())
