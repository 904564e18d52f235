"""Logistic regression: one linear layer whose outputs are the logits.

The simplest net there is, and the baseline that every other one has to beat.
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from headway.config.contracts import DataSpec, ModelConfig
from headway.models._sizes import default_objective, output_size
from headway.nn.draws import Draws


class Config(ModelConfig):
    """Configures `Logistic`."""

    bias: bool = True
    """Whether each output has a bias."""

    def build(self, spec: DataSpec) -> Logistic:
        """Returns the net for these features and classes."""
        return Logistic(prod(spec.input_shape), output_size(spec, model=self.kind), bias=self.bias)

    def default_objective(self, spec: DataSpec) -> str:
        """Returns `classify`, or `regress` for a real target: linear regression."""
        return default_objective(spec)


class Logistic(nn.Module):
    """A linear map from the flattened input to one logit a class.

    Args:
        num_inputs: number of values of one sample.
        num_outputs: number of classes or real targets.
        bias: whether to add one.
    """

    def __init__(self, num_inputs: int, num_outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_outputs, bias=bias)

    def forward(self, x: Tensor, rng: Draws | None = None) -> Tensor:
        """Returns logits (B, num_outputs) for samples (B, ...)."""
        return self.linear(x.flatten(1))
