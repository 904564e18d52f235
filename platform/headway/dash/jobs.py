"""Every launcher's jobs, asked for in the background: one that does not answer keeps nobody waiting.

Somebody who looks is told what was last heard, and has each launcher asked again in a thread of its own, at most
every few seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.dash.run_page import MAX_LOG_BYTES, piece
from headway.jobs import board
from headway.jobs.records import JobRecord, list_records
from headway.launch.base import ENDED

EVERY_S = 5.0
WAITS_S = 20.0
MAX_TASK_LOG_BYTES = 32 << 20


class Jobs:
    """The jobs whose runs are in a folder.

    Args:
        root: the folder of run folders.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._records: list[JobRecord] = []
        self._tasks: dict[str, list[board.Task]] = {}
        self._busy: dict[str, float] = {}
        """When each launcher that has not answered yet was asked."""
        self._asked: dict[str, float] = {}
        self._problems: dict[str, str | None] = {}
        """Why each launcher could not be asked; None where it could."""
        self._read = 0.0

    def answer(self, *, wait: bool = False) -> dict[str, Any]:
        """Returns every job as it was last seen, and asks the launchers again; with `wait` first, for a while."""
        records = self._refresh()
        until = time.monotonic() + WAITS_S
        while wait and self._busy and time.monotonic() < until:
            time.sleep(0.05)
        with self._lock:
            known = {key: list(tasks) for key, tasks in self._tasks.items()}
            busy = dict(self._busy)
        jobs, problems = [], {}
        for record in records:
            tasks = known.get(record.job.id) or board.last_seen(record)
            for task in tasks:
                jobs.append(_line(task))
                if task.status.reason.startswith(board.LAST_SEEN):
                    problems[record.profile.kind] = task.status.reason.removeprefix(board.LAST_SEEN).strip(": ")
        now = time.monotonic()
        for key, together in board.by_launcher(records).items():
            if self._problems.get(key) is not None:
                problems[together[0].profile.kind] = self._problems[key] or ""
            if now - busy.get(key, now) > EVERY_S:
                problems[together[0].profile.kind] = f"has not answered for {now - busy[key]:.0f} s"
        kinds = dict.fromkeys(record.profile.kind for record in records)
        return {"jobs": jobs, "launchers": [{"name": kind, "error": problems.get(kind)} for kind in kinds]}

    def log(self, job_id: str, task: int, begin: int) -> dict[str, Any]:
        """Returns a piece of what a task's first process printed.

        Raises:
            UserError: there is no such job, task or log.
        """
        record = self.find(job_id)
        if not 0 <= task < len(record.job.names):
            raise UserError(f"task: {task}, but {job_id} has {len(record.job.names)}")
        sent = record.sent()
        if sent is None:
            raise UserError(f"{job_id}: was not sent, so there is no log")
        text = "".join(_up_to(record.profile.log(sent, task=task, follow=False), MAX_TASK_LOG_BYTES))
        raw = text.encode("utf-8", "replace")
        start = max(0, len(raw) + begin) if begin < 0 else min(begin, len(raw))
        return piece(raw[start : start + MAX_LOG_BYTES], start, len(raw))

    def find(self, job_id: str) -> JobRecord:
        """Returns a job by its id, or by that of one of its tasks.

        Raises:
            UserError: there is none.
        """
        name = job_id.partition("/")[0]
        for record in self._refresh():
            if record.job.id == name:
                return record
        raise UserError(f"{name}: no such job in {self.root}")

    def cancel(self, job_id: str) -> str:
        """Ends a job; returns what came of it."""
        cancelled = board.cancel([self.find(job_id)])
        self._forget()
        return "cancelled" if cancelled else "had ended by itself"

    def retry(self, job_id: str) -> str:
        """Sends a job that has ended once more; returns the id of the job that goes on.

        Raises:
            UserError: it has not ended, is done, goes on already, or is refused.
        """
        record = self.find(job_id)
        states = [task.status.state for task in board.look([record])]
        if any(state not in ENDED for state in states):
            raise UserError(f"{record.job.id}: has not ended; cancel it first, or wait for it")
        if all(state == "done" for state in states):
            raise UserError(f"{record.job.id}: all of it is done")
        if record.retried_as() is not None:
            raise UserError(f"{record.job.id}: goes on as {record.retried_as()} already")
        from headway.jobs.submit import retry

        again = retry(record)
        self._forget()
        return again.job.id

    def _forget(self) -> None:
        with self._lock:
            self._read = 0.0
            self._asked.clear()

    def _refresh(self) -> list[JobRecord]:
        """Returns the records, read again now and then, and asks each launcher that is not being asked."""
        with self._lock:
            if time.monotonic() - self._read > 1.0:
                self._records = list_records(self.root)
                self._read = time.monotonic()
            records = self._records
            now = time.monotonic()
            due = []
            for key, together in board.by_launcher(records).items():
                if key in self._busy or now - self._asked.get(key, -EVERY_S) < EVERY_S:
                    continue
                self._busy[key], self._asked[key] = now, now
                due.append((key, together))
        for key, together in due:
            threading.Thread(target=self._ask, args=(key, together), daemon=True, name="jobs").start()
        return records

    def _ask(self, key: str, records: Sequence[JobRecord]) -> None:
        tasks, problem = [], None
        try:
            tasks = board.look(records)
        except UserError as error:
            problem = str(error)
        finally:
            with self._lock:
                self._busy.pop(key, None)
        with self._lock:
            self._problems[key] = problem
            for record in records if problem is None else ():
                self._tasks[record.job.id] = [task for task in tasks if task.record.job.id == record.job.id]


def _line(task: board.Task) -> dict[str, Any]:
    whole = task.as_dict()
    return {
        "id": whole["job"],
        "task": task.index,
        "run": whole["run"],
        "group": whole["group"],
        "state": whole["state"],
        "reason": whole["reason"],
        "launcher": whole["launcher"],
        "profile": whole["profile"],
        "where": ", ".join(whole["where"]),
        "since": whole["since"] or whole["submitted"],
        "submitted": whole["submitted"],
        "requeues": whole["requeues"],
        "step": whole["step"],
        "total_steps": None,
        "progress": task.progress(),
        "metric": task.metric(),
        "exit_code": whole["exit_code"],
    }


def _up_to(pieces: Iterator[str], limit: int) -> Iterator[str]:
    seen = 0
    for text in pieces:
        yield text
        seen += len(text)
        if seen > limit:
            return
