"""A metric of a run as a curve of at most so many points: what each stretch of the axis holds, by mean, least and most.

What is read stays open while it is looked at: a run that grows costs its new rows alone.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np

from headway.columns import Array, Columns, Damaged, Series, rewrite_columns
from headway.config.errors import UserError
from headway.dash.entries import Entry
from headway.dash.files import open_below
from headway.run import COLUMNS_NAME

Answer = TypeVar("Answer")
Axis = Literal["step", "time", "tokens", "samples"]
AXES = ("step", "time", "tokens", "samples")
MAX_POINTS = 5000
MAX_NAMES = 200
"""Metrics that may be asked for at once, by name."""
OPEN_RUNS = 64
LOADED_BYTES = 96 << 20
"""Memory for series that are kept between two questions."""
_WORTH_A_SIDECAR = 8 << 20


@dataclass
class _Open:
    """A run whose metrics are open."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    columns: Columns | None = None
    stamp: tuple[int, int] = (0, 0)
    series: dict[str, Series] = field(default_factory=dict)
    curves: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)
    """What was answered, by what was asked, since the last row came."""
    at_size: int = -1
    problem: str | None = None
    """Why the metrics cannot be read."""

    @property
    def columns_size(self) -> int:
        """Returns how many bytes of metrics.jsonl have been taken in."""
        return 0 if self.columns is None else self.columns.size

    def close(self) -> None:
        """Forgets what was read."""
        if self.columns is not None:
            self.columns.close()
        self.columns, self.series, self.curves, self.at_size = None, {}, {}, -1

    @property
    def nbytes(self) -> int:
        """Returns about what it takes in memory."""
        parsed = 0 if self.columns is None else self.columns.parsed_bytes // 3
        answers = sum(100 * len(one["x"]) for one in self.curves.values())
        return parsed + answers + sum(one.value.nbytes * 3 for one in self.series.values())


