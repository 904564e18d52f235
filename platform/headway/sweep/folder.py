"""Opens the folders that sweeps leave: what was searched, how each trial stands, whether the sweep still runs.

A trial that has ended has a row in trials.jsonl; where it has two, it was gone on with, and the later counts.
One that runs has none yet, and is read from its own run folder. Imports neither Ray nor torch.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from headway.config.errors import UserError, suggestion
from headway.config.reading import read_text
from headway.config.space import SweepSection
from headway.run import RunFolder, read_metrics
from headway.sweep.copies import read_either
from headway.sweep.result import Status, SweepResult, Trial, best_trial, command_again, outcome_of

_RECIPE = "sweep.yaml"


@dataclass(frozen=True)
class SweepFolder:
    """One sweep's folder, with the run folders of its trials beside it."""

    path: Path

    @property
    def id(self) -> str:
        """Returns the sweep's id: the folder's name."""
        return self.path.name

    @property
    def started(self) -> float:
        """Returns when it started, in seconds since 1970."""
        return (self.path / _RECIPE).stat().st_mtime

    def status(self) -> dict[str, Any]:
        """Returns status.json."""
        return read_either(self.path, "status.json")[0]

    def problems(self) -> list[str]:
        """Returns a line for a person for each state file that is damaged."""
        return [said for name in ("plan.json", "status.json") if (said := read_either(self.path, name)[1])]

    def state(self) -> str:
        """Returns running, done, stopped or failed; died where its process is gone and could not say so."""
        status = self.status()
        gone = (driver := Driver.of(status)) is not None and driver.is_here and driver.process() is None
        return "died" if status.get("state") == "running" and gone else str(status.get("state", "?"))

    def section(self) -> SweepSection:
        """Returns what was searched: as plan.json has it, or the recipe, where the plan says nothing of it.

        Raises:
            UserError: neither has a sweep section, or one of another version of headway.
        """
        path = self.path / _RECIPE
        asked, _ = read_either(self.path, "plan.json")
        try:
            written = asked.get("sweep") or read_text(path.read_text(), source=str(path))["sweep"]
            return SweepSection.model_validate(written)
        except (OSError, KeyError, TypeError, ValidationError) as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
            raise UserError(f"{path}: its sweep section cannot be read ({problem}); was it edited?") from None

    def run_folders(self) -> dict[int, RunFolder]:
        """Returns the trials' run folders by their numbers."""
        pattern = re.compile(re.escape(self.id) + r"-(\d{4,})")
        matches = ((pattern.fullmatch(path.name), path) for path in self.path.parent.iterdir() if path.is_dir())
        # A folder of that name may be a sweep of its own: `digits` and `digits-2024`.
        found = {int(match[1]): RunFolder(path) for match, path in matches if match and not is_sweep(path)}
        return dict(sorted(found.items()))

    def trials(self) -> list[Trial]:
        """Returns the trials that started, in the order they were proposed."""
        runs = self.run_folders()
        found = {number: _ended(row, runs.get(number)) for number, row in self._rows().items()}
        missing = {number: run for number, run in runs.items() if number not in found}
        if missing:
            section, runs_on = self.section(), self.state() == "running"
            for number, run in missing.items():
                found[number] = _unended(run, section, runs_on=runs_on)
        return [trial for _, trial in sorted(found.items())]

    def result(self) -> SweepResult:
        """Returns what the sweep has come to so far."""
        status, trials, section = self.status(), self.trials(), self.section()
        metric, mode = section.metric, section.mode
        best = best_trial(trials, mode)
        return SweepResult(
            sweep_id=self.id,
            sweep_dir=str(self.path),
            metric=metric,
            mode=mode,
            trials=trials,
            best=best,
            command=None if best is None else self._command(best, section),
            wall_s=round(status.get("updated", self.started) - self.started, 3),
        )

    def _command(self, best: Trial, section: SweepSection) -> str:
        asked, _ = read_either(self.path, "plan.json")
        return command_again(section, tuple(asked.get("command", ())), best, asked.get("fixed", {}))

    def _rows(self) -> dict[int, dict[str, Any]]:
        rows = read_metrics(self.path / "trials.jsonl")
        return {row["trial"]: row for row in rows if isinstance(row.get("trial"), int) and "status" in row}


