"""What Ray Tune tells while it searches, and how it is told to end."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune import Callback, Stopper
from ray.tune.progress_reporter import TrialProgressCallback

from headway.config.space import PAUSING
from headway.supervise.signals import StopFlag
from headway.sweep._trial import trial_number
from headway.sweep._trial_run import LENDER
from headway.sweep.ledger import Ledger

_NEWEST_KEPT = 3
"""Of a trial's copies: at one report Ray may ask for two, and hand out the first."""


class Account(TrialProgressCallback):  # type: ignore[misc]  # Ray has no types
    """Tells the ledger what happens to a trial.

    It takes the place of the callback that Ray adds otherwise, which prints trials without a result
    even where it is told to print nothing.

    Args:
        ledger: the sweep's.
        on_change: called after each change of it.
    """

    def __init__(self, ledger: Ledger, on_change: Callable[[], None]) -> None:
        self.ledger = ledger
        self.on_change = on_change
        self._pauses = ledger.plan.search.scheduler.kind in PAUSING

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray keeps a copy of its callbacks, but the ledger's files are its own record."""
        return {}

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Notes who waits, for others or for room: Ray tells of nothing when it pauses a trial."""
        if self._pauses:
            waiting = [trial_number(t.trial_id) for t in trials if t.status in (t.PAUSED, t.PENDING)]
            if self.ledger.pause(waiting):
                self.on_change()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes the sample."""
        self.ledger.start(trial_number(trial.trial_id), trial.config)
        self.on_change()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Notes a validation."""
        self.ledger.report(trial_number(trial.trial_id), result)
        self.on_change()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes the end of a trial that finished, failed in a way that was foreseen, or was stopped."""
        self.ledger.end(trial_number(trial.trial_id))
        self.on_change()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Notes the end of a trial whose process ended, or that found a bug."""
        # A process that never came up has not told of the trial's start either.
        self.ledger.start(trial_number(trial.trial_id), trial.config)
        self.ledger.end(trial_number(trial.trial_id), error=_last_line(trial.error_file))
        self.on_change()


class Returns(Callback):  # type: ignore[misc]  # Ray has no types
    """Deletes copies that nobody can go on from any more: a population lends at each exchange, and Ray keeps all.

    Args:
        folder: where Ray keeps what it has of the sweep; copies are two levels below.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._written: dict[Path, tuple[int, str]] = {}
        """Of each copy that is there, by what says whose it is: when it was made, and of which run."""

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Leaves each trial's newest copies, and those that another goes on from."""
        wanted = {Path(other.checkpoint.path) for other in trials if other.checkpoint is not None}
        lent: dict[str, list[Path]] = defaultdict(list)
        # Not all that is lent is told of: Ray drops what it asked for where it asks again.
        there = list(self.folder.glob(f"*/*/{LENDER}"))
        self._written = {path: self._written.get(path) or _made(path) for path in there}
        for path in sorted(there, key=self._written.__getitem__):
            lent[self._written[path][1]].append(path.parent)
        for folders in lent.values():
            for folder in set(folders[:-_NEWEST_KEPT]) - wanted:
                shutil.rmtree(folder, ignore_errors=True)


def _made(path: Path) -> tuple[int, str]:
    return path.stat().st_mtime_ns, json.loads(path.read_text())["from"]


class StopOnSignal(Stopper):  # type: ignore[misc]  # Ray has no types
    """Ends the search once a signal has come.

    Args:
        flag: what the signal sets.
    """

    def __init__(self, flag: StopFlag) -> None:
        self.flag = flag

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Returns False: which trials go on is the scheduler's."""
        return False

    def stop_all(self) -> bool:
        """Returns whether to end the search."""
        return self.flag()


def _last_line(error_file: str | None) -> str:
    """Returns the last line that Ray wrote of a trial's error, which says what it was, without its advice."""
    try:
        lines = Path(error_file or "").read_text().split("\n")
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].partition(". Some common causes")[0] if said else "its process ended"
