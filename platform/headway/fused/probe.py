"""Times a few steps of a recipe alone and in stacks of several sizes: what is faster depends on net and machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from headway.config.contracts import Data, Place
from headway.fused.fit import keep_splits
from headway.fused.loop import RowState
from headway.fused.stack import Stack
from headway.nn.draws import Draws
from headway.objectives.base import Objective
from headway.supervise.place import choose_device
from headway.training import build_objective

if TYPE_CHECKING:
    from headway.recipe import Recipe

_SECONDS = 0.15
"""How long each way is tried, once it is warm."""


@dataclass(frozen=True)
class Pace:
    """Seconds of an optimizer step."""

    alone: float
    """Of one run, on one thread."""
    together: dict[int, float]
    """Of a stack by its number of rows, on every core."""

    @property
    def best_size(self) -> int:
        """Returns the number of rows that costs a row least."""
        return min(self.together, key=lambda size: self.together[size] / size)


def measure_pace(recipe: Recipe, data: Data, sizes: Iterable[int], *, apart: int) -> Pace:
    """Returns how long steps take. Nothing is written.

    Args:
        recipe: one that can be a row.
        data: the recipe's.
        sizes: numbers of rows to try; larger ones are left out where they cannot win.
        apart: how many rows would train at a time in processes of their own.
    """
    place = Place(device=choose_device(recipe.trainer))
    sizes = sorted(set(sizes))
    before = torch.get_num_threads()
    data = keep_splits(data)

    def build() -> Objective:
        return build_objective(recipe, data, place, for_trainer=False)[0].train()

    objectives = [build()]
    try:
        torch.set_num_threads(recipe.trainer.threads or 1)
        alone = _time(_Alone(objectives[0]).make_steps)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        together: dict[int, float] = {}
        for size in sizes:
            if _is_hopeless(together, alone / apart):
                break
            objectives += [build() for _ in range(size - len(objectives))]
            for objective in objectives:
                objective.step = 0
            together[size] = _time(Stack(objectives[:size], [RowState() for _ in range(size)]).make_steps)
    finally:
        torch.set_num_threads(before)
    return Pace(alone, together)


def _is_hopeless(together: dict[int, float], apart: float) -> bool:
    """Returns whether one more row already costs a step more than a row on its own, so that larger stacks lose, too.

    Args:
        together: seconds of a step by the number of rows, of those that were timed.
        apart: seconds of a row's step where rows share the machine in processes of their own.
    """
    if len(together) < 2:
        return False
    (fewer, before), (more, after) = sorted(together.items())[-2:]
    return (after - before) / (more - fewer) > apart


def _time(make_steps: Callable[[int], object]) -> float:
    """Returns the seconds of a step."""
    make_steps(1)
    num_steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _SECONDS:
        make_steps(1)
        num_steps += 1
    return elapsed / num_steps


class _Alone:
    """A run of its own: its forward and backward, and the update of one row, as torch's optimizers import a compiler.

    Args:
        objective: the run's.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._stack = Stack([objective], [RowState()])
        self._weights = dict(objective.net.named_parameters())

    def make_steps(self, num_steps: int) -> None:
        """Makes steps."""
        objective, stack = self._objective, self._stack
        stack.prepare(num_steps)
        for ahead in range(num_steps):
            (micro,) = objective.train_feed.share(objective.step).micro_batches
            draws = Draws(objective.schedule.seed, objective.step, 0, micro.num_rows, device=objective.device)
            outcome = objective.outcome(objective.net, micro.batch, None, draws)
            (outcome.loss_sum / outcome.counted).backward()  # type: ignore[no-untyped-call]
            for place, own in zip(stack.places, stack.gradients, strict=True):
                weight = self._weights[place.name]
                assert weight.grad is not None
                own[0].copy_(weight.grad)
                weight.grad = None
            stack.update(ahead)
            objective.step += 1
