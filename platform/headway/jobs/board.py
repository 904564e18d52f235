"""Where jobs stand: what their launchers say, joined with what their run folders say."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headway.config.errors import EXIT_DONE, EXIT_TRAINING_FAILED, UserError
from headway.jobs.records import JobRecord, list_records
from headway.launch.base import ENDED, JobStatus, Launcher, Sent, Unreachable
from headway.run import RunFolder

EXIT_CANCELLED = 143
LAST_SEEN = "last seen so"
"""How the reason begins of a job whose launcher cannot be asked."""


@dataclass(frozen=True)
class Task:
    """One run of a job, and where it stands."""

    record: JobRecord
    index: int
    status: JobStatus

    @property
    def id(self) -> str:
        """Returns the job's id; of an array's task, with its number."""
        return f"{self.record.job.id}/{self.index}" if self.record.job.is_array else self.record.job.id

    @property
    def run(self) -> RunFolder:
        """Returns the run's folder, which may not be there (yet, or on this machine)."""
        return RunFolder(self.record.runs / self.record.job.names[self.index])

    def progress(self) -> str:
        """Returns how far it is: the step of a run, the trials of a sweep."""
        run = self.run.status()
        trials = run.get("trials")
        if isinstance(trials, dict):
            ended = sum(int(trials.get(state, 0)) for state in ("done", "stopped", "failed"))
            return f"{ended} of {trials.get('total', '?')} trials"
        return f"step {run['step']}" if run.get("step") else ""

    def metric(self) -> str:
        """Returns the best value so far of what the run or the sweep is judged by."""
        run = self.run.status()
        best = run.get("best") or {}
        name, value = best.get("metric", run.get("metric")), best.get("value")
        return f"{name} {value:.4g}" if name and isinstance(value, int | float) else ""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        run = self.run.status()
        return {
            "job": self.id,
            "native_id": self.record.native_id(),
            "run": self.run.id,
            "group": self.record.job.group,
            "profile": self.record.profile_name,
            "launcher": self.record.profile.kind,
            "state": self.status.state,
            "reason": self.status.reason,
            "where": list(self.status.where),
            "since": self.status.since,
            "submitted": self.record.submitted,
            "exit_code": self.status.exit_code,
            "requeues": self.status.requeues,
            "step": run.get("step"),
            "trials": run.get("trials"),
            "best": run.get("best"),
        }


def look(records: Sequence[JobRecord]) -> list[Task]:
    """Returns every task of jobs, having asked each launcher once for all of its jobs.

    What has ended is not asked for again. A launcher that cannot be asked leaves its jobs as they were last seen.
    """
    known: dict[str, tuple[JobStatus, ...]] = {}
    for together in by_launcher(records).values():
        known.update(_statuses(together))
    return [Task(record, index, status) for record in records for index, status in enumerate(known[record.job.id])]


def last_seen(record: JobRecord) -> list[Task]:
    """Returns a job's tasks as they were last seen, without asking its launcher."""
    seen = _settled(record) or record.seen() or _same(record, JobStatus("pending", "sent"))
    return [Task(record, index, status) for index, status in enumerate(seen)]


def by_launcher(records: Sequence[JobRecord]) -> dict[str, list[JobRecord]]:
    """Returns the records in groups that one question answers, by what tells whom to ask."""
    groups: dict[str, list[JobRecord]] = {}
    for record in records:
        groups.setdefault(json.dumps(_place(record.profile), sort_keys=True), []).append(record)
    return groups


def select(runs: Path, names: Iterable[str]) -> list[JobRecord]:
    """Returns the jobs that are meant: by id, by the launcher's id, by run, or all of a group or sweep.

    Raises:
        UserError: a name that is none of these.
    """
    records = list_records(runs)
    found: dict[str, JobRecord] = {}
    for name in names:
        meant = [record for record in records if name in _names(record)]
        if not meant:
            raise UserError(f"{name}: no such job in {runs}/; `headway jobs` lists them")
        found.update({record.job.id: record for record in meant})
    return list(found.values())


def cancel(records: Sequence[JobRecord]) -> list[JobRecord]:
    """Ends jobs, running or not, and returns those that had not ended by themselves."""
    going_on = {task.record.job.id for task in look(records) if task.status.state not in ENDED}
    active = [record for record in records if record.job.id in going_on]
    for record in active:
        # Said first: an end that comes before the launcher answers is no failure.
        record.mark_cancelled()
    for together in by_launcher(active).values():
        together[0].profile.cancel([sent for record in together if (sent := record.sent()) is not None])
    return active


