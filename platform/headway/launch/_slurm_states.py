"""Reads what squeue and sacct say, in headway's words."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from headway.launch.base import JobStatus, State, meaning

_COLUMNS = (
    "ArrayJobID", "ArrayTaskID", "State", "Reason", "NodeList", "StartTime", "EndTime", "RestartCnt", "exit_code",
)  # fmt: skip
FORMAT = ",".join(f"{column}:|" for column in _COLUMNS)
"""For `squeue --Format`: columns of any width, each closed by a bar."""
SACCT_FIELDS = "JobID,JobName,State,ExitCode,NodeList,End"
"""Fields that every version of sacct has; a count of restarts is not among them."""

_STATES: dict[str, State] = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "SUSPENDED": "pending",
    "REQUEUED": "requeued",
    "REQUEUE_FED": "requeued",
    "REQUEUE_HOLD": "requeued",
    "SPECIAL_EXIT": "requeued",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "STOPPED": "running",
    "PREEMPTED": "preempted",
    "COMPLETED": "done",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "TIMEOUT": "failed",
    "DEADLINE": "failed",
    "NODE_FAIL": "failed",
    "BOOT_FAIL": "failed",
    "OUT_OF_MEMORY": "failed",
    "REVOKED": "failed",
}
_WHY = {
    "TIMEOUT": "ran into its time limit before it could save; raise time_limit or grace_s",
    "DEADLINE": "its deadline passed",
    "NODE_FAIL": "a node failed",
    "BOOT_FAIL": "a node did not start",
    "OUT_OF_MEMORY": "out of memory; raise memory_gb or lower trainer.micro_batch",
    "REVOKED": "another cluster took it",
}
_WAITS = {
    "Priority": "jobs of higher priority come first",
    "Resources": "waits for free nodes",
    "BeginTime": "its time to start has not come",
    "JobArrayTaskLimit": "array_limit of its tasks run",
    "QOSMaxJobsPerUserLimit": "as many of your jobs run as the QOS allows",
    "AssocGrpGRES": "the account's GPUs are all in use",
    "PartitionTimeLimit": "time_limit is more than the partition allows",
    "PartitionNodeLimit": "nodes is more than the partition allows",
    "ReqNodeNotAvail": "the nodes it wants are not available",
    "JobHeldUser": "held; `scontrol release` lets it go",
    "JobHeldAdmin": "held by an administrator",
    "Dependency": "waits for another job",
}


def read_squeue(text: str) -> dict[tuple[str, int], JobStatus]:
    """Returns where jobs stand, by (job id, task)."""
    known: dict[tuple[str, int], JobStatus] = {}
    for line in text.splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) <= len(_COLUMNS) - 1:
            continue
        job, task, state, reason, nodes, start, end, restarts, code = parts[: len(_COLUMNS)]
        exit_code, signal = _exit_code(code)
        known[job, int(task) if task.isdigit() else 0] = _status(
            state, reason, nodes, start, end, requeues=int(restarts or 0), exit_code=exit_code, signal=signal
        )
    return known


def read_sacct(text: str, names: Mapping[str, str]) -> dict[tuple[str, int], JobStatus]:
    """Returns where jobs stand, by (job id, task); a job has a line for each time that it was put back into the queue.

    Args:
        text: what `sacct --duplicates` printed.
        names: job id -> the job's name; a cluster that counts from one again gives an id to another job.
    """
    known: dict[tuple[str, int], JobStatus] = {}
    for line in text.splitlines():
        parts = line.split("|")
        if len(parts) != len(SACCT_FIELDS.split(",")):
            continue
        number, name, state, code, nodes, end = parts
        job, _, task = number.partition("_")
        if names.get(job) != name:
            continue
        exit_code, signal = (int(part) for part in code.split(":"))
        for index in _tasks(task):
            before = known[job, index].requeues + 1 if (job, index) in known else 0
            known[job, index] = _status(state, "", nodes, "", end, requeues=before, exit_code=exit_code, signal=signal)
    return known


def _tasks(text: str) -> list[int]:
    """Returns the tasks of an array that a line is about: `4`, of those that never started `[0-2,5%1]`; else task 0."""
    tasks: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        first, dash, last = part.partition("-")
        if first.isdigit():
            tasks += range(int(first), int(last) + 1) if dash else [int(first)]
    return tasks or [0]


def _exit_code(text: str) -> tuple[int, int]:
    """Returns exit code and signal of `3:0`, or of the wait status that older versions print."""
    code, colon, signal = text.partition(":")
    if colon:
        return int(code or 0), int(signal or 0)
    status = int(text) if text.isdigit() else 0
    return (status >> 8) & 0xFF, status & 0x7F


def _status(
    word: str, reason: str, nodes: str, start: str, end: str, *, requeues: int, exit_code: int, signal: int
) -> JobStatus:
    name = word.split()[0].rstrip("+") if word else "PENDING"  # "CANCELLED by 1000"
    state = _STATES.get(name, "pending")
    where = (nodes,) if nodes and nodes not in ("(null)", "n/a", "None assigned") else ()
    code = 128 + signal if signal else exit_code
    if state == "pending":
        if requeues:
            state = "requeued"
        return JobStatus(state, _wait(name, reason), (), None, None, requeues)
    if state in ("running", "preempted", "requeued"):
        return JobStatus(state, "", where, _moment(start), None, requeues)
    if state == "done":
        return JobStatus("done", "", where, _moment(end), 0, requeues)
    if state == "cancelled":
        return JobStatus("cancelled", "", where, _moment(end), None, requeues)
    why = _WHY.get(name) or meaning(code or 1)
    return JobStatus("failed", why, where, _moment(end), code or 1, requeues)


def _wait(name: str, reason: str) -> str:
    if name == "CONFIGURING":
        return "its nodes are being started"
    if name == "SUSPENDED":
        return "suspended"
    if reason in ("", "None", "(null)"):
        return ""
    return f"{_WAITS[reason]} ({reason})" if reason in _WAITS else reason


def _moment(text: str) -> float | None:
    with contextlib.suppress(ValueError):
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    return None
