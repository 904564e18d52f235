"""What a run leaves to be looked at, tells of, and hands to W&B beside its rows."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from fake_wandb import FakeWandb
from PIL import Image

from headway.cli import run as headway
from headway.config.errors import TrainingFailed
from headway.fit import fit
from headway.run import RunFolder, make_run_folder, read_metrics
from headway.track import alerts, node_monitor
from headway.track.alerts import Alerts
from headway.track.media import Media, read_index
from headway.track.node_monitor import NodeMonitor, NodeRows
from headway.track.pictures import gradient_flow


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run_folder(tmp_path / "r")


def picture(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.copy()


def test_a_classifier_shows_what_it_takes_for_what_and_its_filters(tiny_mlp, tmp_path) -> None:
    result = fit(tiny_mlp, {"track.health_every": "never"}, runs=tmp_path, name="mine", progress=False)
    run = RunFolder(Path(result.run_dir))
    index = {row["name"]: row for row in read_index(run)}
    assert set(index) == {"predictions", "misclassified", "first-filters"}
    best = run.status()["best"]["step"]
    assert {row["step"] for row in index.values()} == {best}
    table = json.loads((run.path / index["predictions"]["path"]).read_text())
    assert table["columns"] == ["sample", "is", "taken for", "probability"]
    is_wrong = [row[1] != row[2] for row in table["data"]]
    assert is_wrong == sorted(is_wrong, reverse=True)
    assert any(is_wrong)
    assert picture(run.path / index["first-filters"]["path"]).size[0] > 100


def test_a_language_model_shows_what_it_writes_and_where_it_looks(tmp_path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat.\nthe dog sat on the log.\nwas it a cat I saw?\n" * 40)
    recipe = {
        "name": "tiny",
        "model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 14},
        "data": {"kind": "text", "path": str(text), "sequence_length": 11},
        "optim": {"kind": "adamw", "lr": 1e-3},
        "trainer": {"max_steps": 2, "batch_size": 2, "validate_every": 2, "threads": 1, "accelerator": "cpu"},
        "track": {"wandb": "disabled", "health_every": "never"},
    }
    result = fit(recipe, runs=tmp_path, name="mine", progress=False)
    run = RunFolder(Path(result.run_dir))
    index = {row["name"]: row for row in read_index(run)}
    assert set(index) == {"generated", "attention"}
    assert len((run.path / index["generated"]["path"]).read_text()) > 100
    assert picture(run.path / index["attention"]["path"]).size == (2 * 132, 2 * 132)


def test_media_that_are_not_wanted_are_not_made(tiny_mlp, tmp_path) -> None:
    result = fit(tiny_mlp, {"track.media": False}, runs=tmp_path, name="mine", progress=False)
    assert not (Path(result.run_dir) / "media").exists()


def test_the_gradients_of_layers_are_a_heat_map(run: RunFolder) -> None:
    rows = [
        {"step": step, "health/first/grad_norm": 10.0**-step, "health/deep.second/grad_norm": 2.0, "train/loss": 1.0}
        for step in range(1, 8)
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": 8, "train/loss": 1.0}]))
    media = Media(run)
    gradient_flow(run, media)
    (row,) = media.added
    assert (row["name"], row["step"]) == ("gradient-flow", 7)
    seen = picture(run.path / row["path"])
    assert seen.getpixel((190, 8)) != seen.getpixel((810, 8))
    assert seen.getpixel((190, 24)) == seen.getpixel((810, 24))


def assert_complete(server: FakeWandb, name: str) -> None:
    """Asserts that a server has a run's pictures, tables, code and checkpoints."""
    run = server.run(name)
    files = set(run.files)
    assert any(file.startswith("media/images/media/misclassified") for file in files)
    assert any(file.startswith("media/table/media/predictions") for file in files)
    (row,) = [row for row in run.history if "media/misclassified" in row]
    assert row["step"] == 30
    committed = [artifact for artifact in server.artifacts if artifact.committed]
    (code,) = [artifact for artifact in committed if artifact.type == "code"]
    assert {"recipe.yaml", "manifest.json"} <= set(code.files)
    models = [artifact for artifact in committed if artifact.type == "model"]
    assert sorted(alias for model in models for alias in model.aliases) == ["best", "latest"]
    assert all("weights.safetensors" in model.files for model in models)
    (table,) = [artifact for artifact in committed if artifact.type == "run_table" and "predictions" in artifact.name]
    assert table.files


