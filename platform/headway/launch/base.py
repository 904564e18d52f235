"""What every launcher shares: the job it is given, what it makes of it, and how it says where the job stands.

`send(render(job))`: rendering is pure and gives text that a person can read; sending hands exactly that text
over. A profile (`cluster/*.yaml`) is a launcher's configuration: `kind:` names the file of this folder.
Nothing here imports torch, lightning, wandb or deepspeed.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt

from headway.config.errors import UserError
from headway.config.kinds import Family
from headway.config.section import Kind
from headway.run import JOB_FOLDER_VARIABLE, JOB_VARIABLE

State = Literal["pending", "running", "preempted", "requeued", "done", "failed", "cancelled", "lost"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled", "lost"})
"""States that a job does not leave by itself."""
RECIPE_FILE = "recipe.yaml"


@dataclass(frozen=True)
class JobStatus:
    """Where a job, or one task of an array, stands."""

    state: State
    reason: str = ""
    """Why it waits, failed or was preempted, in a person's words."""
    where: tuple[str, ...] = ()
    """Machines that it runs on or ran on."""
    since: float | None = None
    """Seconds since 1970 at which it came into this state, where the launcher knows."""
    exit_code: int | None = None
    requeues: int = 0
    """How often it was put back into the queue."""


@dataclass(frozen=True)
class Job:
    """One submission: a `headway` command line, once or once for each task of an array."""

    id: str
    """Also the job's name at the launcher, so that it is found again after a crash. Letters, digits, . _ -"""
    verb: Literal["fit", "sweep"]
    names: tuple[str, ...]
    """The run (or sweep) that each task writes; one where there is no array."""
    group: str = ""
    """What belongs together under one name: the runs of an array, the jobs of one question."""
    overrides: tuple[tuple[str, ...], ...] = ((),)
    """Changes to the recipe that a task makes, aligned with `names`: ("trainer.seed=3",)."""
    trust: tuple[str, ...] = ()
    workers: int = 0
    """Machines that help a sweep besides the one that drives it; each a task of its own."""
    files: dict[str, str] = field(default_factory=dict, repr=False)
    """Name -> text of what lies in the job's folder: the recipe, the code's state, the environment's lock."""

    @property
    def is_array(self) -> bool:
        """Returns whether there are several tasks."""
        return len(self.names) > 1

    def arguments(self, task: int, *, folder: str, runs: str) -> tuple[str, ...]:
        """Returns the arguments after `headway` of one task.

        It goes on with its run where that is there already, so that a requeue or a retry is the same line.

        Args:
            task: index into `names`.
            folder: the job's folder as the machine that runs it sees it; the recipe is in it.
            runs: the folder of run folders, seen likewise.
        """
        trusted = [flag for module in self.trust for flag in ("--trust", module)]
        return (
            self.verb,
            f"{folder}/{RECIPE_FILE}",
            *self.overrides[task],
            *("--runs", runs, "--name", self.names[task], "--resume", "auto"),
            *trusted,
        )


@dataclass(frozen=True)
class Rendering:
    """What would be sent."""

    files: dict[str, str]
    """Name -> text. They are kept in the job's folder, readable by its owner alone."""
    command: tuple[str, ...]
    """What sends them, as a person would type it in the job's folder."""


_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_.:/@%+=,-]*", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TIME = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", re.ASCII)


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text) or len(text) > 500:
        raise ValueError(f"should be of letters, digits and . _ : / @ % + = , - (got {text[:60]!r})")
    return text


def _one_line(text: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"should be one line without control characters (got {text[:60]!r})")
    return text


def _variable(text: str) -> str:
    if not _VARIABLE.fullmatch(text):
        raise ValueError(f"should be the name of an environment variable (got {text[:60]!r})")
    if text in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") or text.startswith("HEADWAY_JOB"):
        raise ValueError(f"{text} is set by the launch; leave it out")
    return text


def _time(text: str) -> str:
    if not text or not _TIME.fullmatch(text) or seconds(text) == 0:
        raise ValueError(f"should be a time such as 90m, 12h or 1d12h (got {text[:60]!r})")
    return text


def seconds(text: str) -> int:
    """Returns the seconds in `1d2h30m15s`."""
    found = _TIME.fullmatch(text)
    assert found is not None
    return sum(int(count or 0) * unit for count, unit in zip(found.groups(), (86400, 3600, 60, 1), strict=True))


Plain = Annotated[str, AfterValidator(_plain)]
"""A name that no shell, scheduler or YAML reader takes for more than a name."""
OneLine = Annotated[str, AfterValidator(_one_line)]
Variable = Annotated[str, AfterValidator(_variable)]
Time = Annotated[str, AfterValidator(_time)]


