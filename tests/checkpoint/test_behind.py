"""Checkpoints that are kept in memory and written now and then."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headway.checkpoint import behind, store
from headway.checkpoint.behind import Behind
from headway.checkpoint.store import Checkpoint
from headway.run import RunFolder

pytestmark = pytest.mark.quick


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint({"weight": torch.full((2, 3), float(step))}, {}, {"step": step})


def save(shelf: Behind, step: int, keep: set[int]) -> None:
    shelf.save(checkpoint(step), keep=keep, status={"checkpoint": step})


def test_what_is_kept_is_on_the_disk_once_it_is_closed(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    shelf = Behind(run)
    for step, keep in [(2, {2}), (3, {2, 3}), (5, {2, 5})]:
        save(shelf, step, keep)
    assert store.steps(run.checkpoints) == []
    assert shelf.weights(2)["weight"][0, 0] == 2
    shelf.close()
    assert store.steps(run.checkpoints) == [2, 5]
    assert run.status()["checkpoint"] == 5
    newest, damaged = store.load_newest(run.checkpoints)
    assert newest is not None
    assert (newest.step, damaged) == (5, [])


def test_little_work_is_lost_where_it_is_never_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path)
    shelf = Behind(run)
    save(shelf, 2, {2})
    monkeypatch.setattr(behind, "WRITE_INTERVAL_S", 0.0)
    save(shelf, 3, {3})
    assert store.steps(run.checkpoints) == [3]
    save(shelf, 5, {3, 5})
    assert store.steps(run.checkpoints) == [3, 5]
