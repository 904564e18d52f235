"""Tells when a run needs somebody: no number for a loss, a loss that runs away, no steps any more, the end.

An alert is a row of `alerts.jsonl` in the run folder, and one of W&B's where the run is online. Imports no torch.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import Any, Literal

from headway.config.errors import Stopped, TrainingFailed
from headway.run import MetricsFile, RunFolder

Kind = Literal["nan", "diverged", "stalled", "finished"]
Tell = Callable[[dict[str, Any]], None]
FILE = "alerts.jsonl"
_SMOOTH = 0.95
_SETTLED = 50
"""Rows after which a smoothed loss means something."""
_RUNS_AWAY = 3.0
"""A smoothed loss is this many times what it was at its best."""


class Alerts:
    """Watches a run's rows and the time between them.

    Args:
        run: whose.
        wanted: which kinds to tell of.
        stall_s: seconds without a row after which a run has stalled.
        tell: told of each alert, besides the file.
    """

    def __init__(
        self, run: RunFolder, wanted: Collection[Kind], *, stall_s: float, tell: Tell = lambda _: None
    ) -> None:
        self.run = run
        self.wanted = set(wanted)
        self.stall_s = stall_s
        self._tell = tell
        self._step = 0
        self._loss = self._best = 0.0
        self._rows = 0
        self._told: set[Kind] = set()
        self._heard = time.monotonic()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        if "stalled" in self.wanted:
            threading.Thread(target=self._watch, name=f"alerts-{run.id}", daemon=True).start()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Looks at rows."""
        self._heard = time.monotonic()
        self._told.discard("stalled")
        for row in rows:
            self._step = int(row["step"])
            loss = row.get("train/loss")
            if loss is not None:
                self._follow(loss)

    def close(self) -> None:
        """Tells how the run ended."""
        self._closed.set()
        ending = sys.exc_info()[1]
        if ending is None:
            self._alert("finished", f"{self.run.id} is done", f"at step {self._step}", "INFO")
        elif isinstance(ending, TrainingFailed) and str(ending).startswith("train/loss is"):
            self._alert("nan", f"{self.run.id}: the loss is no number", str(ending), "ERROR")
        elif not isinstance(ending, Stopped | KeyboardInterrupt):
            self._alert("finished", f"{self.run.id} failed", str(ending)[:400], "ERROR")

    def _follow(self, loss: float) -> None:
        self._rows += 1
        self._loss = loss if self._rows == 1 else _SMOOTH * self._loss + (1 - _SMOOTH) * loss
        if self._rows == 1 or self._loss < self._best:
            self._best = self._loss
        # A loss may be negative, or all but nothing: three times that is no flight.
        if self._rows > _SETTLED and self._best > 1e-3 and self._loss > _RUNS_AWAY * self._best:
            text = f"train/loss is {self._loss:.4g} at step {self._step}, smoothed; it was {self._best:.4g} at its best"
            self._alert("diverged", f"{self.run.id}: the loss runs away", text, "WARN")

    def _watch(self) -> None:
        while not self._closed.wait(min(30.0, self.stall_s / 4)):
            silent_s = time.monotonic() - self._heard
            if silent_s > self.stall_s:
                text = f"no row for {silent_s:.0f} s after step {self._step}"
                self._alert("stalled", f"{self.run.id} makes no steps", text, "WARN")

    def _alert(self, kind: Kind, title: str, text: str, level: str) -> None:
        """Tells once of a kind; of a stall again after it was over."""
        with self._lock:
            if kind not in self.wanted or kind in self._told:
                return
            self._told.add(kind)
            row = {"step": self._step, "kind": kind, "level": level, "title": title, "text": text}
            file = MetricsFile(self.run.path / FILE)
            file.write([row])
            file.close()
        self._tell(row)
