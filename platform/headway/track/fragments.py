"""The folders in a run's `wandb/`: W&B's SDK makes one each time the run is started, offline or online.

Imports no torch.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.wandb_file import Glance, LogFile, glance

_NAME = re.compile(r"(offline-)?run-(\d{8}_\d{6})-.+")
_WRITTEN_S = 5.0


@dataclass(frozen=True)
class Fragment:
    """One of a run's starts."""

    folder: Path
    file: Path
    started: str
    """As in the folder's name: the year first, so that it sorts by time."""
    offline: bool

    @property
    def is_synced(self) -> bool:
        """Returns whether W&B's own mark says that all of it is uploaded."""
        return _mark(self.file).exists()


def list_fragments(folder: Path) -> list[Fragment]:
    """Returns a `wandb/` folder's starts, oldest first; [] where there is none."""
    found = []
    for path in folder.glob("*run-*"):
        match, files = _NAME.fullmatch(path.name), sorted(path.glob("run-*.wandb"))
        if match and files:
            found.append(Fragment(path, files[0], match[2], match[1] is not None))
    return sorted(found, key=lambda fragment: (fragment.started, fragment.folder.name))


def described(fragment: Fragment) -> Any:
    """Returns W&B's record of whose run a start is; None where its file has none."""
    records = LogFile(fragment.file).records()
    return next((record.run for record in records if record.WhichOneof("record_type") == "run"), None)


def mark_synced(folder: Path) -> None:
    """Leaves W&B's own mark beside a start's file, which its `wandb sync` heeds, too."""
    for file in folder.glob("run-*.wandb"):
        _mark(file).touch()


def last_step_on_disk(folder: Path) -> int:
    """Returns the newest step that W&B's files have of a run; -1 where there is none."""
    return max((glance(fragment.file).last_step for fragment in list_fragments(folder)), default=-1)


def once_written(folder: Path) -> Glance:
    """Returns how far a start's file goes once W&B's own process is done with it, which is after `finish` returns."""
    deadline = time.monotonic() + _WRITTEN_S
    while not (found := glance(folder)).ended and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _mark(file: Path) -> Path:
    return file.with_name(f"{file.name}.synced")
