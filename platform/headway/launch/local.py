"""A background job on this machine, for trying a submission before it costs an hour in a queue.

The tasks of an array run one after the other. The job's process group is its own, so that it goes on when
the terminal closes and ends whole when it is cancelled.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from headway.config.errors import UserError
from headway.launch._logs import read_log
from headway.launch._shell import own_environment
from headway.launch.base import Job, JobStatus, Launcher, Rendering, Sent, meaning, seconds

SCRIPT = "script.sh"
_PID = "pid"
_APPEARS_WITHIN_S = 5.0


class Config(Launcher):
    """Runs jobs on this machine."""

    def check(self, job: Job) -> None:
        """Refuses several machines: there is one; and a secret that is not set."""
        self.check_secrets()
        if self.nodes > 1:
            raise UserError(f"nodes: {self.nodes}, but kind local is this machine alone; use slurm, ray or kubernetes")
        if job.workers:
            raise UserError(f"--workers: {job.workers}, but kind local is this machine alone; leave it out")

    def render(self, job: Job, folder: Path, runs: Path) -> Rendering:
        """Returns a shell script that runs the tasks in turn."""
        variables = self.variables(job, str(folder))
        limit = ""
        if self.time_limit:
            limit = f"timeout --signal=USR1 --kill-after={self.grace_s} {seconds(self.time_limit)} "
        lines = [
            "#!/usr/bin/env bash",
            f"# Job {job.id}: sent with `headway submit {job.verb}`; its log is task-<n>.log beside this file.",
            "set -u",
            "umask 077",
            f"cd {shlex.quote(str(folder))}",
            f"echo $$ >{_PID}",
            *(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
            "",
            "stopped=",
            "trap 'stopped=yes' TERM INT",
            "task() {",
            "  local number=$1",
            "  shift",
            '  [ -z "$stopped" ] || return',
            '  date +%s >"task-$number.start"',
            '  "$@" >>"task-$number.log" 2>&1',
            '  echo $? >"task-$number.exit"',
            "}",
            "",
        ]
        for task in range(len(job.names)):
            arguments = job.arguments(task, folder=str(folder), runs=str(self.runs or runs))
            lines.append(f"task {task} {limit}headway {shlex.join(arguments)}")
        return Rendering({SCRIPT: "\n".join(lines) + "\n"}, ("bash", SCRIPT))

    def send(self, job: Job, rendering: Rendering, folder: Path) -> str:
        """Starts the script in a session of its own."""
        process = subprocess.Popen(
            rendering.command,
            cwd=folder,
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return _handle(psutil.Process(process.pid))

    def find(self, job: Job, folder: Path) -> str | None:
        """Returns the process that the script says it is."""
        until = time.monotonic() + _APPEARS_WITHIN_S
        while not (folder / _PID).is_file() and time.monotonic() < until:
            time.sleep(0.1)
        try:
            pid = int((folder / _PID).read_text())
        except (OSError, ValueError):
            return None
        try:
            process = psutil.Process(pid)
            return _handle(process) if str(folder) in process.cwd() else f"{pid}@0"
        except psutil.Error:
            return f"{pid}@0"

    def statuses(self, sent: Sequence[Sent]) -> dict[str, tuple[JobStatus, ...]]:
        """Returns what the files beside the script and the process table say."""
        return {one.job.id: _statuses(one) for one in sent}

    def cancel(self, sent: Sequence[Sent]) -> None:
        """Asks the job's processes to save and end."""
        for one in sent:
            process = _process(one.native_id)
            if process is not None:
                os.killpg(process.pid, signal.SIGTERM)

    def log(self, sent: Sent, *, task: int, follow: bool) -> Iterator[str]:
        """Yields what the task printed."""

        def ended() -> bool:
            return (sent.folder / f"task-{task}.exit").exists() or _process(sent.native_id) is None

        return read_log(sent.folder / f"task-{task}.log", follow=follow, ended=ended)


def _handle(process: psutil.Process) -> str:
    """Returns a process's id that no later process of the same number has."""
    return f"{process.pid}@{process.create_time():.2f}"


def _process(handle: str) -> psutil.Process | None:
    pid, _, created = handle.partition("@")
    try:
        process = psutil.Process(int(pid))
        alive = f"{process.create_time():.2f}" == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if alive else None


def _statuses(sent: Sent) -> tuple[JobStatus, ...]:
    alive = _process(sent.native_id) is not None
    here = (os.uname().nodename,)
    found: list[JobStatus] = []
    for task in range(len(sent.job.names)):
        start, end = sent.folder / f"task-{task}.start", sent.folder / f"task-{task}.exit"
        if end.exists():
            code = int(end.read_text().strip() or 1)
            state, reason = ("done", "") if code == 0 else ("failed", meaning(code))
            found.append(JobStatus(state, reason, here, end.stat().st_mtime, code))  # type: ignore[arg-type]
        elif not alive:
            found.append(JobStatus("lost", "its process is gone and left no exit code", here))
        elif start.exists():
            found.append(JobStatus("running", "", here, start.stat().st_mtime))
        else:
            found.append(JobStatus("pending", "the tasks before it run", here))
    return tuple(found)
