"""Regression by squared error (Bishop 2006, section 3.1.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from headway.config.contracts import Batch, DataSpec, Outcome
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective


class Config(BuiltIn):
    """Configures `Regress`."""

    metric_names: ClassVar[tuple[str, ...]] = ("absolute_error",)

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.target_size is None:
            raise UserError("objective.kind: regress needs real targets, which this data has not; use classify")

    def build(self, net: nn.Module, **parts: Any) -> Regress:
        """Returns the objective."""
        return Regress.make(net, **parts)


class Regress(Objective):
    """Mean squared error: half is not taken, the mean is over rows and targets."""

    metric_names = Config.metric_names

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the squared error, a mean over targets summed over rows, and the absolute one."""
        error = net(batch["input"], rng) - batch["target"]
        absolute = error.detach().abs().mean(1).sum()
        return Outcome(error.square().mean(1).sum(), len(error), None, {"absolute_error": absolute})