class Curves:
    """Reads metrics.

    Args:
        root: the folder of run folders.
        cache: where columns are kept of runs that have none of their own; None where nothing can be written.
        elsewhere: gives the columns of a run that lies elsewhere.
    """

    def __init__(
        self, root: Path, cache: Path | None, elsewhere: Callable[[Entry], Columns | None] = lambda _: None
    ) -> None:
        self.root = root
        self.cache = cache
        self.elsewhere = elsewhere
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Closes what is open."""
        with self._lock:
            for one in self._open.values():
                one.close()
            self._open.clear()

    def names(self, entry: Entry) -> list[str]:
        """Returns the names of a run's metrics."""
        return [name for name in self._with(entry, lambda one: _columns(one).names()) if "/" in name]

    def torn(self, entry: Entry) -> int:
        """Returns how many lines of a run's metrics cannot be read; one that is being written is no such line."""
        return self._with(entry, lambda one: _columns(one).torn + (entry.has_ended and one.stamp[1] > one.columns_size))

    def problem(self, entry: Entry) -> str | None:
        """Returns why a run's metrics cannot be read; None where they can, or there are none."""
        return self._with(entry, lambda one: one.problem)

    def num_rows(self, entry: Entry) -> int:
        """Returns how many rows a run has."""
        return self._with(entry, lambda one: _columns(one).num_rows)

    def first_time(self, entry: Entry) -> float | None:
        """Returns the time of a run's first row."""
        return self._with(entry, lambda one: _columns(one).first_time())

    def rows(self, entry: Entry, name: str) -> Series:
        """Returns all rows of a metric."""
        return self._with(entry, lambda one: _series(one, name))

    def curves(
        self,
        entry: Entry,
        names: Sequence[str],
        *,
        axis: Axis = "step",
        scale: float = 1.0,
        points: int = 1000,
        begin: float | None = None,
        end: float | None = None,
    ) -> list[dict[str, Any]]:
        """Returns metrics as curves.

        Args:
            entry: the run.
            names: its metrics.
            axis: what is along x.
            scale: x for each step, where the axis counts tokens or samples.
            points: at most so many.
            begin: from this x on; all when None.
            end: up to this x.
        """
        how = (axis, scale, min(max(points, 2), MAX_POINTS), begin, end)
        return [self._with(entry, partial(_curve, name=name, how=how)) for name in names]

    def _with(self, entry: Entry, ask: Callable[[_Open], Answer]) -> Answer:
        """Returns what an open run answers, after what was appended has been taken in."""
        one = self._find(entry.id)
        with one.lock:
            self._update(entry, one)
            try:
                answer = ask(one)
            except Damaged:
                self._reopen(entry, one, use_sidecar=False)
                answer = ask(one)
        self._make_room(entry.id)
        return answer

    def _find(self, run_id: str) -> _Open:
        with self._lock:
            one = self._open.setdefault(run_id, _Open())
            self._open.move_to_end(run_id)
            return one

    def _make_room(self, kept: str) -> None:
        with self._lock:
            while len(self._open) > 1 and (
                len(self._open) > OPEN_RUNS or sum(one.nbytes for one in self._open.values()) > LOADED_BYTES
            ):
                name = next(name for name in self._open if name != kept)
                dropped = self._open.pop(name)
                if dropped.lock.acquire(blocking=False):
                    # Who waits for it finds it closed, and opens it again.
                    dropped.close()
                    dropped.lock.release()

    def _update(self, entry: Entry, one: _Open) -> None:
        if entry.row["source"] == "wandb":
            one.columns = one.columns or self.elsewhere(entry) or Columns(None)
            return
        try:
            with open_below(self.root, entry.folder, "metrics.jsonl") as metrics:
                info = os.fstat(metrics.fileno())
                if one.columns is None or one.stamp[0] != info.st_ino or info.st_size < one.columns.size:
                    self._reopen(entry, one)
                elif info.st_size > one.columns.size:
                    one.columns.extend(metrics)
                one.stamp = (info.st_ino, info.st_size)
            one.problem = None
        except OSError as error:
            one.close()
            one.columns = Columns(None)
            one.problem = None if isinstance(error, FileNotFoundError) else str(error.strerror or error)

    def _reopen(self, entry: Entry, one: _Open, *, use_sidecar: bool = True) -> None:
        one.close()
        with open_below(self.root, entry.folder, "metrics.jsonl") as metrics:
            sidecar = self._sidecar(entry, metrics) if use_sidecar else None
            one.columns = Columns.read(metrics, sidecar)

    def _sidecar(self, entry: Entry, metrics: BinaryIO) -> BinaryIO | None:
        """Returns the sidecar that covers most: the run's own, or one that is made here for a run without."""
        try:
            own = open_below(self.root, entry.folder, COLUMNS_NAME)
        except OSError:
            own = None
        size = os.fstat(metrics.fileno()).st_size
        if self.cache is None or size < _WORTH_A_SIDECAR or size - _covered(own, metrics) < _WORTH_A_SIDECAR:
            return own
        made = self.cache / f"{hashlib.sha256(os.fsencode(entry.folder)).hexdigest()[:32]}.columns"
        try:
            if made.exists():
                file = made.open("rb")
                if size - _covered(file, metrics) < _WORTH_A_SIDECAR:
                    _close(own)
                    return file
                file.close()
            self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
            rewrite_columns(metrics, made)
            made_file = made.open("rb")
        except OSError:
            # A full disk, say: the run is read without.
            return own
        _close(own)
        return made_file


def _close(sidecar: BinaryIO | None) -> None:
    if sidecar is not None:
        sidecar.close()


def _covered(sidecar: BinaryIO | None, metrics: BinaryIO) -> int:
    """Returns how many bytes of metrics.jsonl a sidecar stands for."""
    return 0 if sidecar is None else Columns.covered(metrics, sidecar)


def _columns(one: _Open) -> Columns:
    assert one.columns is not None
    return one.columns


