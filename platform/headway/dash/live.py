"""What changed since, as it happens, to everybody who looks: server-sent events.

A run is watched only while somebody looks at it, by one task for all of them: a stat every 40 ms, and what was
appended is read, parsed and put into words once. The table is looked at once a second, likewise.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from headway.dash.entries import Entry
from headway.dash.files import open_below
from headway.dash.runs import Runs
from headway.dash.series import Curves, number

POLL_S = 0.04
BULK_ROWS, BULK_S = 16, 0.25
"""A run that writes so many rows between two looks is looked at less often: a browser redraws curves at each event."""
TABLE_S = 1.0
PING_S = 15.0
MAX_WATCHED = 50
"""Runs that one viewer may watch."""
_PENDING = 1000
"""Events that wait for a slow viewer before it is let go; it comes back by itself."""
_MAX_PIECE = 4 << 20
_RECENT_BYTES = 32 << 10
_END = b""


@dataclass
class _Watch:
    """Something that is watched, and by whom."""

    viewers: set[asyncio.Queue[bytes]] = field(default_factory=set)
    newcomers: set[asyncio.Queue[bytes]] = field(default_factory=set)
    """Viewers that are first told of the newest rows: what came after they asked for a curve and before they listened
    would be missing from it else."""
    task: asyncio.Task[None] | None = None


class Live:
    """Tells viewers what changes.

    Args:
        runs: the table.
        curves: the metrics.
    """

    def __init__(self, runs: Runs, curves: Curves) -> None:
        self.runs = runs
        self.curves = curves
        self._watches: dict[str | None, _Watch] = {}
        """By run id; the table's is under None."""

    @property
    def num_watches(self) -> int:
        """Returns how many things are watched, whatever the number of viewers."""
        return len(self._watches)

    async def events(self, entries: list[Entry], *, table: bool) -> AsyncIterator[bytes]:
        """Yields events for one viewer, until it goes or is too slow.

        Args:
            entries: runs whose rows are wanted.
            table: whether rows of the table are.
        """
        queue: asyncio.Queue[bytes] = asyncio.Queue(_PENDING)
        wanted: list[Entry | None] = [*entries[:MAX_WATCHED], *([None] if table else [])]
        for entry in wanted:
            self._join(entry, queue)
        try:
            yield b": hello\n\nretry: 1000\n\n"
            while True:
                try:
                    event = await asyncio.wait_for(queue.get(), PING_S)
                except TimeoutError:
                    event = b"event: ping\ndata: {}\n\n"
                if event == _END:
                    return
                yield event
        finally:
            for entry in wanted:
                self._leave(entry, queue)

    def close(self) -> None:
        """Lets every viewer go."""
        for watch in list(self._watches.values()):
            for queue in (*watch.viewers, *watch.newcomers):
                _put(queue, _END)

    def _join(self, entry: Entry | None, queue: asyncio.Queue[bytes]) -> None:
        key = None if entry is None else entry.id
        watch = self._watches.setdefault(key, _Watch())
        (watch.viewers if entry is None else watch.newcomers).add(queue)
        if watch.task is None:
            watch.task = asyncio.create_task(self._watch_table(watch) if entry is None else self._watch(entry, watch))

    def _leave(self, entry: Entry | None, queue: asyncio.Queue[bytes]) -> None:
        key = None if entry is None else entry.id
        watch = self._watches.get(key)
        if watch is None:
            return
        watch.viewers.discard(queue)
        watch.newcomers.discard(queue)
        if not watch.viewers and not watch.newcomers:
            if watch.task is not None:
                watch.task.cancel()
            del self._watches[key]

    async def _watch_table(self, watch: _Watch) -> None:
        while True:
            changes = await asyncio.to_thread(self.runs.changes_since_last)
            if changes.changed or changes.gone or changes.sweeps:
                told = {"changed": changes.changed, "gone": changes.gone, "sweeps": changes.sweeps}
                _tell(watch, "table", told)
            await asyncio.sleep(TABLE_S)

    async def _watch(self, entry: Entry, watch: _Watch) -> None:
        """Follows one run's metrics."""
        tail = _Tail(self.runs, entry)
        first = await asyncio.to_thread(self.curves.first_time, entry)
        while True:
            if watch.newcomers:
                self._welcome(entry, watch, tail, first or 0.0)
            rows = tail.read()
            if rows:
                first = first if first is not None else _first_time(rows)
                _tell(watch, "rows", {"run": entry.id, "series": _by_name(rows, first or 0.0)})
            elif tail.was_replaced:
                # A resume dropped rows: what is shown has to be asked for again.
                tail.was_replaced = False
                first = await asyncio.to_thread(self.curves.first_time, entry)
                _tell(watch, "reset", {"run": entry.id})
            await asyncio.sleep(BULK_S if len(rows) >= BULK_ROWS else POLL_S)

    def _welcome(self, entry: Entry, watch: _Watch, tail: _Tail, first: float) -> None:
        recent = tail.recent()
        event = _event("rows", {"run": entry.id, "series": _by_name(recent, first)}) if recent else None
        while watch.newcomers:
            queue = watch.newcomers.pop()
            if event is not None:
                _put(queue, event)
            watch.viewers.add(queue)


