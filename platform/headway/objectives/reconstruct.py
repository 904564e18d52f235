"""Reconstruction: the net's output is its input again, by squared error (Bengio et al. 2007).

The input is taken as the data gives it. A net that corrupts it (a denoising autoencoder) does so inside.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from headway.config.contracts import Batch, DataSpec, Outcome, State
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective


class Config(BuiltIn):
    """Configures `Reconstruct`."""

    def check(self, spec: DataSpec) -> None:
        """Refuses data without real values."""
        if spec.input_kind in ("tokens", "pairs"):
            raise UserError(
                f"objective.kind: reconstruct is for real values, and this data gives {spec.input_kind}; use masked_lm"
            )

    def build(self, net: nn.Module, **parts: Any) -> Reconstruct:
        """Returns the objective."""
        return Reconstruct.make(net, **parts)


class Reconstruct(Objective):
    """Mean squared error over the values of a row."""

    def outcome(self, net: nn.Module, batch: Batch, state: State | None, rng: Draws | None) -> Outcome:
        """Returns the squared error, a mean over values summed over rows."""
        error_BI = net(batch["input"], rng) - batch["input"].flatten(1)
        return Outcome(error_BI.square().mean(1).sum(), len(error_BI), None, {})
