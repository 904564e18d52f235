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


def choose(plan: Plan, *, processes: int) -> Choice:
    """Returns how to train a sweep's trials, by what was asked for, what is possible, and what is faster.

    Args:
        plan: the sweep.
        processes: how many trials would run at a time otherwise.

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
    seats = min(plan.num_trials, plan.search.max_concurrent or MOST_SEATS)
    if fuse != "auto":
        seats = min(plan.num_trials, fuse) if isinstance(fuse, int) else seats
        return Choice(seats, f"rows of an array, {seats} at a time: sweep.fuse is {fuse}")
    return _faster(plan, seats, processes)


def _broken_contract() -> str | None:
    from headway.sweep._rows import check_contract

    return check_contract()


def _faster(plan: Plan, seats: int, processes: int) -> Choice:
    from headway.fused.probe import measure_pace

    assert plan.probe is not None
    recipe, data = plan.probe
    pace = measure_pace(recipe, data, {size for size in (8, 24, seats) if size <= seats})
    size = pace.best_size
    a_row = pace.together[size] / size
    apart = _PROCESS_START_S + plan.num_trials * plan.total_steps * pace.alone / processes
    together = plan.num_trials * plan.total_steps * a_row
    found = (
        f"a step of {size} takes {1e3 * pace.together[size]:.2g} ms together, "
        f"of one {1e3 * pace.alone:.2g} ms alone on one of {processes} cores"
    )
    if together < apart:
        return Choice(size, f"rows of an array, {size} at a time: {found}")
    return Choice(None, f"a process each: {found}")