def is_sweep(path: Path) -> bool:
    """Returns whether a folder is a sweep's."""
    return (path / _RECIPE).is_file()


def find_sweep(runs: Path, id_or_path: str) -> SweepFolder:
    """Returns an existing sweep.

    Raises:
        UserError: there is none.
    """
    for path in (Path(id_or_path), runs / id_or_path):
        if is_sweep(path):
            return SweepFolder(path.resolve())
    hint = suggestion(id_or_path, [sweep.id for sweep in list_sweeps(runs)])
    near = hint if "did you mean" in hint else "; `headway sweeps` lists them"
    raise UserError(f"{id_or_path}: no sweep of that name in {runs}/{near}")


def list_sweeps(runs: Path) -> list[SweepFolder]:
    """Returns every sweep in a folder, newest first."""
    if not runs.is_dir():
        return []
    found = [SweepFolder(path.resolve()) for path in runs.iterdir() if is_sweep(path)]
    return sorted(found, key=lambda sweep: sweep.started, reverse=True)


@dataclass(frozen=True)
class Driver:
    """The process that runs a sweep, as its status.json names it."""

    pid: int
    host: str
    updated: float
    """When it last wrote, in seconds since 1970."""

    @classmethod
    def of(cls, status: Mapping[str, Any]) -> Driver | None:
        """Returns the driver; None where the status names none, or no number that a process can have."""
        pid, updated = status.get("pid"), status.get("updated", 0.0)
        if type(pid) is not int or not 0 < pid < 1 << 31 or not isinstance(updated, int | float):
            return None
        return cls(pid, str(status.get("host", "")), float(updated))

    @property
    def is_here(self) -> bool:
        """Returns whether it is on this machine."""
        return self.host == socket.gethostname()

    def process(self) -> psutil.Process | None:
        """Returns the process; None where it has ended, or its number is another's by now."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > self.updated:
                return None
        except psutil.NoSuchProcess:
            return None
        return process


def _ended(row: Mapping[str, Any], run: RunFolder | None) -> Trial:
    """Returns a trial as its row has it."""
    values: dict[str, Any] = {field.name: row.get(field.name) for field in fields(Trial)}
    if run is not None:
        # The folder may have been copied since: from a cluster, say.
        values["run_dir"] = str(run.path)
    return Trial(**{**values, "config": row.get("config") or {}})


def _unended(run: RunFolder, section: SweepSection, *, runs_on: bool) -> Trial:
    """Returns a trial that has no row yet, from its run folder."""
    tree = read_text(run.recipe.read_text(), source=str(run.recipe)) if run.recipe.is_file() else {}
    config = {path: value for path in section.space for value in values_at(tree, path)}
    sign = 1.0 if section.mode == "min" else -1.0
    rows = [row for row in read_metrics(run.metrics) if row.get(section.metric) is not None]
    best = min(rows, key=lambda row: sign * row[section.metric], default=None)
    value, step = (None, None) if best is None else (float(best[section.metric]), int(best["step"]))
    said, reason = outcome_of(run)
    state: Status = said or ("running" if runs_on else "failed")
    if said is None and not runs_on:
        reason = "its sweep's process ended"
    return Trial(run.id, str(run.path), state, config, value, step, reason)


def values_at(tree: Any, path: str) -> Iterable[Any]:
    """Yields the value at a dotted path of a recipe, where it has one."""
    for part in path.split("."):
        if not isinstance(tree, dict) or part not in tree:
            return
        tree = tree[part]
    yield tree
