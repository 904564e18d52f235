"""How busy this machine's GPUs are, as nvidia-smi tells."""

from __future__ import annotations

import csv
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

_FIELDS = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "temperature.gpu", "power.draw")
_ANSWERS_WITHIN_S = 10.0


@dataclass(frozen=True)
class Gpu:
    """One GPU; None where it does not say."""

    index: int
    name: str
    use_percent: float | None
    memory_used_mib: float | None
    memory_total_mib: float | None
    celsius: float | None
    watts: float | None


@dataclass(frozen=True)
class Gpus:
    """What could be found out."""

    found: Sequence[Gpu] = ()
    problem: str = ""
    """Why there are none to show."""


def look_at_gpus() -> Gpus:
    """Returns this machine's GPUs; none, with why, where there is no nvidia-smi or it has trouble."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Gpus(problem="no nvidia-smi on this machine")
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWERS_WITHIN_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Gpus(problem=f"nvidia-smi: {type(error).__name__}")
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        return Gpus(problem=f"nvidia-smi: {said[-1] if said else f'exit code {done.returncode}'}")
    return Gpus(read_gpus(done.stdout))


def read_gpus(text: str) -> list[Gpu]:
    """Returns the GPUs in what nvidia-smi printed; a line that is none is passed over."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) == len(_FIELDS) and row[0].isdigit():
            use, used, total, celsius, watts = (_number(cell) for cell in row[2:])
            found.append(Gpu(int(row[0]), row[1], use, used, total, celsius, watts))
    return found


def _number(cell: str) -> float | None:
    """Returns a figure; None for `[N/A]`, as MIG slices and some laptops have it."""
    try:
        return float(cell)
    except ValueError:
        return None
