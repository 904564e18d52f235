"""Classification: the net's outputs are the logits of the classes.

By cross-entropy (Bishop 2006, section 4.3.4), or by the squared error between the softmax and the target's
indicator, summed over the classes (Brier 1950). The squared one saturates: its gradient carries the softmax's slope,
which is nothing where the net is sure, however wrong. Label smoothing: Szegedy et al. 2016, section 7.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Outcome, State
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective


class Config(BuiltIn):
    """Configures `Classify`."""

    metric_names: ClassVar[tuple[str, ...]] = ("accuracy",)
    row_settings: ClassVar[tuple[str, ...]] = ("label_smoothing",)

    loss: Literal["cross_entropy", "squared"] = "cross_entropy"
    """What is minimized: nats, or the squared error of the probabilities."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes while training; for cross_entropy."""

    @model_validator(mode="after")
    def _smoothing_is_of_cross_entropy(self) -> Config:
        if self.loss == "squared" and self.label_smoothing:
            raise ValueError("label_smoothing is for loss cross_entropy; leave it out")
        return self

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.num_classes is None:
            raise UserError("objective.kind: classify needs classes, which this data has not; use regress or causal_lm")

    def build(self, net: nn.Module, **parts: Any) -> Classify:
        """Returns the objective."""
        return Classify.make(net, loss=self.loss, label_smoothing=self.label_smoothing, **parts)


class Classify(Objective):
    """The loss and the accuracy over rows."""

    metric_names = Config.metric_names
    row_settings = Config.row_settings

    def __init__(self, net: nn.Module, *, loss: str, label_smoothing: float | Tensor, **parts: Any) -> None:
        super().__init__(net, **parts)
        self.loss = loss
        self.label_smoothing = label_smoothing

    def outcome(self, net: nn.Module, batch: Batch, state: State | None, rng: Draws | None) -> Outcome:
        """Returns the loss summed over rows, and how many were right."""
        logits_BC, target_B = net(batch["input"], rng), batch["target"]
        if self.loss == "squared":
            loss_sum = squared_error(logits_BC, target_B).sum()
        else:
            smoothing = self.label_smoothing if net.training else 0.0
            loss_sum = cross_entropy_sum(logits_BC, target_B, smoothing, is_stacked=self.is_stacked)
        hits = (logits_BC.detach().argmax(1) == target_B).sum()
        return Outcome(loss_sum, len(logits_BC), None, {"accuracy": hits})


def cross_entropy_sum(
    logits_BC: Tensor, target_B: Tensor, smoothing: float | Tensor, *, is_stacked: bool = False
) -> Tensor:
    """Returns the cross-entropy in nats, summed over rows, to a target of which a share is spread over all classes.

    Args:
        logits_BC: the logits.
        target_B: the classes.
        smoothing: the share.
        is_stacked: whether this is under vmap, where the library takes its own apart in Python at each step.
    """
    # The library takes a plain number.
    if not is_stacked and not isinstance(smoothing, Tensor):
        return F.cross_entropy(logits_BC, target_B, reduction="sum", label_smoothing=smoothing)
    log_probability_BC = logits_BC.log_softmax(1)
    own = -log_probability_BC.gather(1, target_B.unsqueeze(1)).sum()
    if not isinstance(smoothing, Tensor) and smoothing == 0.0:
        return own
    spread = -log_probability_BC.mean(1).sum()
    return (1 - smoothing) * own + smoothing * spread


def squared_error(logits_BC: Tensor, target_B: Tensor) -> Tensor:
    """Returns (B,): the squared error of the probabilities, summed over the classes, in [0, 2]."""
    probability_BC = logits_BC.softmax(1)
    indicator_BC = F.one_hot(target_B, logits_BC.shape[1]).to(probability_BC.dtype)
    return (probability_BC - indicator_BC).square().sum(1)
