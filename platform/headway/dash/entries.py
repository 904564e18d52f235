"""One folder of the runs folder as a row of the table.

A run is read from its small files alone: status.json, recipe.yaml, and the ends of manifest.json. What cannot be
read is a row that says so; a folder that holds nothing of a run is one too, since somebody will look for it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.dash.files import ends_in, folder_below, names_in, open_below, read_in
from headway.dash.recipes import Config, read_config
from headway.sweep.folder import Driver

Row = dict[str, Any]
MAX_STATUS_BYTES = 1 << 20
MAX_RECIPE_BYTES = 256 << 10
TAIL_BYTES = 8 << 10
_STATES = frozenset({"created", "running", "done", "failed", "stopped"})
_OF_A_RUN = ("recipe.yaml", "status.json", "metrics.jsonl", "manifest.json")
_NO_RUN = "no run: it has no recipe.yaml, status.json or metrics.jsonl"
_EMPTY = Config({}, ())
# Only of the file as headway writes it: a top-level key of JSON that is indented by two.
_STARTED = re.compile(rb'^  "started": ([0-9.]+),?$', re.MULTILINE)
_ENDED = re.compile(rb'^  "ended": ([0-9.]+),?$', re.MULTILINE)
_JOB = re.compile(rb'^  "job": "([^"\\]*)",?$', re.MULTILINE)


@dataclass(slots=True)
class Entry:
    """A run, or what lies where one would."""

    id: str
    folder: str
    """Name of the folder; another than the id where that has characters that are no text."""
    row: Row
    config: Config = _EMPTY
    final: Mapping[str, Any] = field(default_factory=dict)
    best: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    driver: Driver | None = None
    """Process that writes it, while its status says that it runs."""
    mode: str = "min"
    """Whether less or more of its metric is better."""
    tail: tuple[int, Mapping[str, Any]] | None = None
    """Size of metrics.jsonl when its end was read, and the last value of each metric there."""
    has_ended: bool = False
    best_step: int | None = None

    def value(self, column: str, root: Path) -> Any:
        """Returns what the row has in a column: one of its own, a name of the recipe, or a metric."""
        if column in self.row:
            return self.row[column]
        if column.startswith("best:"):
            return self.best.get(column.removeprefix("best:"))
        if "/" not in column:
            return self.config.get(column)
        if column in self.final:
            return self.final[column]
        found = self._newest(root).get(column)
        return self.best.get(column) if found is None else found

    def _newest(self, root: Path) -> Mapping[str, Any]:
        """Returns the last value of each metric near the end of metrics.jsonl."""
        if self.row["source"] != "headway":
            return {}
        if self.has_ended and self.tail is not None:
            return self.tail[1]
        try:
            with open_below(root, self.folder, "metrics.jsonl") as file:
                size = os.fstat(file.fileno()).st_size
                if self.tail is not None and self.tail[0] == size:
                    return self.tail[1]
                file.seek(max(0, size - TAIL_BYTES))
                lines = file.read(TAIL_BYTES).split(b"\n")
        except OSError:
            return {}
        found: dict[str, Any] = {}
        for line in lines[1:] if size > TAIL_BYTES else lines:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                found.update(row)
        self.tail = (size, found)
        return found


def shown_name(name: str) -> str:
    """Returns a folder's name as text, whatever bytes it has."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def read_entry(root: Path, name: str) -> Entry:
    """Returns a folder's row. Nothing in the folder makes this fail."""
    problems: list[str] = []
    try:
        with folder_below(root, name) as folder:
            modified = os.fstat(folder).st_mtime
            names = set(names_in(folder))
            if not names.intersection(_OF_A_RUN):
                return unreadable(name, _NO_RUN, updated=modified)
            status = _read_status(folder, names, problems)
            config = _read_config(folder, names, problems)
            manifest = _read_manifest(folder, names)
    except OSError as error:
        return unreadable(name, _why(error))
    return _entry(name, status, config, manifest, problems, modified)


def unreadable(name: str, reason: str, *, updated: float | None = None) -> Entry:
    """Returns the row of what cannot be read."""
    row = _blank(shown_name(name), state="unreadable", source="unreadable", reason=reason, updated=updated)
    return Entry(row["id"], name, row, problems=(reason,), has_ended=True)


def _blank(run_id: str, **values: Any) -> Row:
    row: Row = dict.fromkeys(
        (
            "id", "recipe", "state", "reason", "strategy", "where", "step", "total_steps", "started", "updated",
            "duration_s", "metric", "metric_name", "tags", "sweep", "job", "source", "title",
        )
    )  # fmt: skip
    return {**row, "id": run_id, "tags": [], "source": "headway", **values}


