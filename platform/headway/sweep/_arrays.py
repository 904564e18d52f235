"""Arrays of trials: one in this process, or several, each in a Ray actor with a device of its own."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

from headway.config.errors import HeadwayError
from headway.fused.fit import DataShelf, make_row
from headway.fused.rows import Row
from headway.fused.seating import Array
from headway.sweep._trial_run import TrialJob, TrialRun
from headway.training import quiet_lightning

Reports = dict[str, dict[str, Any]]
"""What trials report, by their ids; `done` comes with or after the last."""


class TrialArray:
    """Trains trials as the rows of one array, in this process.

    Args:
        job: what the trials have in common.
        num_threads: threads of the array; every core when absent.
        stop_requested: asked between steps; where it is True the array returns though nobody has a report.
    """

    def __init__(
        self, job: TrialJob, num_threads: int | None = None, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        self.job = job
        self._stop_requested = stop_requested
        self.array = Array(num_threads)
        self._shelf = DataShelf()
        self._rows: dict[str, tuple[TrialRun, Row]] = {}

    def seat(self, trial_id: str, number: int, sample: dict[str, Any]) -> None:
        """Gives a trial a row; it begins when it is asked to advance."""
        trial = TrialRun(self.job, number, sample)
        row = make_row(
            trial.run,
            trial.begin,
            shelf=self._shelf,
            reporter=trial.reporter,
            argv=trial.argv,
        )
        self._rows[trial_id] = trial, row

    def advance(self, trial_ids: Sequence[str]) -> Reports:
        """Trains rows until at least one has a report or has ended, or until a stop; returns the reports."""
        rows = [self._rows[trial_id][1] for trial_id in trial_ids]
        self.array.advance(rows, stop_requested=self._stop_requested)
        reports = {}
        for trial_id in trial_ids:
            trial, row = self._rows[trial_id]
            if row.report is not None or row.ended:
                reports[trial_id] = row.take_report() or self._last(trial, row)
        return reports

    def _last(self, trial: TrialRun, row: Row) -> dict[str, Any]:
        """Returns the report of a row that has ended."""
        if isinstance(row.error, HeadwayError):
            trial.record(row.error)
        elif row.error is not None:
            with trial.run.log(0).open("a") as log:
                traceback.print_exception(row.error, file=log)
            trial.record(HeadwayError(f"{type(row.error).__name__}: {row.error}"))
        return trial.last_report()

    def lend(self, trial_id: str, folder: str) -> None:
        """Copies what another trial, or this one later, needs to go on from here."""
        trial, row = self._rows[trial_id]
        row.write_checkpoints()
        trial.lend(Path(folder))

    def adopt(self, trial_id: str, folder: str) -> None:
        """Has a trial that has not begun go on from a copy."""
        self._rows[trial_id][0].adopt(Path(folder))

    def stop(self, trial_id: str) -> None:
        """Ends a trial where it waits, and returns when its run folder is closed."""
        trial, row = self._rows.pop(trial_id)
        row.stop()
        if isinstance(row.error, HeadwayError):
            trial.record(row.error)

    def close(self) -> None:
        """Ends whatever still trains."""
        for trial_id in list(self._rows):
            self.stop(trial_id)


@ray.remote
class _ArrayActor(TrialArray):
    """An array in a process of its own."""

    def __init__(self, job: TrialJob, num_threads: int | None) -> None:
        os.chdir(job.folder)
        # For as long as the process lives.
        ExitStack().enter_context(quiet_lightning())
        super().__init__(job, num_threads)


class Here:
    """An array in this process: it advances when its reports are taken."""

    def __init__(self, job: TrialJob, *, stop_requested: Callable[[], bool] = lambda: False) -> None:
        self._array = TrialArray(job, stop_requested=stop_requested)
        self._asked: tuple[str, ...] | None = None

    def ask(self, method: str, *arguments: Any) -> None:
        """Does it."""
        getattr(self._array, method)(*arguments)

    ask_and_wait = ask

    def begin(self, trial_ids: Sequence[str]) -> None:
        """Notes which trials are to advance."""
        self._asked = tuple(trial_ids)

    @property
    def is_advancing(self) -> bool:
        """Returns whether reports are on their way."""
        return self._asked is not None

    def take(self) -> Reports:
        """Advances, and returns the reports."""
        asked, self._asked = self._asked or (), None
        return self._array.advance(asked)

    def close(self) -> None:
        """Ends whatever still trains."""
        self._array.close()


@dataclass(frozen=True)
class Device:
    """What an array in a process of its own reserves."""

    cpus: int
    gpus: float


class Elsewhere:
    """An array in a Ray actor, on whatever node Ray puts it."""

    def __init__(self, job: TrialJob, device: Device) -> None:
        actor: Any = _ArrayActor
        self._actor = actor.options(num_cpus=device.cpus, num_gpus=device.gpus).remote(job, device.cpus)
        self.reports: Any = None
        """Ray's reference to the reports that are on their way."""

    def ask(self, method: str, *arguments: Any) -> None:
        """Sends it; an actor does what it is sent in that order."""
        getattr(self._actor, method).remote(*arguments)

    def ask_and_wait(self, method: str, *arguments: Any) -> None:
        """Sends it and waits."""
        ray.get(getattr(self._actor, method).remote(*arguments))

    def begin(self, trial_ids: Sequence[str]) -> None:
        """Sends it."""
        self.reports = self._actor.advance.remote(list(trial_ids))

    @property
    def is_advancing(self) -> bool:
        """Returns whether reports are on their way."""
        return self.reports is not None

    def take(self) -> Reports:
        """Returns the reports, once they are there.

        Raises:
            RayActorError: its process died.
        """
        reports, self.reports = self.reports, None
        found: Reports = ray.get(reports)
        return found

    def close(self) -> None:
        """Ends whatever still trains, and the process."""
        with suppress(RayActorError):
            self.ask_and_wait("close")
        ray.kill(self._actor)


Host = Here | Elsewhere
"""An array, as whoever seats trials sees it: what is asked of it is done in that order."""
