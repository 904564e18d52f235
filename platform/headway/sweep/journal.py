"""What happened in a sweep, in its order: the one file that a resume needs.

    runs/<sweep>/journal.jsonl   one event a line, appended as it happens

A crash tears at most the last line, which is then as if it had not happened: a report that is lost is made again, a
trial whose end is lost is found ended in its run folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headway.run import MetricsFile, replace_file

Kind = Literal["propose", "start", "report", "learn", "end"]


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial."""

    kind: Kind
    number: int
    """Which trial."""
    config: dict[str, Any] | None = None
    """propose, start: the sample by dotted path; another at each start under pbt."""
    step: int | None = None
    value: float | None = None
    """report, learn: the sweep's metric."""
    iteration: int | None = None
    """report: how many the trial has made."""
    last: bool = False
    """report: whether the trial was stopped at it, so that the searcher was not told."""
    budget: float | None = None
    """learn: steps behind a value that BOHB was told."""
    status: str | None = None
    reason: str | None = None


class Journal:
    """Appends events.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = MetricsFile(path)

    def write(self, event: Event) -> None:
        """Appends an event and hands it to the operating system."""
        self._file.write([_row(event)])

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_journal(path: Path) -> tuple[list[Event], list[str]]:
    """Returns the events that can be read, and a line for a person for what cannot.

    What follows a damaged line is not used: it may lean on what is gone.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return [], [f"{path} cannot be read; every trial starts anew"]
    events: list[Event] = []
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        event = _parse(line)
        if event is None:
            return events, [
                f"{path.name}: line {place + 1} is damaged; going on from the {len(events)} events before it"
            ]
        events.append(event)
    return events, []


def _parse(line: bytes) -> Event | None:
    try:
        row = json.loads(line)
        row.pop("time", None)
        return Event(**row)
    except (ValueError, TypeError, AttributeError):
        return None


def keep_events(path: Path, events: Iterable[Event]) -> None:
    """Leaves a file with these events alone, so that what is appended follows what was read."""
    replace_file(path, "".join(json.dumps(_row(event)) + "\n" for event in events))


def _row(event: Event) -> dict[str, Any]:
    return {name: value for name, value in vars(event).items() if value is not None and value is not False}
