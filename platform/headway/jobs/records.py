"""What is known of each job on this machine: written before the job is sent, so that a crash loses and doubles none.

    runs/.jobs/<id>/
      job.json         what was submitted: the job, its profile, the code's state, who and when; never changed
      recipe.yaml      the resolved recipe that the job trains
      environment.txt  every installed package and its version
      code.patch       what differs from the commit that job.json names, where something does
      script.sh ...    what was sent, exactly
      sent.json        the launcher's id for it, once it has it
      state.json       where its tasks were last seen, and what came of it (refused, cancelled, retried)

Folders are 0700 and files 0600: a job may be nobody else's business.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from headway.config.errors import UserError
from headway.config.kinds import resolve_kind
from headway.config.section import validate_section
from headway.launch.base import LAUNCHERS, Job, JobStatus, Launcher, Rendering, Sent

JOBS_FOLDER = ".jobs"


@dataclass(frozen=True)
class JobRecord:
    """One job's folder."""

    folder: Path
    job: Job
    profile: Launcher
    profile_name: str
    submitted: float
    """Seconds since 1970."""
    sender: dict[str, Any] = field(default_factory=dict)
    """Process and machine that sent it."""

    @property
    def runs(self) -> Path:
        """Returns the folder of run folders on this machine."""
        return self.folder.parent.parent

    def native_id(self) -> str | None:
        """Returns the launcher's id; None where it is not known that the launcher has the job."""
        found = _read(self.folder / "sent.json").get("native_id")
        return str(found) if found is not None else None

    def mark_sent(self, native_id: str) -> None:
        """Notes that the launcher has the job."""
        write_private(self.folder / "sent.json", json.dumps({"native_id": native_id, "sent": time.time()}) + "\n")

    def sent(self) -> Sent | None:
        """Returns what a launcher is asked about; None where it is not known to have the job."""
        native_id = self.native_id()
        return None if native_id is None else Sent(self.job, native_id, self.folder)

    def is_being_sent(self) -> bool:
        """Returns whether the process that submits it is still at it, here; elsewhere it is given a minute."""
        if self.sender.get("host") != socket.gethostname():
            return time.time() - self.submitted < 60
        try:
            process = psutil.Process(int(self.sender.get("pid", -1)))
            return abs(process.create_time() - float(self.sender.get("created", 0))) < 1
        except (psutil.Error, ValueError):
            return False

    def seen(self) -> tuple[JobStatus, ...]:
        """Returns where the tasks were last seen; () where they never were."""
        return tuple(
            JobStatus(**{**status, "where": tuple(status["where"])})
            for status in _read(self.folder / "state.json").get("tasks", [])
        )

    def mark_seen(self, statuses: tuple[JobStatus, ...]) -> None:
        """Notes where the tasks are."""
        if statuses != self.seen():
            self._change_state(tasks=[asdict(status) for status in statuses])

    def was_cancelled(self) -> bool:
        """Returns whether somebody cancelled it."""
        return bool(_read(self.folder / "state.json").get("cancelled"))

    def mark_cancelled(self) -> None:
        """Notes that it is to be cancelled; before it is, so that its end is not taken for a failure."""
        self._change_state(cancelled=time.time())

    def refusal(self) -> str | None:
        """Returns why the launcher would not have it; None where it did not refuse."""
        return _read(self.folder / "state.json").get("refused")

    def mark_refused(self, reason: str) -> None:
        """Notes that the launcher would not have it."""
        self._change_state(refused=reason)

    def retried_as(self) -> str | None:
        """Returns the job that was submitted in its place."""
        return _read(self.folder / "state.json").get("retried_as")

    def mark_retried(self, job_id: str) -> None:
        """Notes the job that goes on with its runs."""
        self._change_state(retried_as=job_id)

    def _change_state(self, **changes: Any) -> None:
        path = self.folder / "state.json"
        write_private(path, json.dumps({**_read(path), **changes}) + "\n")


def new_job_id(name: str) -> str:
    """Returns an id that no other submission has."""
    return f"{name[:60]}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(3)}"


def job_folder(runs: Path, job_id: str) -> Path:
    """Returns where a job's record is kept."""
    return runs / JOBS_FOLDER / job_id


def create_record(runs: Path, job: Job, profile: Launcher, rendering: Rendering, *, profile_name: str) -> JobRecord:
    """Writes a job's record, before it is sent.

    Args:
        runs: the folder of run folders, absolute.
        job: what is submitted.
        profile: where.
        rendering: what is about to be sent.
        profile_name: what the person called it.

    Raises:
        UserError: the folder cannot be written, or the id is taken.
    """
    folder = job_folder(runs, job.id)
    process = psutil.Process()
    sender = {"host": socket.gethostname(), "pid": process.pid, "created": process.create_time()}
    record = JobRecord(folder, job, profile, profile_name, time.time(), sender)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
        for name, text in {**job.files, **rendering.files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(folder / name, text)
        whole = {
            "job": {**asdict(replace(job, files={})), "files": sorted(job.files)},
            "profile": profile.model_dump(mode="json"),
            "profile_name": profile_name,
            "submitted": record.submitted,
            "sender": sender,
        }
        write_private(folder / "job.json", json.dumps(whole, indent=2) + "\n")
    except FileExistsError:
        raise UserError(f"{folder}: there is such a job already; submit again") from None
    except OSError as error:
        raise UserError(f"--runs: {runs} cannot be written ({error.strerror}); choose another folder") from None
    return record


def read_record(folder: Path) -> JobRecord | None:
    """Returns a job's record; None where the folder holds none that can be read."""
    found = _read(folder / "job.json")
    try:
        job = found["job"]
        profile = found["profile"]
        launcher = validate_section(resolve_kind(LAUNCHERS, str(profile["kind"])), profile, path="profile")
        assert isinstance(launcher, Launcher)
        return JobRecord(
            folder,
            Job(
                **{
                    **job,
                    "names": tuple(job["names"]),
                    "overrides": tuple(tuple(changes) for changes in job["overrides"]),
                    "trust": tuple(job["trust"]),
                    "files": {name: (folder / name).read_text() for name in job["files"]},
                }
            ),
            launcher,
            str(found["profile_name"]),
            float(found["submitted"]),
            dict(found.get("sender", {})),
        )
    except (KeyError, TypeError, ValueError, OSError, UserError, ImportError):
        return None


def list_records(runs: Path) -> list[JobRecord]:
    """Returns the jobs whose runs are in a folder, newest first; what is no record is passed over."""
    folder = runs.absolute() / JOBS_FOLDER
    if not folder.is_dir():
        return []
    found = [record for path in folder.iterdir() if (record := read_record(path)) is not None]
    return sorted(found, key=lambda record: record.submitted, reverse=True)


def write_private(path: Path, text: str) -> None:
    """Replaces a file that its owner alone may read, whole."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
