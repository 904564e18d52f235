"""Saves checkpoints while training: at each validation, at an interval, and when asked to stop."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist

from headway.checkpoint.store import Checkpoint
from headway.config.contracts import Engine, Hooks
from headway.config.errors import UserError

if TYPE_CHECKING:
    from headway.checkpoint.behind import Shelf
    from headway.objectives.base import Objective
    from headway.recipe import TrainerSection


class Keeper(Hooks):
    """Keeps the newest checkpoint and the best, and stops early when the best stays the best.

    Args:
        shelf: where checkpoints go.
        trainer: the recipe's section: what is monitored, and how long it may stall.
        judge_from: step from which a checkpoint may be the best.
        save_every_s: seconds of training after which the position is saved in any case.
    """

    def __init__(
        self, shelf: Shelf, trainer: TrainerSection, *, judge_from: int = 0, save_every_s: float | None = None
    ) -> None:
        self.shelf = shelf
        self.settings = trainer
        self.judge_from = judge_from
        self.save_every_s = math.inf if save_every_s is None else save_every_s
        self._unsaved_s = 0.0
        """Seconds of training since the newest checkpoint, the same on all ranks."""
        self.best: dict[str, Any] | None = None
        self.stalled = 0
        """Validations since the best."""

    # ---- Lightning's hooks -----------------------------------------------------------------------

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Saves at the interval, and when asked to stop; ends the training at its last step."""
        objective = cast("Objective", pl_module)
        every = self.settings.checkpoint_every
        self._unsaved_s += objective.report.elapsed_s
        due = every is not None and batch.first // every != objective.step // every
        due = due or self._unsaved_s >= self.save_every_s or self.shelf.is_due
        validates = objective.schedule.validates_at(objective.step)
        # A validation saves when it is through; whoever went on from a position before it would leave it out.
        if objective.report.stop or (due and not validates):
            self.save(trainer, objective, validation_due=validates)
        if objective.step >= objective.schedule.total_steps:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Judges the validation, saves, and stops early where that is asked for."""
        objective = cast("Objective", pl_module)
        self._judge(objective)
        self.save(trainer, objective)
        patience = self.settings.early_stopping
        if patience is not None and self.stalled >= patience.patience:
            trainer.should_stop = True

    # ---- what it does ----------------------------------------------------------------------------

    def _judge(self, objective: Objective) -> None:
        metric = self.settings.monitor
        value = objective.validation_metrics.get(metric)
        if value is None:
            known = ", ".join(sorted(objective.validation_metrics))
            raise UserError(f"trainer.monitor: there is no {metric!r}; a validation gives {known}")
        if objective.step < self.judge_from:
            return
        delta = self.settings.early_stopping.min_delta if self.settings.early_stopping else 0.0
        value = value if math.isfinite(value) else math.inf * (1 if self.settings.monitor_mode == "min" else -1)
        sign = 1.0 if self.settings.monitor_mode == "min" else -1.0
        best = math.inf if self.best is None else sign * self.best["value"]
        if sign * value < best - delta or self.best is None:
            self.best = {
                "step": objective.step,
                "metric": metric,
                "value": value,
                "metrics": objective.validation_metrics,
            }
            self.stalled = 0
        else:
            self.stalled += 1

    def save(self, trainer: Any, objective: Objective, *, validation_due: bool = False) -> None:
        """Saves a checkpoint of the present step; all ranks take part, rank 0 writes.

        Args:
            trainer: whose strategy has the weights.
            objective: what is trained.
            validation_due: whether whoever goes on from here begins with the validation of this step.
        """
        self._unsaved_s = 0.0
        with objective.clock.during("checkpoint"):
            self._save(trainer, objective, validation_due=validation_due)

    def _save(self, trainer: Any, objective: Objective, *, validation_due: bool) -> None:
        engine = cast(Engine, trainer.strategy)
        weights, optimizer = engine.gather_weights(), engine.gather_optimizer()
        rng, carried = (
            _gather_generators(objective),
            objective.carried.gather(objective.engine_world_size if objective.train_feed.carries else 1),
        )
        if trainer.is_global_zero:
            position = {
                "step": objective.step,
                "best": self.best,
                "stalled": self.stalled,
                "validation_due": validation_due,
            }
            self.shelf.save(
                Checkpoint(weights, optimizer, position, rng, carried),
                keep={objective.step} | ({self.best["step"]} if self.best else set()),
                status={"step": objective.step, "best": self.best, "checkpoint": objective.step},
            )
        trainer.strategy.barrier()

    def restore(self, trainer: Any, objective: Objective, checkpoint: Checkpoint) -> None:
        """Puts a run where a checkpoint left it."""
        engine = cast(Engine, trainer.strategy)
        engine.load_weights(checkpoint.weights)
        engine.load_optimizer(checkpoint.optimizer)
        objective.carried.load(checkpoint.carried)
        objective.step = checkpoint.step
        best = checkpoint.position["best"]
        # A run that ended before a technique was through, and goes on, has no best yet.
        self.best = best if best and best["step"] >= self.judge_from else None
        self.stalled = checkpoint.position["stalled"]
        if checkpoint.rng:
            _set_generator(objective, checkpoint.rng)


def _gather_generators(objective: Objective) -> dict[str, torch.Tensor]:
    """Returns the state of the library's generator on every rank."""
    own = {"cpu": torch.get_rng_state()}
    if objective.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(objective.device)
    world = objective.engine_world_size
    everyone: list[Any] = [own]
    if world > 1:
        everyone = [None] * world
        dist.all_gather_object(everyone, own)
    return {f"{device}/{rank}": state for rank, states in enumerate(everyone) for device, state in states.items()}


def _set_generator(objective: Objective, states: dict[str, torch.Tensor]) -> None:
    """Sets this rank's generator; on another number of ranks there is none to set."""
    rank = objective.train_feed.place.rank
    if f"cpu/{rank}" in states:
        torch.set_rng_state(states[f"cpu/{rank}"])
    if objective.device.type == "cuda" and f"cuda/{rank}" in states:
        torch.cuda.set_rng_state(states[f"cuda/{rank}"], objective.device)
