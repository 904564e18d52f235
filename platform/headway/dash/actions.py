"""What the page can change, and the log of who did: `runs/.dash.log`, readable by its owner alone."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

from headway.config.errors import UserError
from headway.dash.entries import Entry
from headway.dash.files import folder_below
from headway.dash.jobs import Jobs
from headway.dash.runs import Runs
from headway.dash.sweeps import Sweeps
from headway.run import RunFolder
from headway.sweep.ending import stop_sweep

LOG = ".dash.log"
_STOPS_WITHIN_S = 20.0


class Actions:
    """Cancels, retries, stops and deletes, and keeps account of it.

    Args:
        runs: the table.
        sweeps: the sweeps.
        jobs: the jobs.
        read_only: refuse everything.
    """

    def __init__(self, runs: Runs, sweeps: Sweeps, jobs: Jobs, *, read_only: bool) -> None:
        self.runs = runs
        self.sweeps = sweeps
        self.jobs = jobs
        self.read_only = read_only
        self._lock = threading.Lock()

    def do(self, action: str, subject: str, *, address: str) -> str:
        """Does something and returns what came of it. What was asked for is logged before, what came of it after.

        Args:
            action: cancel-job, retry-job, delete-run or stop-sweep.
            subject: id of what it is done to.
            address: who asks.

        Raises:
            UserError: it cannot be done, or everything is refused.
            FileNotFoundError: there is no such run or sweep.
        """
        if self.read_only:
            self._log(address, action, subject, "refused: read-only")
            raise UserError(f"{action}: this dashboard only looks (--read-only)")
        self._log(address, action, subject, "asked")
        try:
            result = {
                "cancel-job": self.jobs.cancel,
                "retry-job": self.jobs.retry,
                "delete-run": self._delete,
                "stop-sweep": self._stop,
            }[action](subject)
        except (UserError, OSError) as error:
            self._log(address, action, subject, f"failed: {error}")
            raise
        self._log(address, action, subject, f"done: {result}")
        return result

    def _delete(self, run_id: str) -> str:
        entry = self.runs.find(run_id)
        if entry is None:
            raise FileNotFoundError(f"{run_id}: no run of that name")
        delete_run(self.runs.root, entry)
        self.runs.refresh(at_most_every_s=0.0)
        return "deleted"

    def _stop(self, sweep_id: str) -> str:
        stop_sweep(self.sweeps.find(sweep_id), within_s=_STOPS_WITHIN_S)
        return "stopped"

    def _log(self, address: str, action: str, subject: str, result: str) -> None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "address": address,
            "action": action,
            "subject": subject[:200],
            "result": result[:500],
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with self._lock, os.fdopen(os.open(self.runs.root / LOG, flags, 0o600), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.runs.root / LOG}: cannot be written ({error.strerror}), and nothing is done without a log"
            ) from None


def delete_run(root: Path, entry: Entry) -> None:
    """Deletes a run's folder.

    Raises:
        UserError: it runs, is no run of headway's, or cannot be deleted.
    """
    if entry.row["source"] != "headway":
        raise UserError(f"{entry.id}: is no run of headway's; delete it by hand")
    if not entry.has_ended:
        raise UserError(f"{entry.id}: is {entry.row['state']}; stop it first")
    path = root / entry.folder
    try:
        with folder_below(root, entry.folder) as folder:
            os.stat("recipe.yaml", dir_fd=folder, follow_symlinks=False)
        with RunFolder(path).owned():
            shutil.rmtree(path)
    except OSError as error:
        raise UserError(f"{entry.id}: cannot be deleted ({error.strerror or error})") from None
