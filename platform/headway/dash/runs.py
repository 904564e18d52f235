"""All runs of a folder, read once and kept up to date.

A status or a recipe is replaced whole, by a rename, which changes its folder's time: one stat a folder tells what
has to be read again. Ten thousand of those take about 20 ms, and are made at most once a second, when somebody looks.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.dash.entries import Entry, Row, read_entry, shown_name, unreadable
from headway.dash.query import MAX_PAGE, Query, groups, matching

REFRESH_S = 1.0
AGAIN_S = 0.2
"""Seconds between two looks for a run that is not known."""
KEPT_S = 5.0
"""Seconds for which what a query found is told again: the newest metrics of runs that go on change without a word."""
_KEPT_QUERIES = 64
PROCESS_S = 5.0
"""Seconds between two looks at whether a running run's process is there."""
_TICK_NS = 500_000_000
_TRIAL = re.compile(r"(.+)-\d{4,}")


@dataclass(frozen=True)
class Changes:
    """What differs since the last look."""

    changed: list[Row]
    gone: list[str]
    sweeps: list[str]
    """Sweeps of which a file was replaced."""


class Runs:
    """The table of runs.

    Args:
        root: the folder of run folders.
        more: runs that lie elsewhere, such as those that Weights & Biases wrote.
    """

    def __init__(self, root: Path, more: Iterable[Entry] = ()) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._more = {entry.id: entry for entry in more}
        self._entries: dict[str, Entry] = {}
        self._stamps: dict[str, int] = {}
        self._foreign: list[str] = []
        self._sweeps: set[str] = set()
        self._looked = 0.0
        self._processes = 0.0
        self._version = 0
        self._columns: tuple[int, list[str]] = (-1, [])
        self._found: dict[tuple[str, str, str], tuple[int, float, list[Entry]]] = {}
        self._problem: str | None = None
        self._told: dict[str, Row | None] | None = None
        """Rows that changed since the table's viewers were last told, None for those that are gone."""
        self._told_sweeps: set[str] = set()

    # ---- keeping up ------------------------------------------------------------------------------

    def refresh(self, *, at_most_every_s: float = REFRESH_S) -> Changes:
        """Looks at the folder again, unless it was looked at just now."""
        with self._lock:
            if time.monotonic() - self._looked < at_most_every_s:
                return Changes([], [], [])
            changes = self._look()
            self._looked = time.monotonic()
            if self._told is not None:
                self._told.update({row["id"]: row for row in changes.changed})
                self._told.update(dict.fromkeys(changes.gone))
                self._told_sweeps.update(changes.sweeps)
            return changes

    def changes_since_last(self) -> Changes:
        """Returns what has changed since this was last asked, whoever made the folder be looked at; of the first time,
        nothing.
        """
        self.refresh()
        with self._lock:
            told, self._told = self._told or {}, {}
            sweeps, self._told_sweeps = sorted(self._told_sweeps), set()
        return Changes(
            [row for row in told.values() if row is not None],
            [name for name, row in told.items() if row is None],
            sweeps,
        )

    def _look(self) -> Changes:
        changed: list[Entry] = []
        seen: set[str] = set()
        foreign: list[str] = []
        before = {name: self._stamps.get(name) for name in self._sweeps}
        try:
            with os.scandir(self.root) as found:
                for item in found:
                    if item.name.startswith("."):
                        continue
                    self._look_at(item, seen, foreign, changed)
            self._problem = None
        except OSError as error:
            self._problem = f"{self.root}: {error.strerror}"
        self._foreign = sorted(foreign)
        gone = [name for name in self._stamps if name not in seen]
        for name in gone:
            del self._stamps[name]
            self._entries.pop(name, None)
            self._sweeps.discard(name)
        # Of a sweep and its trials either may be read first.
        for entry in self._entries.values() if self._sweeps != set(before) else changed:
            entry.row["sweep"] = self._sweep_of(entry)
        changed += self._look_at_processes()
        if changed or gone:
            self._version += 1
        sweeps = [name for name in self._sweeps if self._stamps[name] == -1 or self._stamps[name] != before.get(name)]
        return Changes([entry.row for entry in changed], [shown_name(name) for name in gone], sweeps)

    def _look_at(self, item: os.DirEntry[str], seen: set[str], foreign: list[str], changed: list[Entry]) -> None:
        name = item.name
        try:
            if item.is_symlink():
                stamp = 0
            elif item.is_dir(follow_symlinks=False):
                stamp = item.stat(follow_symlinks=False).st_mtime_ns
            else:
                foreign.append(shown_name(name))
                return
        except OSError:
            return
        seen.add(name)
        if self._stamps.get(name) == stamp:
            return
        # What changed just now may change once more within the clock's tick, and look the same.
        self._stamps[name] = stamp if time.time_ns() - stamp > _TICK_NS else -1
        if stamp and _is_sweep(item.path):
            self._sweeps.add(name)
            self._entries.pop(name, None)
            return
        self._sweeps.discard(name)
        entry = read_entry(self.root, name) if stamp else unreadable(name, "a link; links are not followed")
        before = self._entries.get(name)
        self._entries[name] = entry
        entry.row["sweep"] = self._sweep_of(entry)
        if before is None or before.row != entry.row:
            changed.append(entry)

    def _look_at_processes(self) -> list[Entry]:
        """Notes which runs lost their process without a word."""
        if time.monotonic() - self._processes < PROCESS_S:
            return []
        self._processes = time.monotonic()
        changed = []
        for name, entry in self._entries.items():
            driver = entry.driver
            if driver is not None and driver.is_here and driver.process() is None:
                row = {**entry.row, "state": "died", "reason": f"its process {driver.pid} is gone and left no word"}
                self._entries[name] = replace(entry, row=row, driver=None, has_ended=True)
                changed.append(self._entries[name])
        return changed

    # ---- asking ----------------------------------------------------------------------------------

    def find(self, run_id: str) -> Entry | None:
        """Returns a run; None where there is none of that id."""
        self.refresh()
        found = self._known(run_id)
        if found is None:
            # It may have begun a moment ago, and that since somebody made the folder be looked at.
            self.refresh(at_most_every_s=0.0 if self._is_there(run_id) else AGAIN_S)
            found = self._known(run_id)
        return found

    def _is_there(self, run_id: str) -> bool:
        return os.sep not in run_id and "\0" not in run_id and os.path.lexists(self.root / run_id / "recipe.yaml")

    def _known(self, run_id: str) -> Entry | None:
        entry = self._entries.get(run_id) or self._more.get(run_id)
        if entry is not None and entry.id == run_id:
            return entry
        with self._lock:
            return next((entry for entry in self._entries.values() if entry.id == run_id), None)

    def row(self, entry: Entry, columns: Iterable[str] = ()) -> Row:
        """Returns a run's row, with further columns in `values`."""
        return {**entry.row, "values": {name: entry.value(name, self.root) for name in columns}}

    def answer(self, query: Query) -> dict[str, Any]:
        """Returns the page of the table that a query is for."""
        self.refresh()
        with self._lock:
            entries = [*self._entries.values(), *self._more.values()]
        found = self._matching(entries, query)
        size = min(max(query.size, 1), MAX_PAGE)
        page = found if query.everything else found[query.page * size : (query.page + 1) * size]
        columns = self.columns() if query.everything else query.columns
        return {
            "total": len(entries),
            "matched": len(found),
            "page": query.page,
            "size": len(found) if query.everything else size,
            "rows": [self.row(entry, columns) for entry in page],
            "groups": groups(found, query.group, self.root) if query.group else None,
            "columns": self.columns(),
            "foreign": self._foreign[:20],
            "problem": self._problem,
        }

    def _matching(self, entries: list[Entry], query: Query) -> list[Entry]:
        """Returns what a query is for; many viewers ask the same, and are told the same until something changes."""
        key, version, now = (query.words, query.sort, query.group), self._version, time.monotonic()
        known = self._found.get(key)
        if known is not None and known[0] == version and now - known[1] < KEPT_S:
            return known[2]
        found = matching(entries, query, self.root)
        with self._lock:
            if len(self._found) >= _KEPT_QUERIES:
                self._found.clear()
            self._found[key] = (version, now, found)
        return found

    def columns(self) -> list[str]:
        """Returns every name that some run's recipe has, and every metric that its status tells."""
        if self._columns[0] == self._version:
            return self._columns[1]
        with self._lock:
            version, entries = self._version, [*self._entries.values(), *self._more.values()]
        shapes = {id(entry.config.names): entry.config.names for entry in entries}
        names = {name for shape in shapes.values() for name in shape if not name.startswith("sweep.")}
        finals = {name for entry in entries for name in entry.final if "/" in name}
        bests = {name for entry in entries for name in entry.best if "/" in name}
        found = [*sorted(names), *sorted(finals | bests), *(f"best:{name}" for name in sorted(bests))]
        self._columns = (version, found)
        return found

    def sweep_names(self) -> list[str]:
        """Returns the names of the folders that are sweeps'."""
        self.refresh()
        with self._lock:
            return sorted(self._sweeps)

    def _sweep_of(self, entry: Entry) -> str | None:
        match = _TRIAL.fullmatch(entry.folder)
        return match[1] if match is not None and match[1] in self._sweeps else None


def _is_sweep(path: str) -> bool:
    try:
        return os.path.lexists(f"{path}/sweep.yaml")
    except ValueError:
        return False
