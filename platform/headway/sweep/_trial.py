"""What runs in Ray's worker processes: one trial after another, each an ordinary `fit`.

Ray asks (`step`) and `fit` tells (`on_report`), so each fit has a thread that waits in its reports.
Ray's function trainables have the same thread, but leave it behind: a stop raises SystemExit in it
at the actor's next trial, with two seconds to wind up, and at the end of the sweep it is not waited
for at all. Here it is joined both times, so that a stopped run is closed like any other.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from ray.tune import Trainable
from ray.tune.result import RESULT_DUPLICATE

from headway.config.errors import HeadwayError, Stopped
from headway.config.overrides import override
from headway.config.reading import Tree
from headway.fit import fit
from headway.recipe import Recipe, load_recipe
from headway.run import RunFolder, create_run
from headway.sweep.ledger import trial_run_id
from headway.track.recorder import OnReport
from headway.training import total_steps

Metrics = dict[str, float]


@dataclass(frozen=True)
class TrialJob:
    """What the trials of a sweep have in common."""

    tree: Tree
    fixed: dict[str, Any]
    runs: str
    sweep_id: str
    trust: tuple[str, ...]
    scheduler: str
    folder: str
    """Where the sweep was started: relative paths in the recipe start there."""


class TrialActor(Trainable):  # type: ignore[misc]  # Ray has no types
    """Trains one trial at a time, up to its next report at each call of `step`."""

    def setup(self, config: dict[str, Any], job: TrialJob) -> None:
        """Gets ready for the first trial."""
        os.chdir(job.folder)
        self.job = job
        self.running = RunningTrial(job, trial_number(self.trial_id), config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Closes one trial and gets ready for the next."""
        self.running.stop()
        self.running = RunningTrial(self.job, trial_number(self.trial_id), new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Trains up to the next report and returns it."""
        return self.running.advance()

    def cleanup(self) -> None:
        """Closes the last trial."""
        self.running.stop()


def trial_number(trial_id: str) -> int:
    """Returns a trial's number, which Ray counts at the end of its ids."""
    return int(trial_id.rpartition("_")[2])


class RunningTrial:
    """One fit in a thread, which waits at each report until it is told to go on or to stop.

    Args:
        job: what the trials have in common.
        number: which this is.
        sample: its changes to the recipe.
    """

    def __init__(self, job: TrialJob, number: int, sample: dict[str, Any]) -> None:
        self.trial = TrialRun(job, number, sample)
        self._reports: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()
        self._go_on: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=self.trial.run_id, daemon=True)

    def advance(self) -> dict[str, Any]:
        """Goes on to the next report and returns it; `done` comes with or after the last.

        Raises:
            Exception: the fit ended with what was not foreseen; its run folder says so.
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
        """Ends the fit, if it has not ended, and waits until its run folder is closed."""
        if self._thread.ident is not None:
            self._go_on.put(False)
            self._thread.join()

    # ---- in the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        trial = self.trial
        try:
            recipe = trial.recipe()
            fit(
                recipe,
                runs=trial.job.runs,
                name=trial.run_id,
                trust=trial.job.trust,
                on_report=trial.reporter(recipe, self._ask),
                argv=trial.argv,
                progress=False,
            )
        except HeadwayError as error:
            trial.record(error)
        except BaseException as error:
            self._reports.put(error)
            return
        self._reports.put(trial.last_report())

    def _ask(self, metrics: Metrics) -> bool:
        self._reports.put(metrics)
        return self._go_on.get()


class TrialRun:
    """A trial as a run: its recipe, its reports, and what its status says of its end.

    Args:
        job: what the trials have in common.
        number: which this is.
        sample: its changes to the recipe.
    """

    def __init__(self, job: TrialJob, number: int, sample: dict[str, Any]) -> None:
        self.job = job
        self.sample = sample
        self.run_id = trial_run_id(job.sweep_id, number)
        self.argv = ["headway", "sweep", self.run_id]
        self._last: Metrics | None = None
        self._reached = 0

    def recipe(self) -> Recipe:
        """Returns the sweep's recipe with the sample.

        Raises:
            UserError: the sample goes against it.
        """
        changes = {"track.group": self.job.sweep_id, **self.job.fixed, **self.sample}
        return load_recipe(self.job.tree, changes, trust=self.job.trust)

    def reporter(self, recipe: Recipe, ask: Callable[[Metrics], bool]) -> OnReport:
        """Returns what the run calls with each validation.

        Args:
            recipe: the trial's.
            ask: hands on a report and returns whether to go on.
        """

        def on_report(metrics: Metrics) -> bool:
            self._reached = int(metrics["step"])
            batches_per_epoch = round(metrics["step"] / metrics["epoch"])
            if self._reached >= total_steps(recipe, batches_per_epoch):
                # There is nothing left to stop; reported once the run is tested and closed.
                self._last = metrics
                return True
            if ask(metrics):
                return True
            message = f"stopped by {self.job.scheduler} at step {self._reached}"
            raise Stopped(message, signal_number=signal.SIGTERM)

        return on_report

    def last_report(self) -> dict[str, Any]:
        """Returns the report at the end of the trial.

        Where there is nothing new to report, Ray takes the last one as the end, as it does for its functions.
        """
        return {**self._last, "done": True} if self._last else {RESULT_DUPLICATE: True}

    def record(self, error: HeadwayError) -> None:
        """Adds to the run's status what only the trial knows; a trial that was refused gets a run that says why."""
        run = RunFolder(Path(self.job.runs) / self.run_id)
        if not run.path.exists():
            create_run(run.path.parent, self.run_id, name=self.run_id)
            with contextlib.suppress(HeadwayError):
                run.recipe.write_text(yaml.safe_dump(override(self.job.tree, self.sample), sort_keys=False))
            run.update_status(state="failed", reason=str(error))
        elif isinstance(error, Stopped):
            run.update_status(step=self._reached)
