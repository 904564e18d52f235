"""Classification by cross-entropy: the net's outputs are the logits of the classes.

Source: Bishop 2006, section 4.3.4. Label smoothing: Szegedy et al. 2016, section 7.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import nn

from headway.config.contracts import Batch, DataSpec, Outcome
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective


class Config(BuiltIn):
    """Configures `Classify`."""

    metric_names: ClassVar[tuple[str, ...]] = ("accuracy",)

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes while training."""

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.num_classes is None:
            raise UserError("objective.kind: classify needs classes, which this data has not; use regress or causal_lm")

    def build(self, net: nn.Module, **parts: Any) -> Classify:
        """Returns the objective."""
        return Classify(net, label_smoothing=self.label_smoothing, **parts)


class Classify(Objective):
    """Cross-entropy and accuracy over rows."""

    metric_names = Config.metric_names

    def __init__(self, net: nn.Module, *, label_smoothing: float, **parts: Any) -> None:
        super().__init__(net, **parts)
        self.label_smoothing = label_smoothing

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the cross-entropy summed over rows, in nats, and how many were right."""
        logits = net(batch["input"], rng)
        smoothing = self.label_smoothing if net.training else 0.0
        loss_sum = F.cross_entropy(logits, batch["target"], reduction="sum", label_smoothing=smoothing)
        hits = (logits.detach().argmax(1) == batch["target"]).sum()
        return Outcome(loss_sum, len(logits), None, {"accuracy": hits})
