"""Stops sweeps and deletes them. What still runs, here or elsewhere, is never deleted."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import psutil

from headway.config.errors import UserError
from headway.run import RunFolder
from headway.sweep.folder import Driver, SweepFolder

POLL_S = 0.2
ENDS_WITHIN_S = 60.0


def stop_sweep(sweep: SweepFolder, *, within_s: float = ENDS_WITHIN_S) -> None:
    """Asks a sweep's process to stop and waits until it has ended.

    Raises:
        UserError: it does not run, or not here, or did not end in time.
    """
    process = _running_process(sweep)
    try:
        process.terminate()
    except psutil.AccessDenied:
        raise UserError(f"{sweep.id}: process {process.pid} is another user's; ask them to stop it") from None
    except psutil.NoSuchProcess:
        return
    deadline = time.monotonic() + within_s
    while _is_alive(process):
        if time.monotonic() > deadline:
            raise UserError(
                f"{sweep.id}: process {process.pid} was asked to stop and runs on after {within_s:.0f} s; "
                f"wait for it, or end it with kill -9 {process.pid}"
            )
        time.sleep(POLL_S)


def _running_process(sweep: SweepFolder) -> psutil.Process:
    status = sweep.status()
    if status.get("state") != "running":
        raise UserError(f"{sweep.id}: does not run, it is {status.get('state', 'empty')}; there is nothing to stop")
    driver = Driver.of(status)
    if driver is None:
        raise UserError(f"{sweep.id}: status.json does not name its process; stop it where it was started, with Ctrl-C")
    if not driver.is_here:
        raise UserError(f"{sweep.id}: runs on {driver.host}; stop it there")
    process = driver.process()
    if process is None:
        raise UserError(
            f"{sweep.id}: its process {driver.pid} is gone and there is nothing to stop; its trials' runs are kept"
        )
    if not any(Path(part).name == "headway" for part in _command_line(process)):
        raise UserError(
            f"{sweep.id}: process {driver.pid} is no headway command; "
            f"if it is a script of yours that sweeps, stop it with kill {driver.pid}"
        )
    return process


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def check_deletable(sweep: SweepFolder) -> None:
    """Raises a UserError where the sweep or one of its trials' runs is being written."""
    if sweep.state() == "running":
        driver = Driver.of(sweep.status())
        if driver is not None and driver.is_here:
            raise UserError(f"{sweep.id}: still runs; `headway sweeps stop {sweep.id}` first")
        where = f"on {driver.host}" if driver else "in a process that status.json does not name"
        raise UserError(
            f"{sweep.id}: runs {where}, says its status.json; stop it there, or delete {sweep.path} by hand "
            "where that is no longer so"
        )
    # Its status may be damaged; its lock is held by whoever searches.
    for run in (RunFolder(sweep.path), *sweep.run_folders().values()):
        with run.owned():
            pass


def delete_sweep(sweep: SweepFolder) -> None:
    """Deletes a sweep's folder and the run folders of its trials.

    Raises:
        UserError: it is being written, or a folder cannot be deleted.
    """
    check_deletable(sweep)
    # The sweep's own folder last: where something goes wrong, the same command goes on.
    for path in [*(run.path for run in sweep.run_folders().values()), sweep.path]:
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be deleted ({error.strerror or error}); check who owns it") from None