class _Tail:
    """Reads what is appended to a run's metrics."""

    def __init__(self, runs: Runs, entry: Entry) -> None:
        self._root = runs.root
        self._folder = entry.folder
        self._path = os.fspath(runs.root / entry.folder / "metrics.jsonl")
        self._inode: int | None = None
        self._position = 0
        self.was_replaced = False
        info = self._stat()
        if info is not None:
            self._inode, self._position = info.st_ino, self._line_start(info.st_size)

    def read(self) -> list[dict[str, Any]]:
        """Returns the whole lines that were appended since, parsed."""
        info = self._stat()
        if info is None:
            return []
        if self._inode is not None and (info.st_ino != self._inode or info.st_size < self._position):
            self.was_replaced = True
            self._inode, self._position = info.st_ino, self._line_start(info.st_size)
            return []
        self._inode = info.st_ino
        if info.st_size == self._position:
            return []
        try:
            with open_below(self._root, self._folder, "metrics.jsonl") as file:
                content = os.pread(file.fileno(), _MAX_PIECE, self._position)
        except OSError:
            return []
        whole, found, _ = content.rpartition(b"\n")
        if not found:
            # A line longer than what is read at once is no row.
            self._position += len(content) if len(content) == _MAX_PIECE else 0
            return []
        self._position += len(whole) + 1
        return _parsed(whole)

    def recent(self) -> list[dict[str, Any]]:
        """Returns the newest rows among those that were there already."""
        begin = max(0, self._position - _RECENT_BYTES)
        try:
            with open_below(self._root, self._folder, "metrics.jsonl") as file:
                content = os.pread(file.fileno(), self._position - begin, begin)
        except OSError:
            return []
        return _parsed(content if begin == 0 else content.partition(b"\n")[2])

    def _stat(self) -> os.stat_result | None:
        try:
            return os.lstat(self._path)
        except OSError:
            return None

    def _line_start(self, size: int) -> int:
        """Returns where the line begins that is being written at the end."""
        try:
            with open_below(self._root, self._folder, "metrics.jsonl") as file:
                begin = max(0, size - (64 << 10))
                content = os.pread(file.fileno(), size - begin, begin)
        except OSError:
            return size
        return begin + content.rfind(b"\n") + 1 if b"\n" in content else (0 if begin == 0 else size)


def _parsed(lines: bytes) -> list[dict[str, Any]]:
    rows = []
    for line in lines.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _by_name(rows: list[dict[str, Any]], first: float) -> dict[str, list[list[Any]]]:
    """Returns the rows' metrics as [step, seconds, value], by name."""
    found: dict[str, list[list[Any]]] = {}
    for row in rows:
        step, time = row.get("step"), row.get("time")
        if not isinstance(step, int | float) or not isinstance(time, int | float):
            continue
        for name, value in row.items():
            if "/" in name and (value is None or isinstance(value, int | float)):
                y = None if value is None else number(float(value))
                found.setdefault(name, []).append([step, round(time - first, 3), y])
    return found


def _first_time(rows: list[dict[str, Any]]) -> float | None:
    times = [row["time"] for row in rows if isinstance(row.get("time"), int | float)]
    return times[0] if times else None


def _tell(watch: _Watch, name: str, data: dict[str, Any]) -> None:
    event = _event(name, data)
    for queue in watch.viewers:
        _put(queue, event)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'), default=str)}\n\n".encode()


def _put(queue: asyncio.Queue[bytes], event: bytes) -> None:
    if queue.full():
        # Too slow: what waits is thrown away and the viewer let go; it comes back by itself and asks anew.
        while not queue.empty():
            queue.get_nowait()
        event = _END
    queue.put_nowait(event)
