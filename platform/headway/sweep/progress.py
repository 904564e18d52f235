"""What a person sees while a sweep runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from headway.sweep.ledger import Counts, Ledger
from headway.sweep.result import shown

LINE_INTERVAL_S = 10.0
# Below, the sweep's id would leave no room for the rest.
MIN_WIDTH_WITH_ID = 120


class SweepProgress:
    """Shows how many trials stand where, the best so far and the time left, on standard error.

    Args:
        ledger: the sweep's account.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.console = Console(file=sys.stderr)
        self.pace = Pace(ledger.counts)
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
                BarColumn(bar_width=None),
                _Summary(self),
                TimeElapsedColumn(),
                _TimeLeft(self),
                console=self.console,
                refresh_per_second=4,
            )
            name = ledger.folder.id if self.console.width >= MIN_WIDTH_WITH_ID else ""
            self._task = self._progress.add_task(name, total=ledger.plan.num_trials)
            self._progress.start()

    def update(self, *, last: bool = False) -> None:
        """Shows the newest state."""
        counts = self.ledger.counts
        self.pace.update(counts)
        if self._progress is not None:
            self._progress.update(self._task, completed=ended(counts))
        elif last or time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            said = [self.ledger.folder.id, self.summary(), "" if last else self.time_left()]
            self.console.print("  ".join(filter(None, said)), highlight=False, soft_wrap=True)

    def say(self, line: str) -> None:
        """Shows a line that stays."""
        self.console.print(f"{self.ledger.folder.id}  {line}", highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Shows the last state and leaves it."""
        self.update(last=True)
        if self._progress is not None:
            self._progress.stop()

    def summary(self) -> str:
        """Returns counts and the best trial in one line."""
        counts, best = self.ledger.counts, self.ledger.best
        waiting = f"{counts.paused} paused  " if counts.paused else ""
        line = (
            f"{ended(counts)}/{counts.total} trials  {counts.running} running  {waiting}{counts.done} done  "
            f"{counts.stopped} stopped  {counts.failed} failed"
        )
        if best is None:
            return line
        return f"{line}  best {self.ledger.plan.search.metric} {shown(best.value)} ({best.run_id})"

    def short_summary(self) -> str:
        """Returns the same for beside a bar: without what is none, and the best trial by its number alone."""
        counts, best = self.ledger.counts, self.ledger.best
        numbers = {name: getattr(counts, name) for name in ("running", "paused", "stopped", "failed")}
        words = [f"{ended(counts)}/{counts.total}", *(f"{number} {name}" for name, number in numbers.items() if number)]
        if best is not None:
            number = best.run_id.rpartition("-")[2]
            words.append(f"best {self.ledger.plan.search.metric} {shown(best.value)} ({number})")
        return "  ".join(words)

    def time_left(self) -> str:
        """Returns `2:05 left`; "" where nothing is known of that."""
        left_s = self.pace.left_s(self.ledger.counts)
        return "" if left_s is None else f"{clock(left_s)} left"


class Pace:
    """How fast trials end, and so when the last one will.

    rich has a column for this, which forgets what was more than half a minute ago: longer than most trials take.

    Args:
        counts: how trials stand at the start; those that a sweep goes on from tell nothing of the pace.
    """

    def __init__(self, counts: Counts) -> None:
        self._ended_before = ended(counts)
        self._began: float | None = None

    def update(self, counts: Counts) -> None:
        """Notes when the first trial runs: until then it is Ray that starts."""
        if self._began is None and (counts.running or ended(counts) > self._ended_before):
            self._began = time.monotonic()

    def left_s(self, counts: Counts) -> float | None:
        """Returns the seconds left at the pace so far; None before a trial has ended."""
        ended_here = ended(counts) - self._ended_before
        if self._began is None or ended_here < 1:
            return None
        return (time.monotonic() - self._began) / ended_here * (counts.total - ended(counts))


def ended(counts: Counts) -> int:
    """Returns how many trials are over."""
    return counts.done + counts.stopped + counts.failed


def clock(seconds: float) -> str:
    """Returns `2:05`, or `1:02:05` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Summary(ProgressColumn):
    """The state beside the bar."""

    def __init__(self, progress: SweepProgress) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.short_summary())


class _TimeLeft(ProgressColumn):
    """The time left, at the end of the line."""

    def __init__(self, progress: SweepProgress) -> None:
        super().__init__(table_column=Column(no_wrap=True))
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.time_left())
