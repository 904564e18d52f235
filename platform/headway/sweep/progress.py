"""What a person sees while a sweep runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from headway.sweep.ledger import Ledger
from headway.sweep.result import shown

LINE_INTERVAL_S = 10.0


class SweepProgress:
    """Shows how many trials stand where, and the best so far, on standard error.

    Args:
        ledger: the sweep's account.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.console = Console(file=sys.stderr)
        self._last_line = time.monotonic()
        self._progress: Progress | None = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                _Summary(self),
                TimeElapsedColumn(),
                console=self.console,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task(ledger.folder.id, total=ledger.plan.num_trials)
            self._progress.start()

    def update(self, *, last: bool = False) -> None:
        """Shows the newest state."""
        counts = self.ledger.counts
        if self._progress is not None:
            self._progress.update(self._task, completed=counts.done + counts.stopped + counts.failed)
        elif last or time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            self.console.print(f"{self.ledger.folder.id}  {self.summary()}", highlight=False, soft_wrap=True)

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
        ended = counts.done + counts.stopped + counts.failed
        line = (
            f"{ended}/{counts.total} trials  {counts.running} running  {counts.done} done  "
            f"{counts.stopped} stopped  {counts.failed} failed"
        )
        if best is None:
            return line
        return f"{line}  best {self.ledger.plan.search.metric} {shown(best.value)} ({best.run_id})"


class _Summary(ProgressColumn):
    """The state beside the bar."""

    def __init__(self, progress: SweepProgress) -> None:
        super().__init__()
        self.progress = progress

    def render(self, task: Task) -> Text:
        return Text(self.progress.summary())
