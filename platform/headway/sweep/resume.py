"""`headway sweep --resume`: what a sweep was, and what had happened in it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.overrides import parse_assignments
from headway.run import RunFolder
from headway.sweep.check import Plan, check_sweep
from headway.sweep.copies import copy_of, read_either
from headway.sweep.journal import Event, read_journal
from headway.sweep.ledger import write_plan

_MAY_CHANGE = ("sweep.trials", "sweep.max_concurrent", "sweep.fuse", "sweep.gpus_per_trial", "sweep.retries")


@dataclass(frozen=True)
class Remembered:
    """A sweep, and where it stands."""

    folder: RunFolder
    plan: Plan
    past: tuple[Event, ...]


def remember(
    runs: Path, sweep: str, overrides: Iterable[str] | Mapping[str, Any], *, trust: Collection[str]
) -> Remembered:
    """Returns a sweep to go on with.

    Args:
        runs: the folder of run folders.
        sweep: id or path of the sweep's folder.
        overrides: changes that leave its trials meaning the same, such as more of them.
        trust: modules outside headway that the recipe may name.

    Raises:
        UserError: there is no such sweep, or a change would make it another.
    """
    folder = _find(runs, sweep)
    changes = dict(overrides) if isinstance(overrides, Mapping) else parse_assignments(overrides)
    for path in changes:
        if path not in _MAY_CHANGE:
            raise UserError(
                f"{path}: a sweep goes on with the recipe that it has; only {', '.join(_MAY_CHANGE)} may change"
            )
    asked, damaged = read_either(folder.path, "plan.json")
    plan = check_sweep(asked["tree"], changes, trust={*asked.get("trust", ()), *trust})
    plan = replace(plan, command=tuple(asked.get("command", ())))
    events, problems = read_journal(folder.path / "journal.jsonl")
    for problem in [damaged, *problems] if damaged else problems:
        print(f"headway: {problem}", file=sys.stderr)  # noqa: T201
    proposed = sum(event.kind == "propose" for event in events)
    if plan.num_trials < proposed:
        raise UserError(f"sweep.trials: {plan.num_trials}, but {proposed} have been proposed already; raise it")
    write_plan(folder, plan)
    return Remembered(folder, plan, tuple(events))


def _find(runs: Path, sweep: str) -> RunFolder:
    for path in (Path(sweep), runs / sweep):
        if any((path / name).is_file() for name in ("plan.json", copy_of("plan.json"))):
            folder = RunFolder(path.resolve())
            if "tree" not in read_either(folder.path, "plan.json")[0]:
                raise UserError(f"--resume: {folder.path / 'plan.json'} is damaged; start a new sweep with the recipe")
            return folder
    raise UserError(f"--resume: there is no sweep {sweep!r} in {runs}/; `headway sweeps` lists them")
