"""Uploads what W&B's server lacks of runs: offline ones, those that lost their server, and resumed ones as one run.

It may be repeated, interrupted, and done from a copy of the runs folder on another machine: the server is asked what it
has, gets the rest through W&B's own `wandb sync`, and is asked again before a run counts as uploaded.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from headway.config.errors import UserError
from headway.run import RunFolder
from headway.track.fragments import Fragment, described, list_fragments, mark_synced
from headway.track.upload_copies import Copies, make_copies, total_bytes, track_section
from headway.track.wandb_server import NoAnswer, WandbServer, known_project

AT_ONCE = 16
"""Runs that one `wandb sync` uploads."""
_LOOK_EVERY_S = 5.0
_PATIENCE = 3
"""Looks at a server that does not answer, after which an upload is given up."""
_BASE_TIMEOUT_S = 300.0
_SLOWEST_BYTES_PER_S = 50_000
_CONFIRM_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Outcome:
    """What became of one run."""

    run: str
    state: Literal["uploaded", "up to date", "running", "failed"]
    rows: int = 0
    """Rows that went up now."""
    why: str = ""

    def as_dict(self) -> dict[str, object]:
        """Returns the fields by name."""
        return {"run": self.run, "state": self.state, "rows": self.rows, "why": self.why}


@dataclass(frozen=True)
class _Upload:
    """A run that is being uploaded."""

    run: RunFolder
    entity: str
    project: str
    id: str
    fragments: list[Fragment]
    copies: Copies


def sync_runs(
    runs: Sequence[RunFolder], server: WandbServer, *, say: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Uploads what the server lacks of runs and returns what became of each.

    Args:
        runs: the runs.
        server: where to.
        say: told of each run as it is done.
    """
    outcomes: list[Outcome] = []
    for first in range(0, len(runs), AT_ONCE):
        for outcome in _sync_some(runs[first : first + AT_ONCE], server):
            say(outcome)
            outcomes.append(outcome)
    return outcomes


def _sync_some(runs: Sequence[RunFolder], server: WandbServer) -> Iterator[Outcome]:
    uploads: list[_Upload] = []
    locks: list[IO[str]] = []
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headway-sync-")))
        for run in runs:
            try:
                if not waiting(run) and "problem" not in run.status().get("wandb", {}):
                    yield Outcome(run.id, "up to date")
                    continue
                _refuse_running(run)
                lock = stack.enter_context(_locked(run))
                uploads.append(_prepare(run, server, scratch / f"{len(uploads):03d}"))
                locks += [lock] if lock else []
            except _Running as reason:
                yield Outcome(run.id, "running", why=str(reason))
            except (NoAnswer, UserError, OSError) as problem:
                yield Outcome(run.id, "failed", why=str(problem))
        said = _wandb_sync(uploads, server, locks) if uploads else ""
        for upload in uploads:
            yield _confirm(upload, server, said)


def waiting(run: RunFolder) -> list[Fragment]:
    """Returns the starts of a run of which W&B's server may lack something, oldest first.

    One before another that is uploaded is not among them: its rows went up with that.
    """
    found = list_fragments(run.path / "wandb")
    synced = [index for index, fragment in enumerate(found) if fragment.is_synced]
    return found[synced[-1] + 1 :] if synced else found


class _Running(Exception):
    """A run that somebody else is at; says who."""


def _refuse_running(run: RunFolder) -> None:
    try:
        with run.owned():
            return
    except UserError:
        raise _Running("still being written; sync it when it has ended") from None
    except OSError:
        return  # a folder of somebody else's: nobody here writes it


@contextlib.contextmanager
def _locked(run: RunFolder) -> Iterator[IO[str] | None]:
    """Keeps other syncs off a run; gives None in a folder where no lock can be made."""
    try:
        lock = (run.path / "wandb" / ".headway-sync.lock").open("w")
    except OSError:
        yield None
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _Running("another headway sync is uploading it") from None
        yield lock


def _prepare(run: RunFolder, server: WandbServer, scratch: Path) -> _Upload:
    """Asks what the server has of a run and makes copies of the rest."""
    fragments = waiting(run)
    while fragments and (record := described(fragments[-1])) is None:
        # Killed before its file had anything.
        fragments.pop()
    track = track_section(run)
    project = record.project if fragments else known_project(track.get("project"))
    run_id = record.run_id if fragments else run.id
    own = record.entity if fragments else None
    entity = own or track.get("entity") or os.environ.get("WANDB_ENTITY") or server.entity()
    copies = make_copies(run, fragments, server.held(entity, project, run_id), scratch)
    return _Upload(run, entity, project, run_id, waiting(run), copies)


def _wandb_sync(uploads: list[_Upload], server: WandbServer, locks: list[IO[str]]) -> str:
    """Uploads copies with W&B's own command; returns what it said went wrong, in one line."""
    folders = [folder for upload in uploads for folder in upload.copies.folders]
    environment = {
        # With a process of its own, which goes on when this one is ended.
        **{name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"},
        "WANDB_BASE_URL": server.url,
        "WANDB_API_KEY": server.key,
        "WANDB_MODE": "online",
        "WANDB_DIR": str(folders[0].parents[1]),
        "WANDB_SILENT": "false",
    }
    # Into a file: should this process be killed, that one goes on to its end, and holds the runs' locks as long.
    with (folders[0].parents[1] / "said").open("w+") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "wandb", "sync", "--yes", "--include-online", "-n", str(AT_ONCE)]
            + [str(folder) for folder in folders],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folders[0].parents[1],
            start_new_session=True,
            pass_fds=[lock.fileno() for lock in locks],
        )
        try:
            given_up = _wait(process, server, _BASE_TIMEOUT_S + total_bytes(folders) / _SLOWEST_BYTES_PER_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said = output.read()
    if given_up:
        return given_up
    problems = [line.partition("ERROR")[2].strip(" :") for line in said.splitlines() if "ERROR" in line]
    problems += [line for line in said.splitlines() if line.startswith("Error")]
    return problems[-1] if problems else ""


def _wait(process: subprocess.Popen[bytes], server: WandbServer, timeout_s: float) -> str:
    """Waits for a process; returns why it is given up: its server is gone, or it takes forever."""
    silent, until = 0, time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_EVERY_S)
            return ""
        problem = server.why_not(within_s=_LOOK_EVERY_S)
        silent = silent + 1 if problem else 0
        if silent >= _PATIENCE or time.monotonic() > until:
            return problem or f"it took more than {timeout_s:.0f} s"


def _confirm(upload: _Upload, server: WandbServer, problem: str) -> Outcome:
    """Asks the server whether all is there, and marks the run's files if so."""
    copies, run = upload.copies, upload.run
    done = all(list(folder.glob("*.wandb.synced")) for folder in copies.folders)
    try:
        held = server.held(upload.entity, upload.project, upload.id, timeout_s=_CONFIRM_TIMEOUT_S)
    except NoAnswer as reason:
        return Outcome(run.id, "failed", why=str(reason))
    last_step = held.last_step if held else -1
    if not done or last_step < copies.last_step:
        known = f"W&B's server has rows up to step {last_step} of {copies.last_step}"
        return Outcome(run.id, "failed", why=problem or known)
    with contextlib.suppress(OSError):  # a folder of somebody else's: asked again next time
        for fragment in upload.fragments:
            mark_synced(fragment.folder)
        status = run.status().get("wandb")
        if status:
            run.update_status(wandb={"mode": status.get("mode", "offline"), "rows": status.get("rows"), "synced": True})
    return Outcome(run.id, "uploaded", rows=copies.num_rows, why="; ".join(copies.notes))
