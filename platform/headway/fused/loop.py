"""The training loop of a row: chunks of steps, validations and the same hooks as under Lightning's Trainer.

A row has one process, one device, plain precision and no loader: of what a Trainer does around a chunk and a validation
nothing is left but the calls, and a Trainer takes twenty times a small net's chunk to make them. The names are those
of the Trainer, whose place it takes for the objective and for hooks. Nothing here imports Lightning.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn

from headway.config.contracts import Hooks
from headway.objectives.base import Objective
from headway.strategies._engine import StepEngine


class RowTrainer:
    """Stands where a Trainer stands.

    Args:
        hooks: what is told of the start and the end of the fit, of chunks and of validations.
    """

    is_global_zero = True

    def __init__(self, hooks: Sequence[Hooks]) -> None:
        self.hooks = hooks
        self.should_stop = False

    def fit(self, objective: Objective) -> None:
        """Trains an objective to its end."""
        objective.net.to(objective.device)
        objective.trainer = self
        self.strategy = RowEngine(objective)  # type: ignore[abstract]  # Lightning's to the type checker alone
        self._call("on_fit_start", objective)
        while not self.should_stop:
            for place, chunk in enumerate(objective.chunks()):
                objective.training_step(chunk)
                self._call("on_train_batch_end", objective, None, chunk, place)
            self._validate(objective)
        self._call("on_fit_end", objective)

    def _validate(self, objective: Objective) -> None:
        # With those of other rows, in a net of their own that does not train.
        objective.validation_metrics = objective.evaluate(objective.validation_feed, "val")
        self._call("on_validation_end", objective)

    def _call(self, hook: str, objective: Objective, *arguments: Any) -> None:
        for listener in self.hooks:
            getattr(listener, hook)(self, objective, *arguments)


class RowEngine(StepEngine):
    """What a checkpoint asks of a strategy, for a row: its steps are a stack's.

    Args:
        objective: the row's.
    """

    is_global_zero = True

    def __init__(self, objective: Objective) -> None:
        self.lightning_module: Any = objective
        self.optimizers: list[Any] = [RowState()]

    def barrier(self, name: str | None = None) -> None:
        """Does nothing: there is one process."""


class RowState:
    """What a row's optimizer knows of its weights; it makes no step. Torch's own would import a compiler."""

    def __init__(self) -> None:
        self.state: defaultdict[nn.Parameter, dict[str, Any]] = defaultdict(dict)
        """By weight, under the names that torch's optimizers give it."""
