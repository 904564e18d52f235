"""What a run was made with: enough to know, a year later, why two runs differ."""

from __future__ import annotations

import importlib.metadata
import os
import platform as machine
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

_PACKAGES = ("headway", "torch", "lightning", "deepspeed", "ray", "wandb", "numpy")
_MAX_DIFF_BYTES = 200_000


def build_manifest(*, argv: list[str], data_fingerprint: str, device: str, world_size: int) -> dict[str, Any]:
    """Returns the manifest's content at a run's start.

    Args:
        argv: the command line.
        data_fingerprint: SHA-256 of the data.
        device: `cpu` or `cuda`.
        world_size: number of ranks.
    """
    return {
        "command": argv,
        "started": time.time(),
        "code": code_state(Path.cwd()),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": machine.python_version(),
        "hardware": _hardware(device),
        "world_size": world_size,
        "data_sha256": data_fingerprint,
    }


@cache
def code_state(folder: Path) -> dict[str, Any]:
    """Returns the git commit of a folder, and the diff where it is dirty; {} outside a repository.

    It is that of the process's first run, whose modules those after it use.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git(folder, "diff", "HEAD") or ""
    untracked = (_git(folder, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    state: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(diff or untracked)}
    if diff:
        state["diff"] = diff[:_MAX_DIFF_BYTES]
        state["diff_truncated"] = len(diff) > _MAX_DIFF_BYTES
    if untracked:
        state["untracked"] = untracked[:200]
    return state


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _hardware(device: str) -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "host": machine.node(),
        "system": machine.platform(),
        "cpu": machine.processor() or machine.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "device": device,
    }
    if device == "cuda":
        hardware["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        hardware["cuda"] = torch.version.cuda
    return hardware
