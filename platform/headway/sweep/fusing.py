"""Whether a sweep's trials are trained together, as rows of one array, or each in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headway.config.errors import UserError

if TYPE_CHECKING:
    from headway.config.contracts import Data
    from headway.recipe import Recipe
    from headway.sweep.check import Plan

MOST_SEATS = 64
_PROCESS_START_S = 4.0
"""What a process takes to import torch, Lightning and Ray."""


@dataclass(frozen=True)
class Choice:
    """How trials are trained."""

    seats: int | None
    """Rows of an array; None for a process each."""
    reason: str
    """One line for a person."""
    arrays: int = 0
    """Arrays in processes of their own; 0 for one in this process."""


def why_not_fused(variants: list[Recipe], data: Data) -> str | None:
    """Returns why trials cannot be rows of one array; None where they can.

    Args:
        variants: recipes at the ends of the space.
        data: of the first.
    """
    from headway.fused.fusing import stack_key, why_not

    for variant in variants:
        if variant.data.model_dump(exclude={"seed"}) != variants[0].data.model_dump(exclude={"seed"}):
            return "the space changes the data"
        reason = why_not(variant, data)
        if reason is not None:
            return reason
    keys = {stack_key(variant, data) for variant in variants}
    return None if len(keys) == 1 else "the space changes shapes, the loss or the kind of update"


def choose(plan: Plan, *, processes: int, num_gpus: int = 0, here: bool = True) -> Choice:
    """Returns how to train a sweep's trials, by what was asked for, what is possible, and what is faster.

    Args:
        plan: the sweep.
        processes: how many trials would run at a time otherwise.
        num_gpus: how many GPUs there are for trials.
        here: whether trials train on this machine, where steps can be timed.

    Raises:
        UserError: an array was asked for and cannot be.
    """
    fuse = plan.search.fuse
    if fuse == "off":
        return Choice(None, "a process each: sweep.fuse is off")
    reason = plan.not_fusable or _broken_contract()
    if reason is not None:
        if fuse != "auto":
            raise UserError(f"sweep.fuse: {fuse}, but {reason}; set sweep.fuse=off")
        return Choice(None, f"a process each: {reason}")
    arrays = plan.search.arrays or (num_gpus if num_gpus > 1 or not here else 0)
    at_a_time = min(plan.num_trials, plan.search.max_concurrent or MOST_SEATS * max(1, arrays))
    seats = -(-at_a_time // max(1, arrays))
    if fuse != "auto":
        seats = min(seats, fuse) if isinstance(fuse, int) else seats
        where = f"{arrays} arrays, {seats} at a time in each" if arrays else f"an array, {seats} at a time"
        return Choice(seats, f"rows of {where}: sweep.fuse is {fuse}", arrays)
    if not here:
        return Choice(None, "a process each: on a cluster sweep.fuse=on asks for arrays")
    return _faster(plan, seats, processes, arrays)


def _broken_contract() -> str | None:
    from headway.sweep._rows import check_contract

    return check_contract()


def _faster(plan: Plan, seats: int, processes: int, arrays: int) -> Choice:
    from headway.fused.probe import measure_pace

    assert plan.probe is not None
    recipe, data = plan.probe
    pace = measure_pace(recipe, data, {size for size in (2, 8, 24, seats) if size <= seats}, apart=processes)
    size = pace.best_size
    a_row = pace.together[size] / size
    apart = _PROCESS_START_S + plan.num_trials * plan.total_steps * pace.alone / processes
    # Several arrays each have a process to start, and share the trials.
    together = plan.num_trials * plan.total_steps * a_row / max(1, arrays) + (_PROCESS_START_S if arrays else 0.0)
    found = (
        f"a step of {size} takes {1e3 * pace.together[size]:.2g} ms together, "
        f"of one {1e3 * pace.alone:.2g} ms alone on one of {processes} cores"
    )
    if together < apart:
        where = f"{arrays} arrays, {size} at a time in each" if arrays else f"an array, {size} at a time"
        return Choice(size, f"rows of {where}: {found}", arrays)
    return Choice(None, f"a process each: {found}")
