"""The sweep's folder, and how its trials stand.

    runs/<sweep>/
      sweep.yaml      the resolved recipe, with its sweep section
      plan.json       what the sweep was asked for, as its author wrote it: what --resume reads
      status.json     state, counts of trials, the best so far, the process that searches; replaced whole
      *.copy.json     a copy of each of these two, for where a disk has lost one (copies.py)
      journal.jsonl   what happened, in its order (journal.py)
      trials.jsonl    one row a trial, appended when it ends; the last row of a number counts
      lock            held by the one process that searches
      ray/            Ray Tune's own files, while it searches
    runs/<sweep>-0007/  trial 7: an ordinary run

What a trial came to is read from its run folder, as everything else does; the ledger adds what only
the sweep knows: what was sampled, and that its scheduler or an interrupt ended it.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.reading import read_text
from headway.run import MetricsFile, RunFolder, check_run_name, read_metrics, replace_file
from headway.sweep.check import Plan
from headway.sweep.copies import write_both
from headway.sweep.journal import Event, Journal, keep_events
from headway.sweep.result import ENDED, Status, Trial, best_trial, outcome_of

WRITE_INTERVAL_S = 1.0


def trial_run_id(sweep_id: str, number: int) -> str:
    """Returns the id of a trial's run."""
    return f"{sweep_id}-{number:04d}"


def create_sweep_folder(runs: Path, plan: Plan, *, name: str | None) -> RunFolder:
    """Makes the sweep's folder and writes its recipe.

    Raises:
        UserError: the name is taken or unfit, or the folder cannot be written.
    """
    sweep_id = name or f"{plan.name}-sweep-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    check_run_name(trial_run_id(sweep_id, plan.num_trials - 1))
    path = runs / sweep_id
    if path.exists() or any(runs.glob(f"{sweep_id}-[0-9][0-9][0-9][0-9]*")):
        raise UserError(f"--name: {path} or trials of it exist already; choose another")
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--runs: {runs} cannot be written ({error.strerror}); choose another folder") from None
    folder = RunFolder(path)
    write_plan(folder, plan)
    return folder


def write_plan(folder: RunFolder, plan: Plan) -> None:
    """Writes what a sweep is, for people and for a resume."""
    replace_file(folder.path / "sweep.yaml", plan.resolved)
    asked = {"tree": plan.tree, "trust": plan.trust, "command": plan.command, "fixed": plan.fixed}
    # The whole recipe is for people: half of it could still be read as one.
    asked["sweep"] = read_text(plan.resolved, source="sweep.yaml")["sweep"]
    write_both(folder, "plan.json", asked)


@dataclass(frozen=True)
class Counts:
    """How many trials stand where."""

    total: int
    pending: int
    running: int
    done: int
    stopped: int
    failed: int
    paused: int = 0
    """Those that have trained and wait for others, or for room."""


