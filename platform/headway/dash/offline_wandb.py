"""Runs that Weights & Biases' SDK wrote offline, here or elsewhere, as rows and curves among the others.

They are read once, when the dashboard starts: a folder of offline runs is an archive. A run that was resumed has
several files, which are put together in the order of their steps.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.columns import Columns
from headway.config.errors import UserError
from headway.dash.entries import Entry, wandb_row
from headway.dash.histograms import FIELDS, TYPE, Histogram, histogram_of, spread
from headway.dash.recipes import Config, shared_config
from headway.dash.run_page import medium_kind
from headway.wandb_file import OfflineRun, read_offline_run

_STILL_WRITTEN_S = 120.0
_GROUPLESS = "wandb"
_FILES = "files"
LOG_NAME = "output.log"
_HEADLINES = (
    "val/loss", "val_loss", "eval/loss", "eval_loss", "valid/loss", "valid_loss", "validation/loss", "validation_loss",
    "test/loss", "test_loss", "loss", "train/loss", "train_loss",
)  # fmt: skip
"""Metrics of which the first that a run has stands for it in the table."""
_NO_NAME = re.compile(r"[\x00-\x1f\x7f/\\,]")
"""What an id here may not have: it is part of addresses, of lists of runs, and of an export's file names."""


@dataclass
class _Found:
    """A run, from all of its files."""

    parts: list[tuple[Path, OfflineRun]]
    media: list[dict[str, Any]] = field(default_factory=list)
    """Pictures and tables that were logged: name, step, kind, and path below `files/`."""
    histograms: list[str] = field(default_factory=list)
    """Names of those that were logged; their numbers stay in the file until they are asked for."""

    @property
    def newest(self) -> OfflineRun:
        """Returns what the last file says."""
        return self.parts[-1][1]


