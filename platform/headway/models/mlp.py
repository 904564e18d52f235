"""Multi-layer perceptron: fully connected layers with an activation and dropout between them.

Source: Rumelhart, Hinton and Williams 1986; dropout as in Srivastava et al. 2014, figure 2.

Shapes: B samples, I inputs, D hidden widths, O outputs.
"""

from __future__ import annotations

from math import prod
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.models._sizes import default_objective, output_size
from headway.nn.activation import Activation, build_activation
from headway.nn.draws import Draws
from headway.nn.dropout import Dropout


class Config(ModelConfig):
    """Configures `MLP`."""

    hidden: tuple[PositiveInt, ...] = Field(strict=False)
    """Width of each hidden layer, first to last; [] is logistic regression."""
    activation: Activation = "relu"
    """Non-linearity after each hidden layer."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a hidden unit is dropped while training."""
    input_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that an input value is dropped while training."""
    form: Literal["softmax", "sigmoid"] = "softmax"
    """An output for each class, or one for the second of two."""

    def build(self, spec: DataSpec) -> MLP:
        """Returns the net for these inputs and outputs.

        Raises:
            UserError: a sigmoid over other than two classes.
        """
        return MLP(
            prod(spec.input_shape),
            self.hidden,
            output_size(spec, model=self.kind, form=self.form),
            activation=self.activation,
            dropout=self.dropout,
            input_dropout=self.input_dropout,
            sigmoid=self.form == "sigmoid",
        )

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target."""
        return default_objective(spec)


class MLP(nn.Module):
    """Layers of `activation(W x + b)`, the last one linear.

    Args:
        num_inputs: I.
        hidden: the widths D of the hidden layers.
        num_outputs: O.
        activation: non-linearity after each hidden layer.
        dropout: rate after each hidden layer.
        input_dropout: rate on the input.
        sigmoid: whether the first of two classes has the logit zero, so that there is one output.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: tuple[int, ...],
        num_outputs: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.input_dropout = Dropout(input_dropout)
        widths = (num_inputs, *hidden)
        self.hidden = nn.ModuleList(
            HiddenLayer(before, after, activation, dropout) for before, after in zip(widths, hidden, strict=False)
        )
        self.output = nn.Linear(widths[-1], 1 if sigmoid else num_outputs)

    def forward(self, x: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns (B, O) for samples (B, ...), flattened to (B, I)."""
        x_BD = self.input_dropout(x.flatten(1), rng)
        for layer in self.hidden:
            x_BD = layer(x_BD, rng)
        logits = self.output(x_BD)
        return nn.functional.pad(logits, (1, 0)) if self.sigmoid else logits


class HiddenLayer(nn.Module):
    """One hidden layer: linear, activation, dropout."""

    def __init__(self, before: int, after: int, activation: Activation, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        self.activation = build_activation(activation)
        self.dropout = Dropout(dropout)

    def forward(self, x_BD: Tensor, rng: Draws | None) -> Tensor:
        """Returns (B, after) for (B, before)."""
        return self.dropout(self.activation(self.linear(x_BD)), rng)
