"""Runs as a W&B server gets them: through the real SDK, against a fake server that also misbehaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.fit import fit
from headway.fused.fit import fit_rows
from headway.recipe import load_recipe
from headway.run import RunFolder, make_run_folder, read_metrics
from headway.track.weights_and_biases import Choice, WandbSink

ONLINE = {
    "track": {"wandb": "online", "group": "lesson", "tags": ["first", "try"], "project": "school", "notes": "why"}
}
EVERY_STEP = {"track.wandb": "online", "track.wandb_every": 1}


def test_a_fit_arrives_whole(tiny_mlp, tmp_path, server) -> None:
    result = fit(tiny_mlp, {**ONLINE, "track.wandb_every": 1}, runs=tmp_path, name="mine", progress=False)
    run = server.run("mine")
    assert (run.project, run.fields["groupName"], run.fields["jobType"]) == ("school", "lesson", "fit")
    assert (run.fields["tags"], run.fields["notes"]) == (["first", "try"], "why")
    assert run.config["optim.lr"] == 3e-3
    assert run.config["model.hidden"] == [17]
    rows = read_metrics(RunFolder(Path(result.run_dir)).metrics)
    for metric in ("train/loss", "val/loss", "test/loss"):
        assert run.steps_of(metric) == [row["step"] for row in rows if metric in row]
        assert run.summary[metric] == pytest.approx([row[metric] for row in rows if metric in row][-1])
    assert [row["_step"] for row in run.history] == list(range(1, 31))
    best = RunFolder(Path(result.run_dir)).status()["best"]
    assert run.summary["best/step"] == best["step"]
    assert run.summary["best/val/loss"] == pytest.approx(best["metrics"]["val/loss"])
    assert (run.summary["ended"], run.exit_code) == ("done", 0)
    assert run.events
    assert RunFolder(Path(result.run_dir)).status()["wandb"] == {"mode": "online", "rows": 30}
    assert server.unknown == []


def test_a_resumed_run_goes_on_as_the_same_run(tiny_mlp, tmp_path, server) -> None:
    fit(tiny_mlp, EVERY_STEP, runs=tmp_path, name="on", progress=False)
    fit(None, {"trainer.max_steps": 40}, resume="on", runs=tmp_path, progress=False)
    assert len(server.runs) == 1
    run = server.run("on")
    assert run.resumes >= 1
    assert run.steps_of("train/loss") == list(range(1, 41))
    assert run.steps_of("val/loss") == [10, 20, 30, 40]
    assert run.config["trainer.max_steps"] == 40


_KILLED = """
import os, signal, sys, time
from pathlib import Path
from headway.recipe import load_recipe
from headway.run import MetricsFile, RunFolder
from headway.track.weights_and_biases import Choice, WandbSink

run, mode = RunFolder(Path(sys.argv[1])), sys.argv[2]
recipe = load_recipe(sys.argv[3], {"track.wandb_every": 1})
metrics = MetricsFile(run.metrics)
sink = WandbSink(run, recipe, Choice(mode))
for step in range(1, 121):
    rows = [{"step": step, "train/loss": 1 / step}]
    metrics.write(rows)
    sink.write(rows)
    if step % 10 == 0:
        metrics.write([{"step": step, "val/loss": 2 / step}])
        sink.write([{"step": step, "val/loss": 2 / step}])
time.sleep(float(sys.argv[4]))
os.killpg(0, signal.SIGKILL)
"""


def killed(run: RunFolder, mode: str, recipe_file: Path, *, after_s: float) -> None:
    """Writes steps 1 to 120 in a process that is then killed with everything it has started."""
    make_run_folder(run.path)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, run.path, mode, recipe_file, str(after_s)],
        start_new_session=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL


def go_on(run: RunFolder, mode: Any, recipe_file: Path) -> WandbSink:
    """Goes on from a checkpoint of step 100, up to 140."""
    from headway.run import MetricsFile

    metrics = MetricsFile(run.metrics, keep_through=100)
    sink = WandbSink(run, load_recipe(recipe_file, {"track.wandb_every": 1}), Choice(mode), resumed_at=100)
    for step in range(101, 141):
        rows = [{"step": step, "train/loss": 1 / step}]
        rows += [{"step": step, "val/loss": 2 / step}] if step % 10 == 0 else []
        metrics.write(rows)
        sink.write(rows)
    sink.close()
    metrics.close()
    return sink


@pytest.mark.parametrize("after_s", [0.0, 0.6])
def test_rows_between_the_checkpoint_and_the_kill_are_there_once(recipe_file, tmp_path, server, after_s) -> None:
    run = RunFolder(tmp_path / "runs" / "killed")
    killed(run, "online", recipe_file, after_s=after_s)
    go_on(run, "online", recipe_file)
    there = server.run("killed")
    assert there.steps_of("train/loss") == list(range(1, 141))
    assert there.steps_of("val/loss") == list(range(10, 141, 10))
    assert all(row["train/loss"] == pytest.approx(1 / row["step"]) for row in there.history)


def test_sixty_four_rows_of_an_array_arrive_complete(tiny_mlp, tmp_path, server) -> None:
    recipes = {
        f"row-{number:02d}": load_recipe(tiny_mlp, {**EVERY_STEP, "track.group": "sweep", "trainer.seed": number})
        for number in range(64)
    }
    fit_rows(recipes, runs=tmp_path)
    assert len(server.runs) == 64
    for name in recipes:
        run = server.run(name)
        assert run.steps_of("train/loss") == list(range(1, 31))
        assert run.steps_of("val/loss") == [10, 20, 30]
        assert (run.exit_code, run.fields["groupName"], run.config["trainer.seed"]) == (0, "sweep", int(name[-2:]))


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("sluggish", ""),
        (429, "file_stream"),
        (500, "file_stream"),
        ("drop", "file_stream"),
        ("drop_answer", "file_stream"),
        (500, "CreateRunFiles"),
    ],
)
def test_a_server_that_stumbles_loses_nothing(tiny_mlp, tmp_path, server, fault, where) -> None:
    server.misbehave(fault, where=where, times=None if fault == "sluggish" else 2, delay_s=0.2)
    result = fit(tiny_mlp, EVERY_STEP, runs=tmp_path, name="mine", progress=False)
    run = server.run("mine")
    assert run.steps_of("train/loss") == list(range(1, 31))
    assert run.steps_of("val/loss") == [10, 20, 30]
    assert run.exit_code == 0
    assert "problem" not in RunFolder(Path(result.run_dir)).status()["wandb"]