class OfflineRuns:
    """The runs in a folder of offline runs.

    Args:
        folder: holds `offline-run-*` folders, at any depth.

    Raises:
        UserError: there is no such folder, or no run in it.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"--wandb: {folder} is no folder; name one that holds offline-run-* folders")
        self._runs: dict[str, _Found] = {}
        self.problems: list[str] = []
        for path in sorted(path for path in folder.rglob("run-*.wandb") if path.is_file() and not path.is_symlink()):
            try:
                run = read_offline_run(path)
            except UserError as error:
                self.problems.append(str(error))
                continue
            self._runs.setdefault(_run_id(run, path), _Found([])).parts.append((path, run))
        for found in self._runs.values():
            found.parts.sort(key=lambda part: part[1].started)
            found.media = _media(found)
            found.histograms = _take_histograms_out(found)
        if not self._runs and not self.problems:
            raise UserError(f"--wandb: {folder} holds no run-*.wandb; name a folder of offline runs")
        self._columns: dict[str, Columns] = {}
        self._lock = threading.Lock()
        self._newest_histograms: tuple[str, dict[str, list[Histogram]]] = ("", {})
        """Those of the run that was asked for last: its page asks for one name after the other."""

    def entries(self) -> list[Entry]:
        """Returns the runs as rows of the table."""
        return [_entry(run_id, found) for run_id, found in self._runs.items()]

    def columns(self, entry: Entry) -> Columns | None:
        """Returns a run's metrics; None where it is none of these."""
        found = self._runs.get(entry.id)
        if found is None:
            return None
        if entry.id not in self._columns:
            rows = [row for _, run in found.parts for row in _rows(run)]
            self._columns[entry.id] = Columns.of(rows)
            for _, run in found.parts:
                run.rows, run.system = [], []
        return self._columns[entry.id]

    def source(self, entry: Entry) -> dict[str, Any] | None:
        """Returns what a run's page shows in the manifest's place; None where it is none of these."""
        found = self._runs.get(entry.id)
        if found is None:
            return None
        run = found.newest
        summary = _numbers_and_words(run.summary)
        told = {
            "files": [str(path) for path, _ in found.parts],
            "name": run.name,
            "project": run.project,
            "entity": run.entity,
            "group": run.group,
            "job_type": run.job_type,
            "notes": run.notes,
            "host": run.host,
            "exit_code": run.exit_code,
            "summary": {name: value for name, value in summary.items() if not name.startswith("_")},
        }
        return {name: value for name, value in told.items() if value not in ("", None, {})}

    def files(self, entry: Entry) -> dict[str, Any]:
        """Returns what a run's page lists of its files: media, histograms, and its printed output as rank 0's log."""
        found = self._runs[entry.id]
        logs = [0] if self.log_folder(entry) is not None else []
        return {"media": found.media, "histograms": found.histograms, "logs": logs}

    def histogram(self, entry: Entry, name: str, *, points: int) -> dict[str, Any]:
        """Returns how a run's values of a name were spread: {name, steps, edges, shares}.

        Args:
            entry: the run.
            name: one of its histograms.
            points: at most so many steps.

        Raises:
            FileNotFoundError: the run logged no such histogram.
            UserError: its file cannot be read any more.
        """
        found = self._runs[entry.id]
        if name not in found.histograms:
            raise FileNotFoundError(f"{entry.id}: has logged no histogram {name[:200]}")
        with self._lock:
            if self._newest_histograms[0] != entry.id:
                self._newest_histograms = (entry.id, _read_histograms(path for path, _ in found.parts))
            histograms = self._newest_histograms[1].get(name, [])
        return {"name": name, **spread(histograms, points=points)}

    def log_folder(self, entry: Entry) -> Path | None:
        """Returns the newest folder that holds what the run printed; None where it printed nothing."""
        folders = [path.parent / _FILES for path, _ in reversed(self._runs[entry.id].parts)]
        return next((folder for folder in folders if (folder / LOG_NAME).is_file()), None)

    def media_folder(self, entry: Entry, path: str) -> Path | None:
        """Returns the folder that a logged picture or table lies in; None where the run logged no such."""
        found = self._runs[entry.id]
        if not any(medium["path"] == path for medium in found.media):
            return None
        folders = [part.parent / _FILES for part, _ in found.parts]
        return next((folder for folder in folders if (folder / path).is_file()), None)


def _run_id(run: OfflineRun, path: Path) -> str:
    """Returns the id that a run has here: W&B's own, without what would make another path or list of it."""
    return "wandb-" + _NO_NAME.sub(lambda found: f"~{ord(found[0]):02X}", run.id or path.stem)


def _entry(run_id: str, found: _Found) -> Entry:
    run, first = found.newest, found.parts[0][1]
    rows = [row for _, part in found.parts for row in part.rows]
    stamps = [row["_timestamp"] for row in rows if isinstance(row.get("_timestamp"), int | float)]
    started = first.started or (stamps[0] if stamps else None)
    updated = max(stamps, default=found.parts[-1][0].stat().st_mtime)
    state, reason = _state(found)
    config = _config(run.config)
    summary = _numbers_and_words(run.summary)
    numbers = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    final = {_metric(name): value for name, value in numbers.items() if not name.startswith("_")}
    metric = next((name for name in map(_metric, _HEADLINES) if name in final), None)
    row = wandb_row(
        run_id,
        title=run.name or None,
        recipe=run.project or None,
        state=state,
        reason=reason,
        strategy=_text(config.get("strategy.kind")),
        where=run.host or None,
        step=max((_step(row) for row in rows), default=None),
        started=started,
        updated=updated,
        duration_s=round(updated - started, 3) if started else None,
        metric=final[metric] if metric else None,
        metric_name=metric,
        tags=list(run.tags),
        sweep=run.sweep or None,
    )
    problems = [f"{path.name}: torn at byte {part.torn_at:,}" for path, part in found.parts if part.torn_at is not None]
    return Entry(run_id, run_id, row, config, final, {}, tuple(problems), has_ended=True)


