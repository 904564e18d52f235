"""What a sweep's page shows: trials, what mattered, the rungs that stopped some, whose weights went where, the best.

Sweeps' folders are opened by `headway.sweep`, as `headway sweeps` does; only what it does not tell is read here:
the times in the journal, and the trials' lineage.
"""

from __future__ import annotations

import json
import math
import os
import stat
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.space import POPULATIONS, Distribution, SweepSection
from headway.dash.entries import MAX_RECIPE_BYTES
from headway.dash.files import Outside, folder_below, read_below
from headway.dash.recipes import read_config
from headway.dash.runs import Runs
from headway.sweep.copies import copy_of
from headway.sweep.folder import SweepFolder
from headway.sweep.importance import measure_importance, scale_of
from headway.sweep.result import Trial

MAX_JOURNAL_BYTES = 256 << 20
ANSWERS_WITHIN_S = 1.5
_STATE = ("status.json", "plan.json")
_FILES = ("sweep.yaml", "trials.jsonl", "journal.jsonl", *_STATE, *map(copy_of, _STATE))
_OF_A_TRIAL = ("recipe.yaml", "status.json", "metrics.jsonl", "lineage.jsonl")
Event = dict[str, Any]


class Sweeps:
    """The sweeps of a runs folder.

    Args:
        runs: the table, which knows which folders are sweeps'.
    """

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, tuple[Any, dict[str, Any]]] = OrderedDict()
        self._importance: OrderedDict[str, tuple[Any, Future[dict[str, Any]]]] = OrderedDict()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="importance")

    def close(self) -> None:
        """Ends what is still being worked out."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def listed(self) -> list[dict[str, Any]]:
        """Returns every sweep, newest first."""
        found = []
        for name in self.runs.sweep_names():
            try:
                found.append(_line(self._folder(name)))
            except (OSError, UserError, ValueError) as error:
                found.append({**_BLANK, "id": name, "state": "unreadable", "reason": str(error)})
        return sorted(found, key=lambda sweep: -(sweep["started"] or 0.0))

    def find(self, sweep_id: str) -> SweepFolder:
        """Returns a sweep's folder.

        Raises:
            FileNotFoundError: there is none of that id.
            UserError: a part of it is a link.
        """
        if sweep_id not in self.runs.sweep_names():
            raise FileNotFoundError(f"{sweep_id}: no sweep of that name")
        return self._folder(sweep_id)

    def page(self, sweep_id: str, *, wait: bool = False) -> dict[str, Any]:
        """Returns what a sweep's page shows; with `wait` not before it is known what mattered.

        Raises:
            FileNotFoundError: there is none of that id.
            UserError: its sweep.yaml cannot be read.
        """
        folder = self.find(sweep_id)
        stamp = _stamp(folder)
        known = self._pages.get(sweep_id)
        if known is None or known[0] != stamp or known[1]["state"] == "running":
            self._check_trials(folder)
            known = (stamp, _page(folder))
            with self._lock:
                self._pages[sweep_id] = known
                while len(self._pages) > 32:
                    self._pages.popitem(last=False)
        page = {key: value for key, value in known[1].items() if not key.startswith("_")}
        return {**page, **self._what_mattered(sweep_id, known[1], wait=wait)}

    def _folder(self, name: str) -> SweepFolder:
        _check_plain(self.runs.root, name, _FILES)
        return SweepFolder(self.runs.root / name)

    def _check_trials(self, folder: SweepFolder) -> None:
        """Raises a UserError where a trial, or what is read of it, is a link."""
        for run in folder.run_folders().values():
            _check_plain(self.runs.root, run.id, _OF_A_TRIAL)

    def _what_mattered(self, sweep_id: str, page: dict[str, Any], *, wait: bool) -> dict[str, Any]:
        """Returns the importance of the hyperparameters; of many trials it takes seconds, so it may come later."""
        trials: list[Trial] = page["_trials"]
        stamp = [(trial.run_id, trial.status, trial.value) for trial in trials if trial.status != "running"]
        with self._lock:
            known = self._importance.get(sweep_id)
            if known is None or known[0] != stamp:
                space: dict[str, Distribution] = page["_space"]
                future = self._pool.submit(_importance, trials, space, page["mode"])
                known = self._importance[sweep_id] = (stamp, future)
                while len(self._importance) > 32:
                    self._importance.popitem(last=False)
        try:
            return known[1].result(timeout=None if wait else ANSWERS_WITHIN_S)
        except NotYet:
            return {"importance": None, "reason": "is being worked out; look again in some seconds", "pending": True}


_BLANK: dict[str, Any] = dict.fromkeys(
    (
        "id", "state", "started", "trials", "done", "running", "stopped", "failed", "best", "metric", "searcher",
        "scheduler",
    )
)  # fmt: skip


def _line(folder: SweepFolder) -> dict[str, Any]:
    """Returns a sweep's line in the list."""
    status = folder.status()
    counts = status.get("trials") if isinstance(status.get("trials"), dict) else {}
    best = status.get("best") if isinstance(status.get("best"), dict) else {}
    text = read_below(folder.path.parent, folder.id, "sweep.yaml", limit=MAX_RECIPE_BYTES).decode("utf-8", "replace")
    config = read_config(text, source="sweep.yaml")
    scheduler = config.get("sweep.scheduler.kind") or config.get("sweep.scheduler")
    return {
        **_BLANK,
        "id": folder.id,
        "state": folder.state(),
        "started": folder.started,
        "trials": (counts or {}).get("total"),
        **{name: (counts or {}).get(name) for name in ("done", "running", "stopped", "failed")},
        "best": (best or {}).get("value"),
        "best_run": (best or {}).get("run_id"),
        "recipe": status.get("recipe"),
        "metric": status.get("metric"),
        "mode": status.get("mode"),
        "reason": status.get("reason"),
        "searcher": config.get("sweep.searcher"),
        "scheduler": scheduler if isinstance(scheduler, str) else None,
    }


