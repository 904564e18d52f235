"""A disk that is really full: told in one line, where W&B's own process says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.cli import run as headway
from headway.recipe import load_recipe
from headway.run import MetricsFile, RunFolder, make_run_folder
from headway.track.fragments import list_fragments
from headway.track.weights_and_biases import Choice, WandbSink
from headway.wandb_file import glance

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("mount") is None, reason="only root can mount a small disk"
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    """Gives a run whose W&B files lie on a disk of 300 kB."""
    run = make_run_folder(tmp_path / "small")
    disk = run.path / "wandb"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    yield run
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_rows_that_a_full_disk_did_not_take_are_told_and_go_up_later(run, recipe_file, server) -> None:
    told: list[str] = []
    recipe = load_recipe(recipe_file, {"track.wandb_every": 1, "track.code": False})
    metrics, sink = MetricsFile(run.metrics), WandbSink(run, recipe, Choice("offline"), say=told.append)
    for step in range(1, 3001):
        rows = [{"step": step, "train/loss": 1 / step, "train/lr": 0.1, "train/grad_norm": 2 / step}]
        metrics.write(rows)
        sink.write(rows)
    sink.close()
    metrics.close()
    (fragment,) = list_fragments(run.path / "wandb")
    there = glance(fragment.file).num_rows
    assert there < 3000
    assert told == [
        f"{fragment.folder.name} has {there:,} of 3,000 rows: the disk is full; metrics.jsonl has every row"
    ]
    assert run.status()["wandb"]["problem"] == f"{fragment.folder.name} has {there:,} of 3,000 rows"
    run.recipe.write_text("track: {wandb_every: 1}\n")
    assert headway(["sync", str(run.path)]) == 0
    assert server.run("small").steps_of("train/loss") == list(range(1, 3001))


def test_a_disk_with_room_is_not_called_full(tmp_path, recipe_file) -> None:
    told: list[str] = []
    run = make_run_folder(tmp_path / "roomy")
    sink = WandbSink(run, load_recipe(recipe_file, {"track.wandb_every": 1}), Choice("offline"), say=told.append)
    sink.write([{"step": step, "train/loss": 1 / step} for step in range(1, 3001)])
    sink.close()
    assert told == []
    assert run.status()["wandb"] == {"mode": "offline", "rows": 3000}