def wandb_row(run_id: str, **values: Any) -> Row:
    """Returns the row of a run that Weights & Biases wrote."""
    return _blank(run_id, source="wandb", **values)


def _entry(
    name: str, status: Row, config: Config, manifest: dict[bytes, Any], problems: list[str], modified: float
) -> Entry:
    best, final = _mapping(status.get("best")), _mapping(status.get("final"))
    metrics = _mapping(best.get("metrics"))
    state = str(status.get("state", "created"))
    if state not in _STATES:
        problems.append(f"status.json: the state {state[:40]!r} is not known")
        state = "failed"
    started = _number(manifest.get(b"started"))
    updated = _number(status.get("updated"))
    ended = _number(manifest.get(b"ended")) if state not in ("created", "running") else None
    until = ended if ended is not None else updated
    tags = config.get("track.tags")
    if best.get("metric") and best.get("value") is not None:
        metrics = {str(best["metric"]): best["value"], **metrics}
    row = _blank(
        shown_name(name),
        recipe=_text(status.get("recipe")) or _text(config.get("name")),
        state=state,
        reason=_text(status.get("reason")),
        strategy=_text(status.get("strategy")) or _text(config.get("strategy.kind")),
        where=_text(status.get("host")),
        step=_number(status.get("step")),
        total_steps=_number(config.get("trainer.max_steps")),
        started=started if started is not None else modified,
        updated=updated if updated is not None else modified,
        duration_s=round(max(0.0, until - started), 3) if started is not None and until is not None else None,
        metric=_number(best.get("value")),
        metric_name=_text(best.get("metric")) or _text(status.get("monitor")),
        tags=[str(tag) for tag in tags] if isinstance(tags, list) else [],
        job=manifest.get(b"job"),
    )
    if status.get("kind") == "sweep":
        problems.append("status.json: is a sweep's")
    driver = Driver.of(status) if state == "running" else None
    if driver is None and state == "running" and "pid" in status:
        problems.append("status.json: does not name its process")
    entry = Entry(row["id"], name, row, config, final, metrics, tuple(problems), driver)
    entry.mode = "max" if config.get("trainer.monitor_mode") == "max" else "min"
    step = best.get("step")
    entry.best_step = step if isinstance(step, int) else None
    entry.has_ended = state not in ("created", "running")
    return entry


def _read_status(folder: int, names: set[str], problems: list[str]) -> Row:
    if "status.json" not in names:
        problems.append("status.json: is not there; the run had not begun, or was copied in part")
        return {}
    try:
        status = json.loads(read_in(folder, "status.json", limit=MAX_STATUS_BYTES))
    except OSError as error:
        problems.append(f"status.json: {_why(error)}")
        return {}
    except (ValueError, RecursionError):
        problems.append("status.json: is not JSON")
        return {}
    if not isinstance(status, dict):
        problems.append("status.json: holds no object")
        return {}
    return status


def _read_config(folder: int, names: set[str], problems: list[str]) -> Config:
    if "recipe.yaml" not in names:
        problems.append("recipe.yaml: is not there")
        return _EMPTY
    try:
        text = read_in(folder, "recipe.yaml", limit=MAX_RECIPE_BYTES).decode("utf-8")
        return read_config(text, source="recipe.yaml")
    except OSError as error:
        problems.append(f"recipe.yaml: {_why(error)}")
    except UnicodeDecodeError:
        problems.append("recipe.yaml: is not UTF-8 text")
    except UserError as error:
        problems.append(str(error))
    return _EMPTY


def _read_manifest(folder: int, names: set[str]) -> dict[bytes, Any]:
    """Returns when the run started and ended and its job: the file may hold a large patch between the two."""
    if "manifest.json" not in names:
        return {}
    try:
        content = ends_in(folder, "manifest.json", length=TAIL_BYTES)
    except OSError:
        return {}
    found: dict[bytes, Any] = {}
    for key, pattern in ((b"started", _STARTED), (b"ended", _ENDED)):
        match = pattern.search(content)
        if match:
            found[key] = _float(match[1])
    match = _JOB.search(content)
    if match:
        found[b"job"] = match[1].decode("utf-8", "replace")
    return found


def _float(text: bytes) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Any:
    """Returns a finite number as it is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < 1e300 else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)[:2000]


def _why(error: OSError) -> str:
    return str(error.strerror or error)
