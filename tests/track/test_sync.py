"""`headway sync` against a fake server: whatever happened before, a run arrives once and whole."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_wandb import FakeWandb, until
from test_online import go_on, killed

from headway.cli import run as headway
from headway.fit import fit
from headway.fused.fit import fit_rows
from headway.recipe import load_recipe
from headway.run import RunFolder, find_run, read_metrics
from headway.track import sync, weights_and_biases
from headway.track.fragments import list_fragments

OFFLINE = {"track.wandb": "offline", "track.wandb_every": 1, "track.project": "school", "track.tags": ["late"]}


@pytest.fixture
def offline(tiny_mlp: dict[str, Any], tmp_path: Path) -> RunFolder:
    """Returns a run of 30 steps that was made offline."""
    return RunFolder(Path(fit(tiny_mlp, OFFLINE, runs=tmp_path / "runs", name="mine", progress=False).run_dir))


def assert_whole(server: FakeWandb, run: RunFolder) -> None:
    """Asserts that a server has each row of a run once, and its end."""
    there, rows = server.run(run.id), read_metrics(run.metrics)
    for metric in ("train/loss", "val/loss", "test/loss"):
        assert there.steps_of(metric) == [row["step"] for row in rows if metric in row]
    assert there.lines_received == len({row["step"] for row in rows})
    values = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert all(row["train/loss"] == pytest.approx(values[row["step"]]) for row in there.history)


def test_an_offline_run_arrives_whole_and_only_once(offline, server, tmp_path, capsys) -> None:
    runs = str(tmp_path / "runs")
    assert headway(["sync", "mine", "--runs", runs]) == 0
    assert "headway: mine: 30 rows uploaded" in capsys.readouterr().err
    assert_whole(server, offline)
    there = server.run("mine")
    assert (there.project, there.fields["tags"], there.fields["jobType"]) == ("school", ["late"], "fit")
    assert there.config["optim.lr"] == 3e-3
    assert (there.summary["ended"], there.exit_code) == ("done", 0)
    assert there.summary["val/loss"] == pytest.approx(read_metrics(offline.metrics)[-2]["val/loss"])
    assert offline.status()["wandb"] == {"mode": "offline", "rows": 30, "synced": True}
    before = list(server.operations)
    assert headway(["sync", "--all", "--runs", runs]) == 0
    assert server.operations == before
    assert "up to date" in capsys.readouterr().out


def test_wandbs_own_sync_agrees_that_it_is_done(offline, server) -> None:
    assert headway(["sync", str(offline.path)]) == 0
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "wandb",
            "sync",
            "--yes",
            *(part.folder for part in list_fragments(offline.path / "wandb")),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "WANDB_SILENT": "false"},
    )
    assert "No runs to sync" in done.stderr + done.stdout
    assert_whole(server, offline)


def test_a_copy_on_another_machine_adds_nothing_to_what_is_there(offline, server, tmp_path) -> None:
    shutil.copytree(offline.path, tmp_path / "elsewhere" / "mine", symlinks=True)
    assert headway(["sync", str(offline.path)]) == 0
    shutil.rmtree(offline.path)
    assert headway(["sync", "mine", "--runs", str(tmp_path / "elsewhere")]) == 0
    assert_whole(server, RunFolder(tmp_path / "elsewhere" / "mine"))


@pytest.mark.parametrize("at_once", [True, False])
def test_an_offline_run_that_was_killed_and_went_on_is_one_run(recipe_file, server, tmp_path, at_once) -> None:
    run = RunFolder(tmp_path / "runs" / "killed")
    killed(run, "offline", recipe_file, after_s=1.5)
    run.recipe.write_text("track: {wandb_every: 1}\n")
    if not at_once:
        assert headway(["sync", str(run.path)]) == 0
        assert server.run("killed").steps_of("train/loss") == list(range(1, 121))
        assert server.run("killed").exit_code == 255
    go_on(run, "offline", recipe_file)
    assert len(list_fragments(run.path / "wandb")) == 2
    assert headway(["sync", str(run.path)]) == 0
    assert len(server.runs) == 1
    there = server.run("killed")
    assert there.steps_of("train/loss") == list(range(1, 141))
    assert there.steps_of("val/loss") == list(range(10, 141, 10))
    assert there.lines_received == 140
    assert there.exit_code == 0


def test_rows_that_wandbs_file_lost_come_from_the_metrics(offline, server) -> None:
    (fragment,) = list_fragments(offline.path / "wandb")
    os.truncate(fragment.file, fragment.file.stat().st_size // 2)
    assert headway(["sync", str(offline.path)]) == 0
    assert_whole(server, offline)
    assert server.run("mine").summary["test/loss"] == read_metrics(offline.metrics)[-1]["test/loss"]


def test_a_run_that_wandb_could_not_begin_comes_from_its_folder(offline, server) -> None:
    shutil.rmtree(offline.path / "wandb")
    offline.update_status(wandb={"mode": "online", "problem": "W&B could not begin this run"})
    (offline.path / "wandb").mkdir()
    assert headway(["sync", str(offline.path)]) == 0
    assert_whole(server, offline)
    there = server.run("mine")
    assert (there.project, there.fields["tags"], there.config["optim.lr"]) == ("school", ["late"], 3e-3)


@pytest.mark.parametrize("fault", ["sluggish", 429, 500, "drop", "drop_answer"])
def test_a_server_that_stumbles_gets_each_row_once(offline, server, fault) -> None:
    server.misbehave(fault, where="file", times=None if fault == "sluggish" else 2, delay_s=0.2)
    assert headway(["sync", str(offline.path)]) == 0
    there = server.run("mine")
    assert there.steps_of("train/loss") == list(range(1, 31))
    assert there.exit_code == 0


def test_what_does_not_go_up_is_named_and_goes_up_later(offline, server, monkeypatch, capsys) -> None:
    server.misbehave(403, where="file_stream")
    assert headway(["sync", str(offline.path)]) == 3
    assert "headway: mine: " in capsys.readouterr().err
    server.stop()
    assert headway(["sync", str(offline.path)]) == 3
    assert f"headway: mine: {server.url} cannot be reached" in capsys.readouterr().err
    server.behave()
    server.start()
    assert headway(["sync", str(offline.path)]) == 0
    assert_whole(server, offline)


def test_a_server_that_dies_while_it_is_sent_to_is_given_up_on(offline, server, monkeypatch) -> None:
    monkeypatch.setattr(sync, "_LOOK_EVERY_S", 0.3)
    server.misbehave("silent", where="file_stream")
    killer = threading.Thread(target=lambda: (until(lambda: "CreateRunFiles" in server.operations), server.stop()))
    killer.start()
    assert headway(["sync", str(offline.path)]) == 3
    killer.join()
    server.behave()
    server.start()
    assert headway(["sync", str(offline.path)]) == 0
    assert_whole(server, offline)


def test_an_interrupted_sync_goes_on(offline, server) -> None:
    server.misbehave("sluggish", where="file_stream", delay_s=1.0)
    interrupted = subprocess.Popen([sys.executable, "-m", "headway", "sync", str(offline.path)], start_new_session=True)
    until(lambda: any(run.streams for run in server.runs.values()))
    os.killpg(interrupted.pid, signal.SIGKILL)
    interrupted.wait()
    server.behave()
    deadline = time.monotonic() + 60
    while headway(["sync", str(offline.path)]) == 3 and time.monotonic() < deadline:
        time.sleep(0.2)  # what it had started still has the run
    assert_whole(server, offline)


def test_an_online_run_that_lost_its_server_is_made_whole(tiny_mlp, server, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(weights_and_biases, "FINISH_S", 2.0)

    def lose_it(metrics: dict[str, float]) -> bool:
        if metrics["step"] == 20:
            time.sleep(0.2)
            server.stop()
        return True

    online = {**OFFLINE, "track.wandb": "online"}
    result = fit(tiny_mlp, online, runs=tmp_path, name="lost", on_report=lose_it, progress=False)
    run = RunFolder(Path(result.run_dir))
    assert "problem" in run.status()["wandb"]
    server.start()
    assert headway(["sync", str(run.path)]) == 0
    assert server.run("lost").steps_of("train/loss") == list(range(1, 31))
    assert server.run("lost").steps_of("val/loss") == [10, 20, 30]
    assert "problem" not in run.status()["wandb"]


def test_the_trials_of_a_sweep_go_up_by_its_name(tiny_mlp, server, tmp_path) -> None:
    recipes = {
        f"search-{number:04d}": load_recipe(tiny_mlp, {**OFFLINE, "track.group": "search", "trainer.seed": number})
        for number in range(1, 65)
    }
    fit_rows(recipes, runs=tmp_path)
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "sweep.yaml").touch()
    assert headway(["sync", "search", "--runs", str(tmp_path)]) == 0
    assert len(server.runs) == 64
    for name in recipes:
        assert_whole(server, find_run(tmp_path, name))
        assert server.run(name).fields["groupName"] == "search"


def test_a_run_that_is_being_written_waits(offline, server, capsys) -> None:
    with offline.owned():
        assert headway(["sync", str(offline.path), "--json"]) == 3
    assert '"state": "running"' in capsys.readouterr().out
    assert server.runs == {}


def test_names_and_keys_that_are_wrong_are_answered_in_one_line(offline, server, monkeypatch, capsys) -> None:
    runs = ["--runs", str(offline.path.parent)]
    assert headway(["sync", "nobody", *runs]) == 2
    assert headway(["sync", *runs]) == 2
    assert headway(["sync", "mine", "--all", *runs]) == 2
    monkeypatch.setattr("headway.track.wandb_server.known_key", lambda: None)
    assert headway(["sync", "mine", *runs]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert said[-1] == "headway: there is no W&B key; run `wandb login`, or set WANDB_API_KEY"


def test_syncing_imports_no_torch(offline, server) -> None:
    code = (
        "import sys; from headway.cli import run; "
        f"code = run(['sync', {str(offline.path)!r}]); print(code, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "0 False False"


def test_a_watching_sync_uploads_runs_as_they_end(offline, tiny_mlp, server, tmp_path, monkeypatch, capsys) -> None:
    looks: list[float] = []

    def another_run(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            fit(tiny_mlp, OFFLINE, runs=tmp_path / "runs", name="later", progress=False)
        if len(looks) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("headway.wandb_verbs.time", SimpleNamespace(sleep=another_run))
    with pytest.raises(SystemExit, match="130"):
        headway(["sync", "--all", "--watch", "--runs", str(tmp_path / "runs")])
    assert_whole(server, offline)
    assert_whole(server, RunFolder(tmp_path / "runs" / "later"))
    told = [line for line in capsys.readouterr().err.splitlines() if "uploaded" in line]
    assert told == ["headway: mine: 30 rows uploaded", "headway: later: 30 rows uploaded"]
