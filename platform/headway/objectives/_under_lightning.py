"""Objectives as the LightningModules that a Trainer takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningModule, Trainer

from headway.config.contracts import Hooks
from headway.nn.uncompiled import leave_out
from headway.objectives.base import Objective

Kind = TypeVar("Kind", bound=Objective)
_classes: dict[type[Objective], Any] = {}

# Lightning has imported torch's compiler, and what it trains may be compiled.
leave_out()


def under_lightning(kind: type[Kind]) -> type[Kind]:
    """Returns a class of objectives that are LightningModules, too."""
    if kind not in _classes:
        said = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _classes[kind] = type(kind.__name__, (kind, LightningModule), said)
    found: type[Kind] = _classes[kind]
    return found


class Relay(Callback):
    """Hands on what a Trainer tells.

    Args:
        hooks: to whom, in this order.
    """

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self.hooks = hooks

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of the start."""
        for hooks in self.hooks:
            hooks.on_fit_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tells of a chunk of steps."""
        for hooks in self.hooks:
            hooks.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of a validation."""
        for hooks in self.hooks:
            hooks.on_validation_end(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tells of the end."""
        for hooks in self.hooks:
            hooks.on_fit_end(trainer, pl_module)
