"""Where a keeper puts its checkpoints: on the disk at once, or in memory first and on the disk now and then."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

from headway.checkpoint import store
from headway.checkpoint.store import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from headway.run import RunFolder

WRITE_INTERVAL_S = 5.0
"""Seconds after which a run in memory has a checkpoint made and written, at the end of the chunk of steps it is in."""


class Shelf(Protocol):
    """Keeps the checkpoints of a run."""

    @property
    def is_due(self) -> bool:
        """Returns whether a checkpoint should be made now, though no validation asks for one; on one rank alone."""

    def save(self, checkpoint: Checkpoint, *, keep: Collection[int], status: dict[str, Any]) -> None:
        """Keeps a checkpoint and those of the steps `keep`, drops all others, and has the run's status say so."""

    def weights(self, step: int) -> dict[str, Tensor]:
        """Returns the weights of a step that is kept."""

    def close(self) -> None:
        """Returns once everything that is kept is on the disk."""


class AtOnce:
    """Writes and flushes each checkpoint when it is made.

    Args:
        run: whose.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    @property
    def is_due(self) -> bool:
        """Returns False: ranks agree on an interval by what they report to each other."""
        return False

    def save(self, checkpoint: Checkpoint, *, keep: Collection[int], status: dict[str, Any]) -> None:
        """Writes it."""
        store.save(self.run.checkpoints, checkpoint)
        store.prune(self.run.checkpoints, keep)
        self.run.update_status(**status)

    def weights(self, step: int) -> dict[str, Tensor]:
        """Returns weights from the disk."""
        return store.load(self.run.checkpoints / f"{step:08d}").weights

    def close(self) -> None:
        """Does nothing: all is written."""


class Behind:
    """Keeps checkpoints in memory and writes them every few seconds and at the end, for runs of many small steps.

    They are handed to the operating system, which a process that dies takes nothing from, and not flushed to the disk.

    Args:
        run: whose.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self._kept: dict[int, Checkpoint] = {}
        self._keep: set[int] = set()
        """Steps that are kept, here or, where the run was gone on with, on the disk alone."""
        self._status: dict[str, Any] = {}
        self._on_disk: set[int] = set()
        self._written = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Returns whether the newest on the disk is as old as may be lost: by the clock, as others' steps take time."""
        return time.monotonic() - self._written >= WRITE_INTERVAL_S

    def save(self, checkpoint: Checkpoint, *, keep: Collection[int], status: dict[str, Any]) -> None:
        """Keeps it, and writes where that is due."""
        # A step may be saved again with another position, such as that of a run that is to stop.
        self._on_disk.discard(checkpoint.step)
        self._kept[checkpoint.step] = checkpoint
        self._keep = set(keep)
        self._kept = {step: kept for step, kept in self._kept.items() if step in self._keep}
        self._status = status
        if self.is_due:
            self.close()

    def weights(self, step: int) -> dict[str, Tensor]:
        """Returns weights from memory, or those of before the run was gone on with."""
        if step in self._kept:
            return self._kept[step].weights
        return store.load(self.run.checkpoints / f"{step:08d}").weights

    def close(self) -> None:
        """Writes what is not on the disk yet."""
        self._written = time.monotonic()
        waiting = {step: kept for step, kept in self._kept.items() if step not in self._on_disk}
        if not waiting:
            return
        for checkpoint in waiting.values():
            store.save(self.run.checkpoints, checkpoint, flush=False)
        self._on_disk = set(self._kept)
        store.prune(self.run.checkpoints, self._keep)
        self.run.update_status(**self._status)