def _page(folder: SweepFolder) -> dict[str, Any]:
    section, status = folder.section(), folder.status()
    trials = folder.trials()
    events = _events(folder)
    mode = str(status.get("mode", section.mode))
    shown = [_trial(trial, events) for trial in trials]
    rungs = _rungs(section, shown, events)
    for trial in shown:
        trial["rung"] = sum(trial["number"] in rung["reached"] for rung in rungs) if rungs else None
    return {
        "id": folder.id,
        "state": folder.state(),
        "started": folder.started,
        "section": section.model_dump(mode="json"),
        "status": status,
        "metric": str(status.get("metric", section.metric)),
        "mode": mode,
        "axes": [_axis(path, drawn) for path, drawn in section.space.items()],
        "trials": shown,
        "rungs": rungs,
        "lineage": _lineage(folder, trials) if section.scheduler.kind in POPULATIONS else [],
        "best_over_time": _best_over_time(events, mode),
        "_trials": trials,
        "_space": section.space,
    }


def _importance(trials: list[Trial], space: dict[str, Distribution], mode: str) -> dict[str, Any]:
    found = measure_importance(trials, space, mode=mode).as_dict()
    return {"importance": found["importance"] or None, "reason": found["reason"]}


def _axis(path: str, drawn: Distribution) -> dict[str, Any]:
    scale = scale_of(drawn)
    whole = drawn.way in ("randint", "lograndint")
    return {
        "path": path,
        "kind": "choice" if scale == "choice" else "int" if whole else "float",
        "log": scale == "log",
        "choices": drawn.values,
    }


def _trial(trial: Trial, events: dict[int, list[Event]]) -> dict[str, Any]:
    number = _number_of(trial.run_id)
    own = events.get(number, [])
    starts = [event["time"] for event in own if event["kind"] == "start"]
    ends = [event["time"] for event in own if event["kind"] == "end"]
    reports = [event["step"] for event in own if event["kind"] == "report" and isinstance(event.get("step"), int)]
    value = trial.value
    return {
        "number": number,
        "run": trial.run_id,
        "state": trial.status,
        "reason": trial.reason,
        "values": trial.config,
        "result": value if value is not None and math.isfinite(value) else None,
        "best_step": trial.step,
        "steps": max(reports, default=trial.step),
        "started": min(starts, default=None),
        "ended": max(ends, default=None) if trial.status != "running" else None,
        "rung": None,
    }


