"""Where runs, sweeps and jobs stand: what is read from folders and asked of launchers between two frames."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.reading import read_text
from headway.jobs import board
from headway.jobs.records import list_records
from headway.launch.base import ENDED
from headway.run import RunFolder
from headway.sweep.folder import Driver, is_sweep

_TAIL_BYTES = 1 << 16
_RECENT_S = 86400.0
_SHOWN_METRICS = ("train/loss", "val/loss")


@dataclass(frozen=True)
class Standing:
    """One run or sweep, and where it stands."""

    id: str
    is_sweep: bool
    state: str
    """As its status says; died where its process is gone and could not say so."""
    done: int = 0
    """Steps of a run, trials of a sweep."""
    total: int | None = None
    values: dict[str, float] = field(default_factory=dict)
    """The newest of some metrics; of a sweep, its best so far."""
    rate: str = ""
    left_s: float | None = None
    where: str = ""
    updated: float = 0.0
    """Seconds since 1970."""
    reason: str = ""

    @property
    def is_active(self) -> bool:
        """Returns whether it goes on."""
        return self.state in ("running", "created")


class Watch:
    """Looks at a folder of runs again and again; what has not changed is not read again.

    Args:
        runs: the folder.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._statuses: dict[str, tuple[int, dict[str, Any]]] = {}
        self._totals: dict[str, int | None] = {}

    def standings(self) -> list[Standing]:
        """Returns what goes on first, then what ended, the newest first. A sweep's trials stand for themselves."""
        found = [self._read(path, status) for path, status in self._changed() if status.get("updated")]
        return sorted(found, key=lambda one: (not one.is_active, -one.updated))

    def _changed(self) -> list[tuple[Path, dict[str, Any]]]:
        """Returns the folders with their status, read anew where the file is another."""
        here: dict[str, tuple[int, dict[str, Any]]] = {}
        try:
            entries = list(os.scandir(self.runs))
        except OSError:
            entries = []
        for entry in entries:
            try:
                stamp = Path(entry.path, "status.json").stat().st_mtime_ns
            except OSError:
                continue
            known = self._statuses.get(entry.name)
            here[entry.name] = (
                known if known is not None and known[0] == stamp else (stamp, RunFolder(Path(entry.path)).status())
            )
        self._statuses = here
        return [(self.runs / name, status) for name, (_, status) in here.items()]

    def _read(self, path: Path, status: dict[str, Any]) -> Standing:
        try:
            return self._standing(path, status)
        except (TypeError, ValueError, AttributeError, OverflowError):
            return Standing(path.name, False, "unreadable", reason="its status.json is none of headway's")

    def _standing(self, path: Path, status: dict[str, Any]) -> Standing:
        sweep = is_sweep(path)
        state, driver = str(status.get("state", "?")), Driver.of(status)
        if state == "running" and driver is not None and driver.is_here and driver.process() is None:
            state = "died"
        shared: dict[str, Any] = {
            "id": path.name, "is_sweep": sweep, "state": state, "where": str(status.get("host", "")),
            "updated": float(status["updated"]), "reason": str(status.get("reason", "")),
        }  # fmt: skip
        best = status.get("best") or {}
        if sweep:
            trials = status.get("trials") or {}
            ended = sum(int(trials.get(name, 0)) for name in ("done", "stopped", "failed"))
            name, value = best.get("metric", status.get("metric")), best.get("value")
            values = {f"best {name}": float(value)} if isinstance(value, int | float) else {}
            return Standing(**shared, done=ended, total=trials.get("total"), values=values)
        step = int(status.get("step") or 0)
        if state not in ("running", "created"):
            final = status.get("final") or {}
            shown = {name: float(final[name]) for name in ("test/loss", "test/accuracy") if name in final}
            return Standing(**shared, done=step, values=shown or _best(best))
        total, newest = self._total(path), newest_values(path / "metrics.jsonl")
        step = max(step, int(newest.get("step", 0)))
        step_time_s = newest.get("perf/step_time_s")
        return Standing(
            **shared,
            done=step,
            total=total,
            values={name: newest[name] for name in _SHOWN_METRICS if name in newest},
            rate=_rate(newest),
            left_s=None if total is None or step_time_s is None else max(0, total - step) * step_time_s,
        )

    def _total(self, path: Path) -> int | None:
        """Returns where a run ends, as its recipe says; None where it counts epochs."""
        if path.name not in self._totals:
            try:
                tree = read_text((path / "recipe.yaml").read_text(), source=str(path))
                steps = tree.get("trainer", {}).get("max_steps")
            except (OSError, UserError, AttributeError):
                return None
            self._totals[path.name] = steps if isinstance(steps, int) else None
        return self._totals[path.name]


def newest_values(path: Path) -> dict[str, float]:
    """Returns the newest value of each metric among a file's last rows; a torn line is passed over."""
    newest: dict[str, float] = {}
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return newest
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            newest |= {name: value for name, value in row.items() if isinstance(value, int | float)}
    return newest


@dataclass(frozen=True)
class Jobs:
    """What launchers say."""

    tasks: Sequence[board.Task] = ()
    problem: str = ""
    asked: float = 0.0
    """When, in seconds since 1970."""


def look_at_jobs(runs: Path) -> Jobs:
    """Returns the jobs that go on or ended within a day, newest first."""
    since = time.time() - _RECENT_S
    records = [
        record
        for record in list_records(runs)
        if record.submitted > since or not (seen := record.seen()) or any(one.state not in ENDED for one in seen)
    ]
    try:
        return Jobs(board.look(records), asked=time.time())
    except (UserError, OSError) as error:
        return Jobs(problem=str(error), asked=time.time())


def _best(best: dict[str, Any]) -> dict[str, float]:
    value = best.get("value")
    return {f"best {best.get('metric')}": float(value)} if isinstance(value, int | float) else {}


def _rate(newest: dict[str, float]) -> str:
    for name, unit in (("perf/tokens_per_s", "tok/s"), ("perf/samples_per_s", "samples/s")):
        if name in newest:
            return f"{newest[name]:,.0f} {unit}"
    return ""
