"""What a person sees while a run trains: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

LINE_INTERVAL_S = 10.0


class ProgressSink:
    """Shows step, loss, validation, speed and time left on standard error.

    Args:
        name: the run's id.
        total_steps: where it ends.
        first_step: where it begins, after a resume.
        headlines: validation metrics worth a place on the line.
    """

    def __init__(self, name: str, *, total_steps: int, first_step: int = 0) -> None:
        self.name = name
        self.total_steps = total_steps
        # A bar is for the terminal alone; plain lines go where a rank's log takes them, too.
        terminal = Console(file=sys.__stderr__)
        self.console = terminal if terminal.is_terminal else Console(file=sys.stderr)
        self.values: dict[str, float] = {}
        self._last_line = 0.0
        self._started = time.monotonic()
        self._first_step = first_step
        self._progress: Progress | None = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                _Values(self),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=4,
            )
            self._task = self._progress.add_task(name, total=total_steps, completed=first_step)
            self._progress.start()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Shows the newest values."""
        for row in rows:
            self.values |= {key: value for key, value in row.items() if isinstance(value, int | float)}
        step = int(rows[-1]["step"])
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
            return
        validated = any("val/loss" in row for row in rows)
        if validated or time.monotonic() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = time.monotonic()
            self.console.print(
                f"{self.name}  step {step}/{self.total_steps}  {self.summary()}  {self._left(step)}",
                highlight=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """Leaves the bar as it is."""
        if self._progress is not None:
            self._progress.stop()

    def summary(self) -> str:
        """Returns the values in one line."""
        shown = [
            f"{label} {self.values[name]:.4g}"
            for name, label in [
                ("train/loss", "loss"),
                ("val/loss", "val loss"),
                ("val/accuracy", "val accuracy"),
            ]
            if name in self.values
        ]
        for name, unit in [("perf/tokens_per_s", "tokens/s"), ("perf/samples_per_s", "samples/s")]:
            if name in self.values:
                shown.append(f"{self.values[name]:,.0f} {unit}")
                break
        return "  ".join(shown)

    def _left(self, step: int) -> str:
        done = step - self._first_step
        if done <= 0:
            return ""
        left_s = (time.monotonic() - self._started) / done * (self.total_steps - step)
        return f"{int(left_s) // 60}:{int(left_s) % 60:02d} left"


class _Values(ProgressColumn):
    """The newest metrics beside the bar."""

    def __init__(self, sink: ProgressSink) -> None:
        super().__init__()
        self.sink = sink

    def render(self, task: Task) -> Text:
        return Text(self.sink.summary())