def _number_of(run_id: str) -> int:
    tail = run_id.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def _rungs(section: SweepSection, trials: list[dict[str, Any]], events: dict[int, list[Event]]) -> list[dict[str, Any]]:
    """Returns the rungs of asha and hyperband: who reached each, and who was stopped there.

    Levels are the grace period times powers of the reduction; without one, the first validation is the grace period,
    which is what the sweep uses.
    """
    scheduler = section.scheduler
    if scheduler.kind not in ("asha", "hyperband"):
        return []
    reports = [event["step"] for own in events.values() for event in own if event["kind"] == "report"]
    steps = [step for step in reports if isinstance(step, int) and step > 0]
    if not steps:
        return []
    level, levels = scheduler.grace_steps or min(steps), []
    while level <= max(steps):
        levels.append(level)
        level *= scheduler.reduction
    found = []
    for place, level in enumerate(levels):
        above = levels[place + 1] if place + 1 < len(levels) else math.inf
        reached = [trial for trial in trials if (trial["steps"] or 0) >= level]
        stopped = [trial for trial in reached if trial["state"] == "stopped" and (trial["steps"] or 0) < above]
        found.append(
            {
                "step": level,
                "reached": [trial["number"] for trial in reached],
                "stopped": [trial["number"] for trial in stopped],
            }
        )
    return found


def _lineage(folder: SweepFolder, trials: list[Trial]) -> list[dict[str, Any]]:
    """Returns who took whose weights, and went on with what."""
    found: list[dict[str, Any]] = [
        {
            "step": row.get("step"),
            "time": row.get("time"),
            "taker": _number_of(trial.run_id),
            "giver": _number_of(row["from"]),
            "settings": row.get("config") if isinstance(row.get("config"), dict) else {},
        }
        for trial in trials
        for row in _rows(folder.path.parent, trial.run_id, "lineage.jsonl")
        if isinstance(row.get("from"), str)
    ]
    return sorted(found, key=lambda one: (one["step"] or 0, one["time"] or 0.0))


def _best_over_time(events: dict[int, list[Event]], mode: str) -> list[dict[str, Any]]:
    reports = [
        event
        for own in events.values()
        for event in own
        if event["kind"] == "report" and isinstance(event.get("value"), int | float) and math.isfinite(event["value"])
    ]
    found: list[dict[str, Any]] = []
    for event in sorted(reports, key=lambda one: one["time"]):
        value = event["value"]
        if not found or (value < found[-1]["value"] if mode == "min" else value > found[-1]["value"]):
            found.append({"time": event["time"], "number": event["number"], "value": value})
    return found


def _events(folder: SweepFolder) -> dict[int, list[Event]]:
    """Returns the journal's events by trial, with their times."""
    found: dict[int, list[Event]] = {}
    for row in _rows(folder.path.parent, folder.id, "journal.jsonl"):
        if isinstance(row.get("number"), int) and isinstance(row.get("kind"), str):
            found.setdefault(row["number"], []).append({**row, "time": _time(row)})
    return found


def _time(row: Event) -> float:
    time = row.get("time")
    return float(time) if isinstance(time, int | float) else 0.0


def _rows(root: Path, *parts: str) -> list[Event]:
    try:
        content = read_below(root, *parts, limit=MAX_JOURNAL_BYTES)
    except OSError:
        return []
    rows = []
    for line in content.split(b"\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _stamp(folder: SweepFolder) -> tuple[Any, ...]:
    """Returns what differs when the sweep's files do."""
    found = []
    for name in _FILES:
        try:
            info = (folder.path / name).lstat()
            found.append((info.st_mtime_ns, info.st_size))
        except OSError:
            found.append((0, 0))
    return tuple(found)


def _check_plain(root: Path, name: str, files: tuple[str, ...]) -> None:
    """Raises a UserError where a file that others read by its path is a link: it might lead anywhere."""
    try:
        with folder_below(root, name) as folder:
            for file in files:
                try:
                    info = os.stat(file, dir_fd=folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if not stat.S_ISREG(info.st_mode):
                    raise UserError(f"{name}/{file}: is no plain file; links are not followed")
    except Outside as error:
        raise UserError(f"{name}: {error}") from None
