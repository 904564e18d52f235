"""Adversarial training: part of the loss is that of inputs changed so that the net errs.

The loss is `share * J(x) + (1 - share) * J(x + epsilon * sign(dJ/dx))`, the second under the same masks as
the first. On held-out data it counts how often the net is right under the same attack. A net with batch
normalization counts all passes in its running statistics.

Source: Goodfellow, Shlens and Szegedy 2015, section 6.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from headway.config.contracts import Batch, DataSpec, Loss, Outcome, RegularizeConfig, StrategyConfig
from headway.config.errors import UserError
from headway.nn.adversarial import fgsm
from headway.regularize.base import Idle


class Config(RegularizeConfig):
    """Configures `Adversarial`."""

    eval_metrics: ClassVar[tuple[str, ...]] = ("robust_accuracy",)

    epsilon: float = Field(gt=0)
    """Largest change of an input value, in the units that the net reads: deviations, where data is standardised."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the loss that is that of the inputs as they are; 1 trains on those alone and measures the attack."""

    def check(self, spec: DataSpec, strategy: StrategyConfig) -> None:
        """Refuses inputs that cannot change a little, and targets that are no class."""
        if spec.input_kind in ("tokens", "pairs"):
            raise UserError(
                f"regularize.adversarial: changes real values a little, and this data gives {spec.input_kind}; "
                "leave it out"
            )
        if spec.num_classes is None:
            raise UserError("regularize.adversarial: needs classes, which this data has not; leave it out")

    def build(self, spec: DataSpec, *, seed: int) -> Adversarial:
        """Returns the technique."""
        return Adversarial(self.epsilon, self.share)


class Adversarial(Idle):
    """Attacks with the fast gradient sign method, in training and in validation."""

    def __init__(self, epsilon: float, share: float) -> None:
        self.epsilon = epsilon
        self.share = share

    def add_loss(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome with the loss mixed; its metrics are those of the inputs as they are."""
        if self.share == 1.0:
            return outcome
        attacked = loss(self._attack(loss, batch)).loss_sum
        return outcome._replace(loss_sum=self.share * outcome.loss_sum + (1.0 - self.share) * attacked)

    def add_metrics(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome with how often the net is right under attack."""
        if "accuracy" not in outcome.sums:
            raise UserError("regularize.adversarial: needs an objective that counts accuracy; use objective=classify")
        robust = loss(self._attack(loss, batch)).sums["accuracy"]
        return outcome._replace(sums={**outcome.sums, "robust_accuracy": robust})

    def _attack(self, loss: Loss, batch: Batch) -> Batch:
        def loss_of(x: Tensor) -> Tensor:
            return loss({**batch, "input": x}).loss_sum

        with torch.enable_grad():
            attacked = fgsm(loss_of, batch["input"], self.epsilon)
        return {**batch, "input": attacked}
