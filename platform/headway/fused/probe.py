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


def measure_pace(recipe: Recipe, data: Data, sizes: Iterable[int]) -> Pace:
    """Returns how long steps take. Nothing is written.

    Args:
        recipe: one that can be a row.
        data: the recipe's.
        sizes: numbers of rows to try.
    """
    place = Place(device=choose_device(recipe.trainer))
    sizes = sorted(set(sizes))
    before = torch.get_num_threads()
    data = keep_splits(data)
    objectives = [build_objective(recipe, data, place, for_trainer=False)[0].train() for _ in range(sizes[-1])]
    try:
        torch.set_num_threads(recipe.trainer.threads or 1)
        alone = _time(lambda steps: _train_alone(objectives[0], steps))
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        together = {}
        for size in sizes:
            for objective in objectives:
                objective.step = 0
            optimizers = [objective.configure_optimizers() for objective in objectives[:size]]
            together[size] = _time(Stack(objectives[:size], optimizers).make_steps)
    finally:
        torch.set_num_threads(before)
    return Pace(alone, together)


def _time(make_steps: Callable[[int], object]) -> float:
    """Returns the seconds of a step."""
    make_steps(2)
    num_steps, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _SECONDS or num_steps == 0:
        make_steps(2)
        num_steps += 2
    return elapsed / num_steps


def _train_alone(objective: Objective, num_steps: int) -> None:
    """Makes steps as a run of its own does."""
    optimizer = objective.configure_optimizers()
    for step in range(num_steps):
        share = objective.train_feed.share(step)
        (micro,) = share.micro_batches
        draws = Draws(objective.schedule.seed, step, 0, micro.num_rows, device=objective.device)
        outcome = objective.outcome(objective.net, micro.batch, None, draws)
        (outcome.loss_sum / outcome.counted).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