def _state(found: _Found) -> tuple[str, str | None]:
    run, path = found.newest, found.parts[-1][0]
    if run.exit_code is not None:
        return ("done", None) if run.exit_code == 0 else ("failed", f"exit code {run.exit_code}")
    if time.time() - path.stat().st_mtime < _STILL_WRITTEN_S:
        return "running", None
    return "died", "its file ends without the run's end"


def _config(nested: dict[str, Any]) -> Config:
    found: dict[str, Any] = {}
    waiting: list[tuple[str, Any]] = [("", nested)]
    while waiting:
        prefix, tree = waiting.pop(0)
        for key, value in tree.items():
            name = f"{prefix}{key}"
            if isinstance(value, dict) and value:
                waiting.append((f"{name}.", value))
            else:
                found[name] = value
    return shared_config(found)


def _rows(run: OfflineRun) -> Iterable[dict[str, Any]]:
    """Yields rows of metrics as headway has them: step, time, and names with a slash."""
    for row in run.rows:
        shown = _numbers_and_words(row)
        named = {_metric(name): value for name, value in shown.items() if not name.startswith("_")}
        yield {"step": _step(row), "time": row.get("_timestamp"), **named}


def _described(row: dict[str, Any]) -> dict[str, str]:
    """Returns the names under which a row describes a picture, table or histogram, with W&B's type of each."""
    end = "._type"
    return {name.removesuffix(end): str(kind) for name, kind in row.items() if name.endswith(end)}


def _numbers_and_words(row: dict[str, Any]) -> dict[str, Any]:
    """Returns a row without the width, size, hash and so on of what is no number: they are no metrics."""
    described = tuple(f"{name}." for name in _described(row))
    return {name: value for name, value in row.items() if not name.startswith(described)} if described else row


def _media(found: _Found) -> list[dict[str, Any]]:
    """Returns the pictures and tables that a run's rows name; of several at a step each has its number."""
    media = []
    for row in (row for _, part in found.parts for row in part.rows):
        for name in _described(row):
            several = row.get(f"{name}.filenames")
            paths = several if isinstance(several, list) else [row.get(f"{name}.path")]
            for number, path in enumerate(paths):
                kind = medium_kind(path) if isinstance(path, str) else None
                if kind is not None:
                    shown = f"{name}/{number}" if len(paths) > 1 else name
                    media.append({"name": shown, "step": _step(row), "kind": kind, "path": path})
    return media


def _histogram_names(row: dict[str, Any]) -> Iterator[str]:
    return (name for name, kind in _described(row).items() if kind == TYPE)


def _take_histograms_out(found: _Found) -> list[str]:
    """Returns the names of a run's histograms, and frees its rows of their many numbers."""
    names: dict[str, None] = {}
    for row in (row for _, part in found.parts for row in part.rows):
        for name in list(_histogram_names(row)):
            names[name] = None
            for field_name in FIELDS:
                row.pop(f"{name}.{field_name}", None)
    return sorted(names)


def _read_histograms(paths: Iterable[Path]) -> dict[str, list[Histogram]]:
    """Returns all histograms in a run's files, by name, in the order of their rows."""
    found: dict[str, list[Histogram]] = {}
    for row in (row for path in paths for row in read_offline_run(path).rows):
        for name in _histogram_names(row):
            histogram = histogram_of(row, name, step=_step(row))
            if histogram is not None:
                found.setdefault(name, []).append(histogram)
    return found


def _step(row: dict[str, Any]) -> int:
    """Returns a row's step: the writer's own where it logs one, else W&B's count of rows."""
    for name in ("trainer/global_step", "global_step", "step", "_step"):
        value = row.get(name)
        if isinstance(value, int | float):
            return int(value)
    return 0


def _metric(name: str) -> str:
    """Returns a metric's name, with a slash: what has none is put under `wandb/`."""
    return name if "/" in name else f"{_GROUPLESS}/{name}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
