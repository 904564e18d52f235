"""What a run was made with: enough to know, a year later, why two runs differ."""

from __future__ import annotations

import importlib.metadata
import os
import platform as machine
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from headway.run import JOB_VARIABLE
from headway.track.source import code_state, submitted_code

_PACKAGES = ("headway", "torch", "lightning", "deepspeed", "ray", "wandb", "numpy")


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
        "code": submitted_code() or code_state(Path.cwd()),
        "job": os.environ.get(JOB_VARIABLE),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": machine.python_version(),
        "hardware": _hardware(device),
        "world_size": world_size,
        "data_sha256": data_fingerprint,
    }


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
