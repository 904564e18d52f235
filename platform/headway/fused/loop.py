"""The training loop of a row: chunks of steps, validations and the same callbacks as under Lightning's Trainer.

A row has one process, one device, plain precision and no loader: of what a Trainer does around a chunk and a validation
nothing is left but the calls, and a Trainer takes twenty times a small net's chunk to make them. The names are those
of the Trainer, whose place it takes for the objective and for callbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback, Trainer

from headway.config.contracts import Place
from headway.objectives.base import Objective
from headway.recipe import Recipe


class RowTrainer:
    """Stands where a Trainer stands.

    Args:
        recipe: of one process.
        place: its device.
        callbacks: of which these hooks are called: the start and the end of the fit, the end of a chunk and of a
            validation.
    """

    is_global_zero = True

    def __init__(self, recipe: Recipe, place: Place, callbacks: Sequence[Callback]) -> None:
        section = recipe.trainer
        self.callbacks = callbacks
        self.should_stop = False
        self.strategy: Any = recipe.strategy.build(
            place, precision=section.precision, clip_norm=section.clip_norm, timeout_s=section.timeout_s
        )

    def fit(self, objective: Objective) -> None:
        """Trains an objective to its end."""
        objective.trainer = cast(Trainer, self)
        self.strategy.connect(objective)
        self.strategy.optimizers = [objective.configure_optimizers()]
        self._call("on_fit_start", objective)
        while not self.should_stop:
            for place, chunk in enumerate(objective.chunks()):
                objective.training_step(chunk)
                self._call("on_train_batch_end", objective, None, chunk, place)
            self._validate(objective)
        self._call("on_fit_end", objective)

    def _validate(self, objective: Objective) -> None:
        objective.eval()
        with torch.no_grad():
            objective.validation_metrics = objective.evaluate(objective.validation_feed, "val")
        self._call("on_validation_end", objective)
        objective.train()

    def _call(self, hook: str, objective: Objective, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, objective, *arguments)
