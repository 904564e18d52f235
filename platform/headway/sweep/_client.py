"""A sweep on a cluster that is reached through Ray's client: `--address ray://HOST:10001`.

Nothing but calls goes through the client, while a sweep's account is kept where its trials are proposed. So the whole
command runs there, on the folder that this machine and the cluster's nodes share, and this process passes on what it
says, and signals. Where this process is killed the command stops as if it had been told to, so that one can go on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import ray

from headway.config.errors import HeadwayError, Stopped, TrainingFailed, UserError
from headway.run import RunFolder
from headway.supervise.orphans import PARENT_VARIABLE
from headway.supervise.signals import StopFlag, stop_on_signals
from headway.sweep._tune import quiet_environment, ray_session
from headway.sweep.result import SweepResult, Trial

_POLL_S = 0.5
_ALONE_S = 15.0
"""Seconds without a call from the client, after which it counts as gone. Ray gives it half a minute to come back, and
then kills what it started."""
# Ray's processes start theirs deaf to Ctrl-C.
_COMMAND = """
import signal
from headway.supervise.orphans import end_with_parent
end_with_parent()
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
import headway.__main__
"""


def sweep_there(folder: RunFolder, address: str, *, say: Callable[[str], None]) -> SweepResult:
    """Runs a sweep whose folder is there, new or not, on a cluster, and returns what it came to.

    Args:
        folder: the sweep's, under the same path on the cluster.
        address: `ray://HOST:PORT`.
        say: takes a line for a person.

    Raises:
        UserError: there is no cluster at the address, or it refuses the sweep.
        TrainingFailed: every trial failed.
        Stopped: a signal ended it.
    """
    (folder.path / "journal.jsonl").touch()
    flag = StopFlag()
    on_main_thread = threading.current_thread() is threading.main_thread()
    with quiet_environment(), ray_session(0, address=address):
        driver: Any = _Driver
        there = driver.options(num_cpus=0).remote(str(folder.path), os.getcwd())  # noqa: PTH109 - for os.chdir
        with stop_on_signals(flag) if on_main_thread else nullcontext(flag):
            said, asked_to_stop, last = None, False, ""
            while said is None:
                time.sleep(_POLL_S)
                if flag() and not asked_to_stop:
                    asked_to_stop = True
                    ray.get(there.stop.remote(flag.signal_number))
                lines, said = ray.get(there.listen.remote())
                for line in filter(None, [last, *lines[:-1]] if lines else []):
                    say(line)
                # The last line of a command that fails is its error.
                last = lines[-1] if lines else last
    if said["code"]:
        raise _error(said["code"], last.removeprefix("headway: "))
    if last:
        say(last)
    found = json.loads(said["output"].splitlines()[-1])
    made = {field.name: found.get(field.name) for field in fields(SweepResult)}
    made["trials"] = [Trial(**trial) for trial in found["trials"]]
    return SweepResult(**{**made, "best": Trial(**found["best"]) if found["best"] else None})


def _error(code: int, message: str) -> HeadwayError:
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        return Stopped(message, signal_number=code - 128)
    return (UserError if code == UserError.exit_code else TrainingFailed)(message)


@ray.remote
class _Driver:
    """The command, on the cluster; it ends when this does, and stops where nobody has listened for a while."""

    def __init__(self, sweep: str, folder: str) -> None:
        address = ray.get_runtime_context().gcs_address
        arguments = ["sweep", "--resume", sweep, "--runs", str(Path(sweep).parent), "--address", address, "--json"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *arguments],
            cwd=folder,
            env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._output = ""
        self._heard = time.monotonic()
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_lines, self._read_output)]
        for thread in (*self._readers, threading.Thread(target=self._end_alone, daemon=True)):
            thread.start()

    def _end_alone(self) -> None:
        """Stops the command, its trials' positions saved, where the client is gone without a word."""
        while self._process.poll() is None:
            time.sleep(_POLL_S)
            if time.monotonic() - self._heard > _ALONE_S:
                self._process.terminate()
                return

    def _read_lines(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.append(line.rstrip())

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        self._output = self._process.stdout.read()

    def listen(self) -> tuple[list[str], dict[str, Any] | None]:
        """Returns the lines since the last call, and once the command has ended what it came to."""
        self._heard = time.monotonic()
        code = self._process.poll()
        if code is not None:
            for reader in self._readers:
                reader.join()
        lines, self._lines = self._lines, []
        return lines, None if code is None else {"code": code, "output": self._output}

    def stop(self, number: int) -> None:
        """Passes a signal on."""
        self._process.send_signal(number)