def wait(records: Sequence[JobRecord], *, every_s: float = 2.0) -> Iterator[list[Task]]:
    """Yields where jobs stand until all have ended."""
    while True:
        tasks = look(records)
        yield tasks
        if all(task.status.state in ENDED for task in tasks):
            return
        time.sleep(every_s)


def exit_code(tasks: Sequence[Task]) -> int:
    """Returns the exit code that stands for jobs: of the first that did not go well; 0 where all did."""
    for task in tasks:
        if task.status.state == "cancelled":
            return EXIT_CANCELLED
        if task.status.state != "done":
            return task.status.exit_code or EXIT_TRAINING_FAILED
    return EXIT_DONE


def _names(record: JobRecord) -> set[str]:
    job = record.job
    tasks = {f"{job.id}/{index}" for index in range(len(job.names))} if job.is_array else set()
    return {job.id, job.group, *job.names, *tasks, record.native_id() or job.id}


def _place(profile: Launcher) -> dict[str, Any]:
    """Returns the settings of a profile that say whom to ask, not what for."""
    return {name: getattr(profile, name) for name in ("kind", *type(profile).PLACE)}


def _statuses(records: Sequence[JobRecord]) -> dict[str, tuple[JobStatus, ...]]:
    """Returns where the jobs of one launcher stand, by job id."""
    known: dict[str, tuple[JobStatus, ...]] = {}
    ask: list[tuple[JobRecord, Sent]] = []
    problem = ""
    for record in records:
        settled = _settled(record)
        if settled is not None:
            known[record.job.id] = settled
            continue
        try:
            sent = record.sent() or _find(record)
        except Unreachable as error:
            known[record.job.id] = _unknown(record, str(error))
            continue
        if sent is None:
            known[record.job.id] = _same(record, _never_sent(record))
        else:
            ask.append((record, sent))
    answers: dict[str, tuple[JobStatus, ...]] = {}
    if ask:
        try:
            answers = ask[0][0].profile.statuses([sent for _, sent in ask])
        except Unreachable as error:
            problem = str(error)
    for record, _ in ask:
        statuses = answers.get(record.job.id)
        if statuses is None:
            known[record.job.id] = _unknown(record, problem or f"{record.profile.kind} cannot tell now")
            continue
        known[record.job.id] = tuple(_as_asked(record, status) for status in statuses)
        record.mark_seen(known[record.job.id])
    return known


def _settled(record: JobRecord) -> tuple[JobStatus, ...] | None:
    """Returns where a job stands that no launcher need be asked for."""
    refused = record.refusal()
    if refused is not None:
        return _same(record, JobStatus("failed", f"refused: {refused}"))
    seen = record.seen()
    return seen if seen and all(status.state in ENDED for status in seen) else None


def _find(record: JobRecord) -> Sent | None:
    """Returns a job whose sending was cut off, where the launcher has it after all."""
    if record.is_being_sent():
        return None
    native_id = record.profile.find(record.job, record.folder)
    if native_id is None:
        return None
    record.mark_sent(native_id)
    return record.sent()


def _never_sent(record: JobRecord) -> JobStatus:
    if record.is_being_sent():
        return JobStatus("pending", "is being sent")
    return JobStatus("lost", f"never reached {record.profile.kind}; `headway jobs retry {record.job.id}` sends it")


def _same(record: JobRecord, status: JobStatus) -> tuple[JobStatus, ...]:
    return (status,) * len(record.job.names)


def _unknown(record: JobRecord, problem: str) -> tuple[JobStatus, ...]:
    """Returns where a job was last seen, with why there is nothing newer."""
    seen = record.seen() or _same(record, JobStatus("pending", "sent"))
    return tuple(
        status if status.state in ENDED else replace(status, reason=f"{LAST_SEEN}: {problem}") for status in seen
    )


def _as_asked(record: JobRecord, status: JobStatus) -> JobStatus:
    """Returns the status, with an end that somebody asked for told as such."""
    if record.was_cancelled() and status.state in ("failed", "lost"):
        return replace(status, state="cancelled", reason="")
    return status