def test_wandb_gets_media_code_and_checkpoints(tiny_mlp, tmp_path, server) -> None:
    online = {"track.wandb": "online", "track.checkpoints": True}
    fit(tiny_mlp, online, runs=tmp_path, name="mine", progress=False)
    assert_complete(server, "mine")
    assert [alert["title"] for alert in server.run("mine").alerts] == ["mine is done"]


def test_an_offline_runs_media_code_and_checkpoints_go_up_from_another_machine(
    tiny_mlp, tmp_path, server, monkeypatch
) -> None:
    offline = {"track.wandb": "offline", "track.checkpoints": True}
    result = fit(tiny_mlp, offline, runs=tmp_path / "here", name="mine", progress=False)
    shutil.copytree(result.run_dir, tmp_path / "there" / "mine", symlinks=True)
    shutil.rmtree(tmp_path / "here")
    assert headway(["sync", "mine", "--runs", str(tmp_path / "there")]) == 0
    assert_complete(server, "mine")


# ---- alerts ------------------------------------------------------------------------------------------------


def kinds(run: RunFolder) -> list[str]:
    return [row["kind"] for row in read_metrics(run.path / alerts.FILE)]


def test_a_loss_that_is_no_number_is_told(tiny_mlp, tmp_path, server) -> None:
    broken = {"track.wandb": "online", "optim": {"kind": "sgd", "lr": 1e30}, "trainer.clip_norm": None}
    with pytest.raises(TrainingFailed):
        fit(tiny_mlp, broken, runs=tmp_path, name="bad", progress=False)
    assert kinds(RunFolder(tmp_path / "bad")) == ["nan"]
    (alert,) = server.run("bad").alerts
    assert (alert["title"], alert["severity"]) == ("bad: the loss is no number", "ERROR")
    assert server.run("bad").exit_code == 1


@pytest.mark.quick
def test_a_loss_that_runs_away_is_told_once(run: RunFolder) -> None:
    watching = Alerts(run, ["diverged", "finished"], stall_s=60)
    for step in range(1, 401):
        watching.write([{"step": step, "train/loss": 1.0 if step < 200 else 1.0 + (step - 200) * 0.1}])
    watching.close()
    assert kinds(run) == ["diverged", "finished"]


@pytest.mark.quick
def test_a_noisy_loss_that_falls_is_not_told(run: RunFolder) -> None:
    watching = Alerts(run, ["diverged"], stall_s=60)
    for step in range(1, 401):
        watching.write([{"step": step, "train/loss": (2.0 if step % 7 else 6.0) / (1 + step / 100)}])
    watching.close()
    assert kinds(run) == []


@pytest.mark.quick
def test_a_run_that_makes_no_steps_is_told_each_time(run: RunFolder) -> None:
    told: list[dict[str, Any]] = []
    watching = Alerts(run, ["stalled"], stall_s=0.2, tell=told.append)
    for step in (1, 2):
        watching.write([{"step": step}])
        deadline = time.monotonic() + 10
        while len(told) < step and time.monotonic() < deadline:
            time.sleep(0.01)
    watching.close()
    assert [row["step"] for row in told] == [1, 2]
    assert kinds(run) == ["stalled", "stalled"]


# ---- nodes -------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_first_rank_hands_on_what_other_nodes_are_busy_with(run: RunFolder) -> None:
    rows = NodeRows(run)
    monitors = [NodeMonitor(run, node, every_s=0.05) for node in (0, 1)]
    found: dict[str, Any] = {}
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.02)
        found = rows.newest()
    for monitor in monitors:
        monitor.close()
    assert "system/node-1/cpu_percent" in found
    assert not any("node-0" in name for name in found)
    assert read_metrics(run.path / "system" / "node-0.jsonl")
    assert node_monitor.EVERY_S == 15.0
