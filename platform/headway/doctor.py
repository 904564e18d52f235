"""`headway doctor`: what works on this machine, what does not, and what to do about it.

Every check tries the thing itself, where that is cheap, rather than its version.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform as machine
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

_NEEDED = ("Python", "torch", "ranks", "NCCL", "gloo", "Lightning")
"""Parts without which nothing trains; the others are for those who want them."""


@dataclass(frozen=True)
class Check:
    """What was found of one part."""

    part: str
    state: Literal["ok", "missing", "broken"]
    """`missing` is fine unless it is wanted; `broken` is not."""
    found: str
    remedy: str = ""

    @property
    def mark(self) -> str:
        """Returns a sign for a table."""
        return {"ok": "+", "missing": "-", "broken": "!"}[self.state]


def diagnose() -> list[Check]:
    """Returns a check of every part; a part whose check fails is broken, with the reason."""
    checks = []
    for part, check in _CHECKS.items():
        try:
            checks.append(check())
        except Exception as error:
            # A doctor that dies of what it looks for helps nobody: the failure is the finding.
            checks.append(Check(part, "broken", f"{type(error).__name__}: {error}".splitlines()[0], "reinstall it"))
    return checks


def is_fit(checks: Iterable[Check]) -> bool:
    """Returns whether a run can train here, whatever else is missing or broken."""
    return all(check.state == "ok" for check in checks if check.part in _NEEDED)


def _python() -> Check:
    return Check("Python", "ok", f"{machine.python_version()}, {os.cpu_count()} cores")


def _torch() -> Check:
    import torch

    remedy = (
        "" if torch.__version__ >= "2.10" else "older releases load checkpoints unsafely: pip install 'torch>=2.10'"
    )
    return Check("torch", "ok" if not remedy else "broken", torch.__version__, remedy)


def _gpus() -> Check:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        remedy = (
            "a CPU build of torch: install the CUDA build"
            if built is None
            else "no driver or no device: try nvidia-smi"
        )
        return Check("GPUs", "missing", "none: headway trains on the CPU", f"for GPUs: {remedy}")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("GPUs", "ok", f"{len(names)} x {names[0]}")


def _communication() -> Check:
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available() and not dist.is_nccl_available():
        return Check("NCCL", "broken", "GPUs, but a torch without NCCL", "install a torch build with NCCL")
    if not dist.is_gloo_available():
        return Check("gloo", "broken", "a torch without gloo", "install a torch build with gloo")
    backends = ["gloo"] + (["NCCL"] if dist.is_nccl_available() else [])
    return Check("ranks", "ok", f"{' and '.join(backends)}: ddp and fsdp work here")


def _package(part: str, module: str, minimum: str, works: str) -> Check:
    if importlib.util.find_spec(module) is None:
        return Check(part, "missing", "not installed", f"pip install '{module}>={minimum}'")
    version = importlib.metadata.version(module)
    if _numbers(version) < _numbers(minimum):
        return Check(part, "broken", version, f"too old: pip install '{module}>={minimum}'")
    return Check(part, "ok", f"{version}: {works}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit()]


def _wandb() -> Check:
    found = _package("W&B", "wandb", "0.31", "")
    if found.state != "ok":
        return found
    from headway.track.weights_and_biases import choose_mode

    choice = choose_mode("auto")
    why = f" ({choice.why})" if choice.why else ""
    remedy = "" if choice.mode == "online" else "for online: wandb login, and a network; headway sync uploads later"
    return Check("W&B", "ok", f"{importlib.metadata.version('wandb')}: runs are {choice.mode}{why}", remedy)


def _slurm() -> Check:
    program = shutil.which("sinfo")
    if program is None:
        return Check("Slurm", "missing", "no sinfo on the path", "for clusters with Slurm: run on a login node")
    done = subprocess.run([program, "--noheader"], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        return Check(
            "Slurm", "broken", "sinfo fails: " + (done.stderr.strip().splitlines() or [""])[0], "is slurmctld up?"
        )
    return Check("Slurm", "ok", f"{len(done.stdout.splitlines())} partitions and states")


_CHECKS: dict[str, Callable[[], Check]] = {
    "Python": _python,
    "torch": _torch,
    "GPUs": _gpus,
    "ranks": _communication,
    "Lightning": lambda: _package("Lightning", "lightning", "2.6.6", "the training loop"),
    "DeepSpeed": lambda: _package("DeepSpeed", "deepspeed", "0.19", "ZeRO 1, 2 and 3, on the CPU too"),
    "Ray": lambda: _package("Ray", "ray", "2.60", "sweeps"),
    "W&B": _wandb,
    "Slurm": _slurm,
}