class Ledger:
    """Keeps account of a sweep's trials.

    Args:
        folder: the sweep's.
        plan: what is swept.
        past: what happened before, where the sweep is gone on with.
    """

    def __init__(self, folder: RunFolder, plan: Plan, past: Sequence[Event] = ()) -> None:
        self.folder = folder
        self.plan = plan
        self.past = list(past)
        self._trials: dict[int, Trial] = {}
        self._reached: dict[int, int] = {}
        self._ended: set[int] = set()
        self._paused: set[int] = set()
        self._journal: Journal | None = None
        self._written = math.inf
        for event in past:
            self._repeat(event)
        keep_events(folder.path / "journal.jsonl", past)
        self._journal = Journal(folder.path / "journal.jsonl")
        told = {(row.get("trial"), row.get("status")) for row in read_metrics(folder.path / "trials.jsonl")}
        self._file = MetricsFile(folder.path / "trials.jsonl")
        self._written = 0.0
        for number in sorted(self._ended):
            # A crash may come between the journal's line and this file's.
            if (number, self._trials[number].status) not in told:
                self._write_row(number)
        self._write("running")

    def _repeat(self, event: Event) -> None:
        """Takes note of what happened before."""
        if event.kind == "start":
            self.start(event.number, event.config or {})
        elif event.kind == "report":
            self.report(event.number, {self.plan.search.metric: event.value, "step": event.step})
        elif event.kind == "end":
            status: Status = event.status if event.status in ENDED else "failed"
            self._ended.add(event.number)
            self._trials[event.number] = replace(self._trials[event.number], status=status, reason=event.reason)

    def _note(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.write(event)

    # ---- what happens to a trial -----------------------------------------------------------------

    def propose(self, number: int, config: dict[str, Any]) -> None:
        """Notes what a trial is to try."""
        self._note(Event("propose", number, config=dict(config)))

    def start(self, number: int, config: dict[str, Any]) -> None:
        """Notes that a trial runs, with what it tries; nothing where that is known."""
        config = self.plan.search.active(config)
        known = self._trials.get(number)
        if known is not None and known.config == config:
            return
        run = self._run(number)
        value, step = (known.value, known.step) if known else (None, None)
        self._trials[number] = Trial(run.id, str(run.path), "running", config, value, step)
        self._note(Event("start", number, config=config))
        self._write("running", throttled=True)

    def report(self, number: int, metrics: dict[str, Any]) -> None:
        """Notes a trial's validation."""
        trial, value = self._trials[number], metrics.get(self.plan.search.metric)
        if value is None:
            return
        value, step = float(value), int(metrics["step"])
        iteration, last = metrics.get("training_iteration"), bool(metrics.get("done"))
        self._note(Event("report", number, step=step, value=value, iteration=iteration, last=last))
        self._reached[number] = step
        sign = 1.0 if self.plan.search.mode == "min" else -1.0
        if trial.value is None or sign * value < sign * trial.value or trial.value != trial.value:
            self._trials[number] = replace(trial, value=value, step=step)
            self._write("running", throttled=True)

    def pause(self, numbers: Collection[int]) -> bool:
        """Notes which trials wait, begun or not; returns whether it is others than before that have begun."""
        before, self._paused = self._paused, {number for number in numbers if number in self._trials}
        return self._paused != before

    def learn(self, number: int, value: float, budget: float) -> None:
        """Notes that BOHB was told of a rung."""
        self._note(Event("learn", number, value=value, budget=budget))

    def end(self, number: int, error: str | None = None) -> None:
        """Notes that a trial is over, as its run says, or as its scheduler or its process's end did.

        Args:
            number: which.
            error: why its process ended, where it did not end by itself.
        """
        state, reason = outcome_of(self._run(number))
        if state is not None:
            self._settle(number, state, reason)
        elif error is not None:
            self._settle(number, "failed", error)
        else:
            # Its thread waits in its last report, and writes this itself when the actor goes on to another trial.
            self._settle(number, "stopped", f"stopped by {self.plan.search.scheduler.kind}{self._at(number)}")

    def _settle(self, number: int, state: Status, reason: str | None, *, interrupted: bool = False) -> None:
        self._trials[number] = replace(self._trials[number], status=state, reason=reason)
        if not interrupted:
            # What an interrupt cut short goes on when the sweep does.
            self._ended.add(number)
            self._note(Event("end", number, status=state, reason=reason))
        self._write_row(number)
        self._write("running", throttled=True)

    def _write_row(self, number: int) -> None:
        trial = vars(self._trials[number])
        self._file.write([{"trial": number, **{key: value for key, value in trial.items() if value is not None}}])

    # ---- how the sweep stands --------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        """Returns how many trials stand where."""
        total = self.plan.num_trials
        states = [trial.status for trial in self._trials.values()]
        unended, done, stopped, failed = (states.count(state) for state in ("running", *ENDED))
        paused = sum(self._trials[number].status == "running" for number in self._paused)
        return Counts(total, total - len(states), unended - paused, done, stopped, failed, paused)

    @property
    def num_ended(self) -> int:
        """Returns how many trials have ended for good."""
        return len(self._ended)

    @property
    def is_over(self) -> bool:
        """Returns whether every trial has ended."""
        return self.num_ended >= self.plan.num_trials

    @property
    def trials(self) -> list[Trial]:
        """Returns the trials that started, in the order they were proposed."""
        return [trial for _, trial in sorted(self._trials.items())]

    @property
    def best(self) -> Trial | None:
        """Returns the best trial so far."""
        return best_trial(self.trials, self.plan.search.mode)

    def close(self, state: str, *, reason: str | None = None) -> None:
        """Writes how the sweep ended, and into the runs that something cut short that they did.

        Args:
            state: done, stopped or failed.
            reason: why, where it is not done.
        """
        for number, trial in self._trials.items():
            if trial.status == "running":
                outcome, why = outcome_of(self._run(number))
                if outcome in (None, "stopped"):
                    # A trial that could still wind up did so at a report that was not heard any more.
                    self._reached[number] = int(self._run(number).status().get("step", 0))
                    outcome, why = "stopped", f"stopped with its sweep{self._at(number)}"
                self._settle(number, outcome or "stopped", why, interrupted=outcome not in ("done", "failed"))
        for trial in self.trials:
            run = RunFolder(Path(trial.run_dir))
            status = run.status()
            if run.recipe.is_file() and (status.get("state"), status.get("reason")) != (trial.status, trial.reason):
                run.update_status(state=trial.status, reason=trial.reason)
        self._file.close()
        if self._journal is not None:
            self._journal.close()
        self._write(state, reason=reason)

    def _at(self, number: int) -> str:
        return f" at step {self._reached[number]}" if number in self._reached else ""

    def _run(self, number: int) -> RunFolder:
        return RunFolder(self.folder.path.parent / trial_run_id(self.folder.id, number))

    def _write(self, state: str, *, reason: str | None = None, throttled: bool = False) -> None:
        now = time.monotonic()
        if throttled and now - self._written < WRITE_INTERVAL_S:
            return
        self._written = now
        best = self.best
        status = {
            "kind": "sweep",
            "state": state,
            "recipe": self.plan.name,
            "metric": self.plan.search.metric,
            "mode": self.plan.search.mode,
            "trials": vars(self.counts),
            "best": None if best is None else vars(best),
            "reason": reason,
            "pid": os.getpid() if state == "running" else None,
            "host": socket.gethostname(),
            "updated": time.time(),
        }
        write_both(self.folder, "status.json", {key: value for key, value in status.items() if value is not None})
