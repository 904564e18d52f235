"""What runs in Ray's worker processes: one trial after another, each an ordinary `fit`.

Ray asks (`step`) and `fit` tells (`on_report`), so each fit has a thread that waits in its reports.
Ray's function trainables have the same thread, but leave it behind: a stop raises SystemExit in it
at the actor's next trial, with two seconds to wind up, and at the end of the sweep it is not waited
for at all. Here it is joined both times, so that a stopped run is closed like any other.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ray.tune import Trainable

from headway.config.errors import HeadwayError
from headway.fit import fit_trial
from headway.sweep._trial_run import SAVE_EVERY_S, Metrics, TrialJob, TrialRun


class Running(Protocol):
    """A trial that trains up to its next report when it is asked."""

    trial: TrialRun

    def advance(self) -> dict[str, Any]:
        """Goes on to the next report and returns it; `done` comes with or after the last."""

    def stop(self) -> None:
        """Ends it, if it has not ended, and waits until its run folder is closed."""


class TrialActor(Trainable):  # type: ignore[misc]  # Ray has no types
    """Trains one trial at a time, up to its next report at each call of `step`."""

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Gets ready for the first trial."""
        os.chdir(job.folder)
        self.job = job
        self.running = self._make(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Closes one trial and gets ready for the next."""
        self.running.stop()
        self.running = self._make(new_config)
        return True

    def _make(self, config: dict[str, Any]) -> Running:
        trial = TrialRun(self.job, trial_number(self.trial_id), config)
        if self.job.ranks == 1:
            return RunningTrial(trial)
        from headway.sweep._ranks import RankedTrial

        return RankedTrial(trial)

    def step(self) -> dict[str, Any]:
        """Trains up to the next report and returns it."""
        return self.running.advance()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Copies what another trial, or this one later, needs to go on from here."""
        self.running.trial.lend(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Has the trial go on from a copy."""
        self.running.trial.adopt(Path(checkpoint))

    def cleanup(self) -> None:
        """Closes the last trial."""
        self.running.stop()


def trial_number(trial_id: str) -> int:
    """Returns a trial's number, which stands at the end of its id."""
    return int(trial_id.rpartition("_")[2])


class Conversation:
    """A thread that waits at each of its reports until it is told to go on or to stop.

    Args:
        name: the thread's.
        work: what it does; called with `ask`, which hands on a report and returns whether to go on. What it returns is
            the last report.
    """

    def __init__(self, name: str, work: Callable[[Callable[[Metrics], bool]], dict[str, Any]]) -> None:
        self._reports: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def advance(self) -> dict[str, Any]:
        """Goes on to the next report and returns it.

        Raises:
            BaseException: what the work raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._go_on.put(True)
        report = self._reports.get()
        if isinstance(report, BaseException):
            raise report
        return report

    def stop(self) -> None:
        """Ends the work, if it has not ended, and waits for that."""
        if self._thread.ident is not None:
            self._go_on.put(False)
            self._thread.join()

    def _run(self) -> None:
        try:
            report: dict[str, Any] | BaseException = self._work(self._ask)
        except BaseException as error:
            report = error
        self._reports.put(report)

    def _ask(self, metrics: Metrics) -> bool:
        self._reports.put(metrics)
        return self._go_on.get()


class RunningTrial:
    """A trial on this one process.

    Args:
        trial: which.
    """

    def __init__(self, trial: TrialRun) -> None:
        self.trial = trial
        self._conversation = Conversation(trial.run.id, self._work)

    def advance(self) -> dict[str, Any]:
        """Goes on to the next report and returns it; `done` comes with or after the last."""
        return self._conversation.advance()

    def stop(self) -> None:
        """Ends the fit, if it has not ended, and waits until its run folder is closed."""
        self._conversation.stop()

    def _work(self, ask: Callable[[Metrics], bool]) -> dict[str, Any]:
        trial = self.trial
        try:
            recipe = trial.begin()
            fit_trial(
                recipe,
                trial.run,
                trust=trial.job.trust,
                on_report=trial.reporter(recipe, ask),
                argv=trial.argv,
                save_every_s=SAVE_EVERY_S,
            )
        except HeadwayError as error:
            trial.record(error)
        except Exception as error:
            # Trained again it would end the same way; only a process that died is worth another try.
            with trial.run.log(0).open("a") as log:
                traceback.print_exception(error, file=log)
            trial.record(HeadwayError(f"{type(error).__name__}: {error}"))
        return trial.last_report()
