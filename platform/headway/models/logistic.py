"""Logistic regression: one linear layer whose outputs are the logits.

The simplest net there is, and the baseline that every other one has to beat. Two classes need one logit only: a
sigmoid of it is a softmax over it and zero.

Source: Bishop 2006, sections 4.3.2 and 4.3.4.
"""

from __future__ import annotations

from math import prod
from typing import Literal

from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.models._sizes import default_objective, output_size
from headway.nn.draws import Draws


class Config(ModelConfig):
    """Configures `Logistic`."""

    form: Literal["softmax", "sigmoid"] = "softmax"
    """A logit for each class, or one for the second of two."""
    bias: bool = True
    """Whether each output has a bias."""

    def build(self, spec: DataSpec) -> Logistic:
        """Returns the net for these features and classes.

        Raises:
            UserError: a sigmoid over other than two classes.
        """
        num_outputs = output_size(spec, model=self.kind, form=self.form)
        return Logistic(prod(spec.input_shape), num_outputs, bias=self.bias, sigmoid=self.form == "sigmoid")

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target: linear regression."""
        return default_objective(spec)


class Logistic(nn.Module):
    """A linear map from the flattened input to one logit a class.

    Args:
        num_inputs: number of values of one sample.
        num_outputs: number of classes or real targets.
        bias: whether to add one.
        sigmoid: whether the first of two classes has the logit zero.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True, sigmoid: bool = False) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.linear = nn.Linear(num_inputs, 1 if sigmoid else num_outputs, bias=bias)

    def forward(self, x: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns logits (B, num_outputs) for samples (B, ...)."""
        logits = self.linear(x.flatten(1))
        return nn.functional.pad(logits, (1, 0)) if self.sigmoid else logits
