"""Draws what was looked at: one frame, or one after the other until q or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headway.jobs.board import Task
from headway.top.gpus import Gpus, look_at_gpus
from headway.top.look import Jobs, Standing, Watch, look_at_jobs

JOBS_EVERY_S = 10.0
"""A shared controller is not to be asked at every frame."""
_KEY_WITHIN_S = 0.2
_ENDED_SHOWN = 5
_WIDTH_WITHOUT_TERMINAL = 160
_KEPT = 2
"""Columns at the left that keep their width while there is any other to take from."""
_COLOURS = {
    "running": "green", "created": "cyan", "pending": "cyan", "done": "blue", "requeued": "yellow",
    "preempted": "yellow", "stopped": "yellow", "cancelled": "yellow", "failed": "red", "died": "red", "lost": "red",
    "unreadable": "yellow",
}  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What one frame shows."""

    runs: Path
    standings: Sequence[Standing] = ()
    jobs: Jobs = field(default_factory=Jobs)
    gpus: Gpus = field(default_factory=Gpus)
    now: float = 0.0


def look_once(runs: Path) -> Frame:
    """Returns a frame, having waited for everything in it."""
    return Frame(runs, Watch(runs).standings(), look_at_jobs(runs), look_at_gpus(), time.time())


def print_once(runs: Path) -> None:
    """Prints one frame and no more."""
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    console.print(draw(look_once(runs)))


def watch(runs: Path, *, every_s: float) -> None:
    """Shows frames until q or Ctrl-C; the terminal is as it was before.

    What is slow to ask (a login node, nvidia-smi) is asked beside, so that keys and the rest do not wait.
    """
    console, folder = Console(), Watch(runs)
    with ThreadPoolExecutor(3) as pool, _keys() as pressed, _ended_by_sigterm():
        jobs = _Source(pool, lambda: look_at_jobs(runs), Jobs(), max(every_s, JOBS_EVERY_S))
        gpus = _Source(pool, look_at_gpus, Gpus(), every_s)
        standings: _Source[Sequence[Standing]] = _Source(pool, folder.standings, (), every_s)
        with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                frame = Frame(runs, standings.newest(), jobs.newest(), gpus.newest(), time.time())
                live.update(draw(frame, height=console.height), refresh=True)
                if pressed(_KEY_WITHIN_S) in ("q", "Q"):
                    break
        pool.shutdown(wait=False, cancel_futures=True)


T = TypeVar("T")


