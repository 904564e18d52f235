"""A user's own LightningModule, trained with headway's steps.

Its `training_step` is taken for what it is in most code: a function from a batch to a mean loss
that logs a few numbers on the way. The loss counts once a row.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from headway.config.contracts import Batch, Outcome
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import Objective


class Adopted(Objective):
    """Asks a LightningModule for its loss; the module is the net."""

    def __init__(self, module: LightningModule, **parts: Any) -> None:
        super().__init__(module, **parts)
        self._logged: dict[str, Tensor] = {}
        self._names: dict[bool, tuple[str, ...]] = {}
        # Lightning's own log needs a Trainer that runs the module's loop.
        module.log = self._log  # type: ignore[method-assign]
        module.log_dict = self._log_dict  # type: ignore[method-assign, assignment]
        if not module.automatic_optimization:
            raise UserError("objective.kind: a LightningModule with manual optimization cannot be adopted")

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Returns what the module logs, in training and in validation."""
        return self._names.get(self.training, ())

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the module's mean loss times the rows, and what it logged."""
        assert isinstance(net, LightningModule)
        self._logged = {}
        result = _call(net, "training_step" if self.training else "validation_step", batch)
        loss = result.get("loss") if isinstance(result, Mapping) else result
        if loss is None:
            loss = self._logged.get("loss")
        if not isinstance(loss, Tensor):
            name = "training_step" if self.training else "validation_step"
            raise UserError(f"objective.kind: {type(net).__name__}.{name} neither returns nor logs a loss")
        rows = len(batch["input"])
        sums = {name: value * rows for name, value in self._logged.items() if name != "loss"}
        self._names[self.training] = tuple(sorted(sums))
        return Outcome(loss * rows, rows, None, sums)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the recipe's optimizer, or the module's own where the recipe has none."""
        if self.optim is not None:
            return self.optim.build(self.net)
        assert isinstance(self.net, LightningModule)
        made: Any = self.net.configure_optimizers()
        if isinstance(made, tuple) and len(made) == 2 and not made[1]:
            made = made[0]
        if isinstance(made, list | tuple) and len(made) == 1:
            made = made[0]
        if isinstance(made, torch.optim.Optimizer):
            return made
        raise UserError(
            "objective.kind: configure_optimizers should give one optimizer and no scheduler; "
            "or write an optim section, with its schedule"
        )

    def _log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        plain = name
        for prefix in ("train/", "train_", "val/", "val_", "test/", "test_"):
            plain = plain.removeprefix(prefix)
        self._logged[plain] = torch.as_tensor(value, device=self.device).detach().double().mean()

    def _log_dict(self, values: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for name, value in values.items():
            self._log(name, value)


def _call(module: LightningModule, step: str, batch: Batch) -> Any:
    """Calls a step with as much of (batch, batch_idx) as it is written to take."""
    # Asked of the class: a sharded module's own attribute is a wrapper that takes anything.
    takes_index = len(inspect.signature(getattr(type(module), step)).parameters) > 2
    return getattr(module, step)(batch, 0) if takes_index else getattr(module, step)(batch)