def _series(one: _Open, name: str) -> Series:
    columns = _columns(one)
    if one.at_size != columns.size:
        one.series, one.curves, one.at_size = {}, {}, columns.size
    if name not in one.series:
        one.series[name] = columns.series(name)
    return one.series[name]


def _curve(one: _Open, *, name: str, how: tuple[Axis, float, int, float | None, float | None]) -> dict[str, Any]:
    """Returns a metric as a curve."""
    rows = _series(one, name)
    known = one.curves.get((name, *how))
    if known is not None:
        return known
    axis, scale, points, begin, end = how
    x = rows.time - (_columns(one).first_time() or 0.0) if axis == "time" else rows.step * scale
    last = rows.step[np.isfinite(rows.step)]
    curve = {
        "name": name,
        **thinned(x, rows.value, points=points, begin=begin, end=end),
        "rows": len(rows.value),
        "last_step": number(last[-1]) if len(last) else None,
    }
    one.curves[(name, *how)] = curve
    return curve


# ---- fewer points --------------------------------------------------------------------------------


def thinned(x: Array, y: Array, *, points: int, begin: float | None = None, end: float | None = None) -> dict[str, Any]:
    """Returns a curve of at most `points`: the rows themselves where these are few, else the mean, least and most of
    the rows in each of equally wide stretches of x.
    """
    placed = np.isfinite(x)
    if not placed.all():
        x, y = x[placed], y[placed]
    if len(x) and np.any(x[1:] < x[:-1]):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
    low = 0 if begin is None else int(np.searchsorted(x, begin, "left"))
    high = len(x) if end is None else int(np.searchsorted(x, end, "right"))
    x, y = x[low:high], y[low:high]
    if len(x) <= points:
        return {"x": as_list(x), "y": as_list(y), "min": None, "max": None}
    edges = np.linspace(x[0], x[-1], points + 1)[:-1]
    starts = np.unique(np.searchsorted(x, edges, "left"))
    starts = starts[starts < len(x)]
    finite = np.isfinite(y)
    count = np.add.reduceat(finite.astype(np.float64), starts)
    some = count > 0
    at_least_one = np.maximum(count, 1)
    rows = np.diff(np.append(starts, len(x)))
    mean = np.add.reduceat(np.where(finite, y, 0.0), starts) / at_least_one
    least = np.minimum.reduceat(np.where(finite, y, np.inf), starts)
    most = np.maximum.reduceat(np.where(finite, y, -np.inf), starts)
    nothing = np.where(some, 0.0, np.nan)
    return {
        "x": as_list(np.add.reduceat(x, starts) / rows),
        "y": as_list(mean + nothing),
        "min": as_list(np.where(some, least, np.nan)),
        "max": as_list(np.where(some, most, np.nan)),
    }


def as_list(values: Array) -> list[float | int | None]:
    """Returns numbers as JSON has them, to nine digits; null for nan and inf."""
    return [number(value) for value in values.tolist()]


def number(value: float) -> float | int | None:
    """Returns a number as JSON has it, to nine digits; None for nan and inf."""
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.9g}")


def per_step(entry: Entry, axis: Axis, spec: dict[str, Any]) -> float:
    """Returns how many samples or tokens a step of a run takes; 1 for the other axes.

    Args:
        entry: the run.
        axis: what is along x.
        spec: what data.json says of the data.

    Raises:
        UserError: the run's recipe or data do not say.
    """
    if axis in ("step", "time"):
        return 1.0
    batch = entry.config.get("trainer.batch_size")
    if not isinstance(batch, int | float) or isinstance(batch, bool):
        raise UserError(f"x: {axis}, but the recipe of {entry.id} does not say its batch size; use step")
    if axis == "samples":
        return float(batch)
    shape = spec.get("input_shape")
    if spec.get("input_kind") not in ("tokens", "pairs") or not isinstance(shape, list) or not shape:
        raise UserError(f"x: tokens, but {entry.id} reads no tokens; use step")
    return float(batch) * float(shape[0])
