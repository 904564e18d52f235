"""A checkpoint on disk: a folder of safetensors and JSON with a checksummed manifest.

    checkpoints/00000120/
      weights.safetensors     every weight and buffer, whole, by name
      optimizer.safetensors   the optimizer's state, whole, by <state>/<weight>
      rng.safetensors         the library's generator on every rank, for what draws from it
      carried.safetensors     the state that each row of a batch carries to the next, where a net carries one
      position.json           step, best so far, and what else goes on from here
      MANIFEST.json           size and SHA-256 of each file

The folder is written beside its target under a hidden name, flushed, and renamed: it is there whole or not
at all. One of the same step is put aside until the new one stands, and put back if it never does.
A flipped bit is found by its checksum before a number of it is used. Nothing in it is a pickle,
and it says nothing of ranks or strategies: any number of either can go on from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from headway.config.errors import TrainingFailed

FORMAT = 1
_MANIFEST = "MANIFEST.json"
_ALWAYS = {"weights.safetensors", "optimizer.safetensors", "position.json"}


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a run needs to go on."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    position: dict[str, Any]
    rng: dict[str, Tensor] = field(default_factory=dict)
    carried: dict[str, Tensor] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Returns the number of optimizer steps behind it."""
        return int(self.position["step"])


class Damaged(Exception):
    """A checkpoint that is not what its manifest says."""


def save(checkpoints: Path, checkpoint: Checkpoint, *, flush: bool = True) -> Path:
    """Writes a checkpoint; one of the same step is replaced. Returns its folder.

    Args:
        checkpoints: the run's folder of checkpoints.
        checkpoint: what to write.
        flush: whether it is on the disk on return; else the operating system has it.

    Raises:
        TrainingFailed: the disk refuses; what was there before is still there.
    """
    target = checkpoints / f"{checkpoint.step:08d}"
    beside = checkpoints / f".{target.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        for name, tensors in _tensor_files(checkpoint).items():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, beside / name)
        position = {"format": FORMAT, **checkpoint.position}
        (beside / "position.json").write_text(json.dumps(position, indent=2) + "\n")
        manifest = {path.name: _seal(path) for path in sorted(beside.iterdir())}
        (beside / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        if flush:
            for path in beside.iterdir():
                _flush(path)
            _flush(beside)
        if target.exists():
            shutil.rmtree(_aside(target), ignore_errors=True)
            target.rename(_aside(target))
        beside.rename(target)
        if flush:
            _flush(checkpoints)
        shutil.rmtree(_aside(target), ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        _put_back(checkpoints)
        raise TrainingFailed(f"checkpoint {target} could not be written: {error}") from None
    return target


def load(folder: Path) -> Checkpoint:
    """Returns a verified checkpoint.

    Raises:
        Damaged: a file is missing, short or changed.
    """
    verify(folder)
    position = json.loads((folder / "position.json").read_text())
    if position.get("format") != FORMAT:
        raise Damaged(f"{folder} has format {position.get('format')}; this headway reads {FORMAT}")
    rng, carried = folder / "rng.safetensors", folder / "carried.safetensors"
    return Checkpoint(
        weights=load_file(folder / "weights.safetensors"),
        optimizer=load_file(folder / "optimizer.safetensors"),
        position=position,
        rng=load_file(rng) if rng.exists() else {},
        carried=load_file(carried) if carried.exists() else {},
    )


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the verified weights of a checkpoint, and reads nothing else of it.

    Raises:
        Damaged: they are missing, short or changed.
    """
    weights = folder / "weights.safetensors"
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        if _seal(weights) != manifest[weights.name]:
            raise Damaged(f"{weights} has changed since it was written")
        return load_file(weights)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Damaged(f"{folder} is not whole: {error}") from None


def verify(folder: Path) -> None:
    """Raises Damaged where a checkpoint is not what its manifest says."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        missing = _ALWAYS - set(manifest if isinstance(manifest, dict) else ())
        if missing:
            raise Damaged(f"{folder / _MANIFEST} does not name {', '.join(sorted(missing))}")
        for name, seal in manifest.items():
            if _seal(folder / name) != seal:
                raise Damaged(f"{folder / name} has changed since it was written")
    except (OSError, ValueError) as error:
        raise Damaged(f"{folder} is not whole: {error}") from None


def steps(checkpoints: Path) -> list[int]:
    """Returns the steps that have a checkpoint, oldest first."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def load_newest(checkpoints: Path) -> tuple[Checkpoint | None, list[str]]:
    """Returns the newest checkpoint that is whole, and a line for each newer one that is not."""
    damaged: list[str] = []
    if not checkpoints.is_dir() or not any(checkpoints.iterdir()):
        # A new run's: hundreds of them are asked for as a sweep's rows begin.
        return None, damaged
    _put_back(checkpoints)
    for step in reversed(steps(checkpoints)):
        try:
            return load(checkpoints / f"{step:08d}"), damaged
        except Damaged as problem:
            damaged.append(str(problem))
    return None, damaged


def prune(checkpoints: Path, keep: Collection[int]) -> None:
    """Removes the checkpoints of all other steps, and what an interrupted save left."""
    for step in steps(checkpoints):
        if step not in keep:
            shutil.rmtree(checkpoints / f"{step:08d}", ignore_errors=True)
    for path in checkpoints.glob(".*"):
        shutil.rmtree(path, ignore_errors=True)


def _aside(target: Path) -> Path:
    return target.with_name(f".{target.name}.aside")


def _put_back(checkpoints: Path) -> None:
    """Restores a checkpoint whose replacement was interrupted between two renames."""
    for aside in checkpoints.glob(".*.aside"):
        target = checkpoints / aside.name.split(".")[1]
        if not target.exists():
            aside.rename(target)


def _tensor_files(checkpoint: Checkpoint) -> dict[str, dict[str, Tensor]]:
    files = {"weights.safetensors": checkpoint.weights, "optimizer.safetensors": checkpoint.optimizer}
    if checkpoint.rng:
        files["rng.safetensors"] = checkpoint.rng
    if checkpoint.carried:
        files["carried.safetensors"] = checkpoint.carried
    return files


def _seal(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