class Launcher(Kind):
    """A profile: where jobs run, with how much of it."""

    PLACE: ClassVar[tuple[str, ...]] = ()
    """Settings that say which cluster it is: jobs that agree in them are asked for together."""

    nodes: PositiveInt = 1
    """Machines of a job."""
    gpus_per_node: NonNegativeInt = 0
    """GPUs on each of them; 0 trains on CPUs."""
    ranks_per_node: PositiveInt | None = None
    """Training processes on each of them; one a GPU when absent, or one on a CPU."""
    cpus_per_node: PositiveInt | None = None
    """CPU cores on each of them; what the launcher gives when absent."""
    memory_gb: PositiveFloat | None = None
    """Memory on each of them, in GB; what the launcher gives when absent."""
    time_limit: Time | None = None
    """How long a job may run (90m, 12h, 1d12h); as long as the launcher lets it when absent."""
    grace_s: PositiveInt = 120
    """Seconds before the time limit at which a run is told to save and end."""
    max_requeues: NonNegativeInt = 20
    """How often a job that was preempted, ran out of time or lost a machine is put back into the queue."""
    environment: dict[Variable, OneLine] = Field(default_factory=dict)
    """Environment variables of the job. No secrets: these are written into scripts."""
    secrets: list[Variable] = Field(default_factory=list)
    """Names of environment variables whose values reach the job without being written down."""
    runs: OneLine | None = None
    """Folder of run folders as the job sees it; --runs when absent."""

    @property
    def ranks(self) -> int:
        """Returns the number of training processes on each node."""
        return self.ranks_per_node or self.gpus_per_node or 1

    def variables(self, job: Job, folder: str) -> dict[str, str]:
        """Returns the environment variables of a job whose folder the machine that runs it sees as `folder`."""
        return {**self.environment, JOB_VARIABLE: job.id, JOB_FOLDER_VARIABLE: folder}

    def check_secrets(self) -> None:
        """Raises a UserError where a secret is to be taken from this environment and is not in it."""
        for name in self.secrets:
            if name not in os.environ:
                raise UserError(f"secrets: {name} is not set here; export it, or take it out of the profile")

    def check(self, job: Job) -> None:
        """Raises a UserError where this profile cannot run the job, or what sends it is not here."""

    @abstractmethod
    def render(self, job: Job, folder: Path, runs: Path) -> Rendering:
        """Returns what would be sent. Pure: the same arguments give the same text anywhere.

        Args:
            job: what to run.
            folder: the job's folder on this machine.
            runs: the folder of run folders on this machine, absolute.
        """

    @abstractmethod
    def send(self, job: Job, rendering: Rendering, folder: Path) -> str:
        """Hands the job over and returns the launcher's own id for it.

        Raises:
            UserError: the launcher refuses it; its reason, on one line.
            Unreachable: the launcher cannot be asked; it is not known whether it has the job.
        """

    @abstractmethod
    def find(self, job: Job, folder: Path) -> str | None:
        """Returns the launcher's id of a job whose sending was cut off; None where it never arrived.

        Raises:
            Unreachable: the launcher cannot be asked.
        """

    @abstractmethod
    def statuses(self, sent: Sequence[Sent]) -> dict[str, tuple[JobStatus, ...]]:
        """Returns where jobs stand, by job id, one status a task. One question to the launcher for all of them.

        A job of which nothing can be told just now is left out.

        Raises:
            Unreachable: the launcher cannot be asked.
        """

    @abstractmethod
    def cancel(self, sent: Sequence[Sent]) -> None:
        """Ends jobs, running or not; those that have ended are passed over.

        Raises:
            Unreachable: the launcher cannot be asked.
        """

    @abstractmethod
    def log(self, sent: Sent, *, task: int, follow: bool) -> Iterator[str]:
        """Yields what a task's first process printed, in pieces, from the start; until it ends with `follow`.

        Raises:
            UserError: there is no log (yet).
        """


@dataclass(frozen=True)
class Sent:
    """A job that a launcher has."""

    job: Job
    native_id: str
    """The launcher's own id."""
    folder: Path
    """The job's folder on this machine."""


class Unreachable(UserError):
    """The launcher cannot be asked just now."""


LAUNCHERS = Family("profile", "launch", Launcher)

_SIGNALS = {2: "SIGINT", 6: "SIGABRT", 9: "SIGKILL: out of memory, or killed by hand", 11: "SIGSEGV", 15: "SIGTERM"}
_MEANINGS = {
    1: "a bug, see the log",
    2: "the input is wrong, see the log",
    3: "training failed, see the log",
    126: "the command cannot be run",
    127: "headway is not installed where the job ran",
    130: "stopped by Ctrl-C, the position saved",
    143: "stopped, the position saved",
}


def meaning(exit_code: int) -> str:
    """Returns what a job's exit code says."""
    if exit_code in _MEANINGS:
        return f"exit code {exit_code}: {_MEANINGS[exit_code]}"
    if exit_code > 128:
        return f"exit code {exit_code}: {_SIGNALS.get(exit_code - 128, f'signal {exit_code - 128}')}"
    return f"exit code {exit_code}"
