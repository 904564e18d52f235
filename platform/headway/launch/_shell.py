"""Runs a scheduler's commands, here or on a login node through the person's own ssh.

Nothing is pasted into a command line: what goes to the other side is quoted word by word, and secrets travel on
standard input, where no process list shows them.
"""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headway.config.errors import UserError
from headway.launch.base import Unreachable

_ANSWERS_WITHIN_S = 60
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15")
_SSH_FAILED = 255


@dataclass(frozen=True)
class Shell:
    """Where commands are run."""

    host: str | None = None
    """Login node as ssh knows it; None is this machine."""

    def run(self, command: Sequence[str], *, secrets: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """Runs a command and returns its exit code, standard output and standard error.

        Args:
            command: the program and its arguments.
            secrets: environment variables for it which nobody may see.

        Raises:
            UserError: there is no such program.
            Unreachable: the login node does not answer, or the command does not end.
        """
        if self.host is None:
            return self._do(command, None, {**own_environment(), **(secrets or {})}, command[0])
        lines = [f"export {name}={shlex.quote(value)}" for name, value in (secrets or {}).items()]
        # Slurm makes a job's log with the umask that sbatch ran under.
        script = "\n".join(["umask 077", *lines, f"exec {shlex.join(command)}"]) + "\n"
        return self._do([*_SSH, self.host, "bash -s"], script.encode(), None, command[0])

    def put(self, files: Mapping[str, str], folder: str) -> None:
        """Writes files into a folder of the login node, readable by their owner alone.

        Raises:
            UserError: it cannot be written.
            Unreachable: the login node does not answer.
        """
        assert self.host is not None
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, text in files.items():
                content = text.encode()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                tar.addfile(entry, io.BytesIO(content))
        quoted = shlex.quote(folder)
        unpack = f"umask 077 && mkdir -p {quoted} && tar -xf - -C {quoted} --no-same-owner"
        code, _, error = self._do([*_SSH, self.host, unpack], archive.getvalue(), None, "tar")
        if code:
            raise UserError(f"folder: {folder} cannot be written on {self.host} ({last_line(error)})")

    def _do(
        self, command: Sequence[str], given: bytes | None, environment: Mapping[str, str] | None, program: str
    ) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                command,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                timeout=_ANSWERS_WITHIN_S,
                env=environment,
                umask=0o077,
                check=False,
            )
        except FileNotFoundError:
            raise UserError(
                f"{command[0]} is not installed here; submit where it is, or name a login node in the profile's host"
            ) from None
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{program} gave no answer within {_ANSWERS_WITHIN_S} s; try again later") from None
        error = done.stderr.decode(errors="replace")
        if self.host is not None and done.returncode == _SSH_FAILED:
            raise Unreachable(f"host: {self.host} cannot be reached ({last_line(error)})")
        return done.returncode, done.stdout.decode(errors="replace"), error


def own_environment() -> dict[str, str]:
    """Returns this process's environment, in which `headway` is the one that runs now.

    A virtual environment need not be activated for its headway to be called by its path; what it sends must find it.
    """
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def last_line(text: str) -> str:
    """Returns the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