class _Source(Generic[T]):
    """Something that is asked every so often in a thread of its own; in between its last answer stands."""

    def __init__(self, pool: ThreadPoolExecutor, ask: Callable[[], T], first: T, every_s: float) -> None:
        self._pool, self._ask, self._answer, self._every_s = pool, ask, first, every_s
        self._asked: Future[T] | None = None
        self._next = 0.0

    def newest(self) -> T:
        if self._asked is not None and self._asked.done():
            self._answer, self._asked = self._asked.result(), None
        if self._asked is None and time.monotonic() >= self._next:
            self._next = time.monotonic() + self._every_s
            self._asked = self._pool.submit(self._ask)
        return self._answer


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the command as an exception would, so that the terminal is given back as it was."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yields a function that waits so many seconds for a key and returns it, or ""."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([number], [], [], seconds)
        return os.read(number, 1).decode(errors="replace") if ready else ""

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def draw(frame: Frame, *, height: int | None = None) -> RenderableType:
    """Returns a frame as rich draws it, in so many lines of a terminal; all of it where there is none."""
    gpus = _gpu_table(frame.gpus)
    room = None if height is None else max(8, height - 10 - len(frame.gpus.found))
    standings, jobs = list(frame.standings), list(frame.jobs.tasks)
    active = [one for one in standings if one.is_active]
    shown_runs = active + [one for one in standings if not one.is_active][:_ENDED_SHOWN]
    if room is not None:
        shown_jobs = jobs[: max(room - len(shown_runs), room // 2)]
        shown_runs = shown_runs[: room - len(shown_jobs)]
    else:
        shown_jobs = jobs
    head = Text.assemble(
        ("headway top", "bold"), f"  {frame.runs}/  {time.strftime('%H:%M:%S', time.localtime(frame.now))}",
        "  q ends" if height is not None else "",
    )  # fmt: skip
    parts: list[RenderableType] = [head, Text(), _run_table(shown_runs, frame.now)]
    if len(standings) > len(shown_runs):
        parts.append(_note(f"{len(standings) - len(shown_runs)} more; `headway runs` lists them"))
    parts += [Text(), _job_table(frame.jobs, shown_jobs, frame.now)]
    if len(jobs) > len(shown_jobs):
        parts.append(_note(f"{len(jobs) - len(shown_jobs)} more; `headway jobs` lists them"))
    return Group(*parts, Text(), gpus)


@dataclass
class _Table:
    """A table that leaves columns out where the terminal is narrow: what a thing is and its state always stay.

    Attributes:
        columns: their titles, each with the width of the terminal from which on it is shown.
    """

    columns: Mapping[str, int]
    rows: list[Sequence[Text]] = field(default_factory=list)

    def add_row(self, *cells: Text) -> None:
        """Adds a row, with a cell for each column."""
        self.rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws it as wide as there is room."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", expand=False, padding=(0, 1, 0, 0))
        shown = [index for index, least in enumerate(self.columns.values()) if options.max_width >= least]
        for index in shown:
            # rich first makes those narrower that might be wrapped; their texts are not, but end in an ellipsis.
            title, keeps = Text(list(self.columns)[index]), index < _KEPT
            title.no_wrap, title.overflow = True, "ellipsis"
            table.add_column(title, no_wrap=keeps, overflow="ellipsis", max_width=44 if index == 0 else 40)
        for cells in self.rows:
            for cell in cells:
                cell.no_wrap, cell.overflow = True, "ellipsis"
            table.add_row(*(cells[index] for index in shown))
        yield table


def _run_table(standings: Sequence[Standing], now: float) -> RenderableType:
    if not standings:
        return _note("no runs here")
    table = _Table(
        {"run": 0, "state": 0, "progress": 72, "values": 40, "speed": 100, "left": 84, "where": 120, "seen": 110}
    )
    for one in standings:
        values = "  ".join(f"{name} {value:.4g}" for name, value in one.values.items())
        table.add_row(
            _plain(f"{one.id} (sweep)" if one.is_sweep else one.id),
            _state(one.state),
            _progress(one),
            _plain(values if values or not one.reason else one.reason),
            Text(one.rate),
            Text("" if one.left_s is None or not one.is_active else span(one.left_s)),
            _plain(one.where),
            Text(f"{span(max(0.0, now - one.updated))} ago" if one.updated else ""),
        )
    return table


def _job_table(jobs: Jobs, shown: Sequence[Task], now: float) -> RenderableType:
    if jobs.problem:
        return Text.assemble("jobs: ", _plain(jobs.problem))
    if not jobs.asked:
        return _note("jobs: asked for")
    if not shown:
        return _note("no jobs of the last day")
    table = _Table({"job": 0, "state": 0, "why": 40, "where": 100, "since": 84, "progress": 72, "requeued": 120})
    for task in shown:
        status = task.status
        since = status.since or task.record.submitted
        table.add_row(
            _plain(task.id),
            _state(status.state),
            _plain(status.reason),
            _plain(f"{task.record.profile_name} {','.join(status.where)}".strip()),
            Text(span(max(0.0, now - since))),
            _plain(task.progress()),
            Text(str(status.requeues or "")),
        )
    return table


def _gpu_table(gpus: Gpus) -> RenderableType:
    if not gpus.found:
        return _note(f"GPUs: {gpus.problem or 'asked for'}")
    table = _Table({"GPU": 0, "busy": 0, "memory": 60, "": 84, "temperature": 100, "power": 110})
    for gpu in gpus.found:
        used, total = gpu.memory_used_mib, gpu.memory_total_mib
        share = None if used is None or not total else 100 * used / total
        memory = "" if used is None or total is None else f"{used / 1024:.1f} of {total / 1024:.1f} GiB"
        table.add_row(
            Text(f"{gpu.index} {gpu.name}"),
            _bar(gpu.use_percent),
            _bar(share),
            Text(memory),
            Text("" if gpu.celsius is None else f"{gpu.celsius:.0f} °C"),
            Text("" if gpu.watts is None else f"{gpu.watts:.0f} W"),
        )
    return table


def _progress(one: Standing) -> Text:
    unit = "trials" if one.is_sweep else "steps"
    if one.total:
        return Text.assemble(_bar(100 * one.done / one.total, width=10), f" {one.done:,}/{one.total:,} {unit}")
    return Text(f"{one.done:,} {unit}" if one.done else "")


def _bar(percent: float | None, *, width: int = 12) -> Text:
    """Returns a share as a bar with its number, which a screen without colours shows as well."""
    if percent is None:
        return Text("")
    full = round(width * min(100.0, max(0.0, percent)) / 100)
    return Text.assemble(("█" * full, "green"), ("░" * (width - full), "dim"), f" {percent:3.0f}%")


def _plain(text: str) -> Text:
    """Returns text in which nothing moves the cursor or changes the terminal."""
    return Text("".join(character if character.isprintable() else "?" for character in text))


def _state(state: str) -> Text:
    return Text(state, style=_COLOURS.get(state, ""))


def _note(text: str) -> Text:
    return Text(text, style="dim")


def span(seconds: float) -> str:
    """Returns a time a person reads at once: 40 s, 12 min, 3 h, 2 d."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
