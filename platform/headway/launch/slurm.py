"""Slurm: an sbatch script a person would have written, sent here or on a login node.

Source: the manual pages of Slurm 22.05 and later for sbatch, srun, squeue, sacct and scontrol.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from headway.config.errors import UserError
from headway.launch._logs import read_log
from headway.launch._shell import Shell, last_line
from headway.launch._slurm_script import SCRIPT, sbatch_script
from headway.launch._slurm_states import FORMAT, SACCT_FIELDS, read_sacct, read_squeue
from headway.launch.base import (
    ENDED,
    Job,
    JobStatus,
    Launcher,
    OneLine,
    Plain,
    Rendering,
    Sent,
    Unreachable,
    meaning,
    seconds,
)

_ASK_EVERY_S = 10.0
_LOOK_EVERY_S = 3.0
_NO_SUCH_COMMAND = 127
FORGOTTEN = "forgotten"
"""Stands for the id of a job that ran, by what its script left, and that Slurm knows no more."""
_AWAY = ("Unable to contact slurm controller", "Socket timed out", "Connection refused", "Zero Bytes were transmitted")


class Config(Launcher):
    """Runs jobs under Slurm."""

    PLACE: ClassVar[tuple[str, ...]] = ("host",)

    partition: Plain | None = None
    """Partition; the cluster's default when absent."""
    account: Plain | None = None
    """Account that is charged."""
    qos: Plain | None = None
    """Quality of service."""
    constraint: OneLine | None = None
    """Features that nodes must have, such as `a100&nvlink`."""
    gpu_type: Plain | None = None
    """Type of GPU where the cluster has several, such as h100."""
    exclusive: bool = False
    """Whether nodes are shared with nobody."""
    array_limit: PositiveInt | None = None
    """Tasks of an array that run at the same time; all of them when absent."""
    modules: list[Plain] = Field(default_factory=list)
    """Environment modules to load."""
    setup: list[OneLine] = Field(default_factory=list)
    """Lines of shell that make `headway` known, such as `source /shared/venv/bin/activate`."""
    container: Literal["none", "pyxis", "apptainer"] = "none"
    """What runs `image`: enroot with pyxis, or apptainer."""
    image: Plain | None = None
    """Container image."""
    mounts: list[Plain] = Field(default_factory=list)
    """FROM:TO of more folders that the container sees; the job's and the runs' folders are seen as they are."""
    host: Plain | None = None
    """Login node, as your ssh knows it; this machine when absent."""
    folder: OneLine | None = None
    """With host: the folder there that job folders are put into."""

    @model_validator(mode="after")
    def _whole(self) -> Config:
        if (self.container == "none") != (self.image is None):
            raise ValueError("container and image go together; set both or neither")
        if (self.host is None) != (self.folder is None):
            raise ValueError("host and folder go together; folder is where jobs are put on the login node")
        if self.host is not None and self.runs is None:
            raise ValueError("host needs runs, the folder of run folders on the cluster")
        if self.host is not None and self.host.startswith("-"):
            raise ValueError("host: should be a name that ssh knows")
        if self.time_limit is not None and seconds(self.time_limit) <= self.grace_s:
            raise ValueError(f"grace_s: {self.grace_s} leaves nothing of time_limit {self.time_limit}; lower it")
        return self

    def check(self, job: Job) -> None:
        """Refuses a secret that is not set here, and a machine without Slurm."""
        self.check_secrets()
        if job.workers and self.container != "none":
            raise UserError(
                f"container: {self.container}, but a sweep on several nodes runs outside of one; use a venv"
            )
        if self.host is None and shutil.which("sbatch") is None:
            raise UserError("kind: slurm, but sbatch is not installed here; name a login node in the profile's host")

    def render(self, job: Job, folder: Path, runs: Path) -> Rendering:
        """Returns the sbatch script."""
        text = sbatch_script(self, job, folder=self._home(job, folder), runs=str(self.runs or runs))
        return Rendering({SCRIPT: text}, ("sbatch", "--parsable", SCRIPT))

    def send(self, job: Job, rendering: Rendering, folder: Path) -> str:
        """Hands the script to sbatch."""
        home = self._home(job, folder)
        if self.host is not None:
            self._shell.put({**job.files, **rendering.files}, home)
        command = ["sbatch", "--parsable", f"{home}/{SCRIPT}"]
        code, said, error = self._shell.run(command, secrets={name: os.environ[name] for name in self.secrets})
        if code:
            raise _refusal(error)
        return said.strip().splitlines()[-1].partition(";")[0]

    def find(self, job: Job, folder: Path) -> str | None:
        """Returns the job of that name: each submission has a name of its own."""
        command = ["squeue", "--noheader", "--states=all", f"--name={job.id}", "--format=%F"]
        code, said, error = self._shell.run(command)
        if code:
            raise Unreachable(f"squeue: {last_line(error)}")
        if said.strip():
            return said.split()[0]
        return FORGOTTEN if self._exit_code(job, folder, 0) is not None else None

    def statuses(self, sent: Sequence[Sent]) -> dict[str, tuple[JobStatus, ...]]:
        """Returns what squeue says, of what it has forgotten what sacct says, and else what the scripts left."""
        command = ["squeue", "--noheader", "--states=all", "--array", f"--Format={FORMAT}"]
        # All of a person's jobs: asked for by number, one that is forgotten makes the whole question an error.
        code, said, error = self._shell.run([*command, "--me"])
        if code:
            raise Unreachable(f"squeue: {last_line(error)}")
        known = read_squeue(said)
        forgotten = [
            one for one in sent if any((one.native_id, task) not in known for task in range(len(one.job.names)))
        ]
        accounts, problem = self._from_accounting(forgotten)
        known = {**accounts, **known}  # what squeue still knows is newer
        found = {
            one.job.id: [
                known.get((one.native_id, task)) or self._left_behind(one, task) for task in range(len(one.job.names))
            ]
            for one in sent
        }
        if problem:
            # Accounts that cannot be read just now are no proof that a job is lost.
            found = {job: tasks for job, tasks in found.items() if all(task.state != "lost" for task in tasks)}
        return {job: tuple(tasks) for job, tasks in found.items()}

    def cancel(self, sent: Sequence[Sent]) -> None:
        """Ends jobs; the runs save first, within Slurm's KillWait."""
        ids = [one.native_id for one in sent if one.native_id.isdigit()]
        if not ids:
            return
        code, _, error = self._shell.run(["scancel", "--quiet", *ids])
        if code and any(sign in error for sign in _AWAY):
            raise Unreachable(f"scancel: {last_line(error)}")

    def log(self, sent: Sent, *, task: int, follow: bool) -> Iterator[str]:
        """Yields what the batch script and its first node printed."""
        next_question = 0.0

        def ended() -> bool:
            nonlocal next_question
            # Asking a shared controller at every look at the file would be rude.
            if self.host is None and (sent.folder / f"task-{task}.exit").exists():
                return True
            if time.monotonic() < next_question:
                return False
            next_question = time.monotonic() + _ASK_EVERY_S
            return self.statuses([sent])[sent.job.id][task].state in ENDED

        if self.host is None:
            yield from read_log(sent.folder / f"task-{task}.log", follow=follow, ended=ended)
        else:
            yield from self._far_log(sent, task=task, follow=follow, ended=ended)

    def _far_log(self, sent: Sent, *, task: int, follow: bool, ended: Callable[[], bool]) -> Iterator[str]:
        """Yields what a file on the login node holds, and with `follow` what comes to it."""
        path, shown = f"{self._home(sent.job, sent.folder)}/task-{task}.log", 0
        while True:
            over = not follow or ended()
            code, said, error = self._shell.run(["tail", "--bytes", f"+{shown + 1}", path])
            if code and over and not shown:
                raise UserError(f"{path}: there is no log yet on {self.host} ({last_line(error)})")
            if not code:
                shown += len(said.encode())
                yield said
            if over:
                return
            time.sleep(_LOOK_EVERY_S)

    @property
    def _shell(self) -> Shell:
        return Shell(self.host)

    def _home(self, job: Job, folder: Path) -> str:
        """Returns the job's folder as the cluster sees it."""
        return str(folder) if self.folder is None else f"{self.folder.rstrip('/')}/{job.id}"

    def _exit_code(self, job: Job, folder: Path, task: int) -> int | None:
        """Returns the exit code that the script left in the job's folder, here or on the login node."""
        name = f"task-{task}.exit"
        try:
            text = (folder / name).read_text() if self.host is None else self._far(job, folder, name)
            return int(text)
        except (OSError, ValueError):
            return None

    def _far(self, job: Job, folder: Path, name: str) -> str:
        """Returns the text of a file of the job's folder on the login node; "" where there is none."""
        code, said, _ = self._shell.run(["cat", f"{self._home(job, folder)}/{name}"])
        return said if code == 0 else ""

    def _left_behind(self, sent: Sent, task: int) -> JobStatus:
        """Returns what the script's own files say of a job that Slurm has forgotten."""
        code = self._exit_code(sent.job, sent.folder, task)
        if code is None:
            return JobStatus("lost", "Slurm knows nothing of it any more, and it left no exit code")
        return JobStatus("done", exit_code=0) if code == 0 else JobStatus("failed", meaning(code), exit_code=code)

    def _from_accounting(self, sent: Sequence[Sent]) -> tuple[dict[tuple[str, int], JobStatus], str]:
        """Returns what the accounts know, nothing where the cluster keeps none; and why they cannot be read."""
        names = {one.native_id: one.job.id for one in sent if one.native_id.isdigit()}
        if not names:
            return {}, ""
        command = ["sacct", "--allocations", "--duplicates", "--noheader", "--parsable2"]
        code, said, error = self._shell.run([*command, f"--jobs={','.join(names)}", f"--format={SACCT_FIELDS}"])
        if code == 0:
            return read_sacct(said, names), ""
        none_kept = code == _NO_SUCH_COMMAND or "accounting storage is disabled" in error
        return {}, "" if none_kept else f"sacct: {last_line(error)}"


def _refusal(error: str) -> UserError:
    """Returns what sbatch's error means."""
    if any(sign in error for sign in _AWAY):
        return Unreachable(f"sbatch: {last_line(error)}; `headway jobs` finds out whether it has the job")
    reason = last_line(error).removeprefix("sbatch: error: ").removeprefix("Batch job submission failed: ")
    return UserError(f"sbatch: {reason}; see the profile's partition, account, time_limit and sizes")
