"""Sweeps that are gone on with: after a stop, after a kill, from a damaged journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from headway.checkpoint import store
from headway.cli import run as headway
from headway.config.errors import UserError
from headway.run import RunFolder, read_metrics
from headway.sweep import SweepResult, sweep
from headway.sweep._tune import quiet_environment, ray_session
from headway.sweep.journal import Event, Journal, read_journal

TREE: dict[str, Any] = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "adamw", "lr": 0.1},
    "trainer": {"max_epochs": 3, "batch_size": 128, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {
        "trials": 6,
        "fuse": "on",
        "max_concurrent": 1,
        "space": {"model.dropout": {"uniform": [0.0, 0.5]}, "optim.lr": {"loguniform": [1e-4, 1e-1]}},
    },
}
STARTS_WITHIN_S = 120
HEADWAY = [sys.executable, "-m", "headway"]


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(2):
        yield


@pytest.mark.parametrize("searcher", ["random", "tpe"])
@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
def test_a_sweep_in_two_parts_is_the_sweep_in_one(ray: None, tmp_path: Path, searcher: str, scheduler: str) -> None:
    changes = {"sweep.searcher": searcher, "sweep.scheduler": scheduler}
    whole = sweep(TREE, changes, runs=tmp_path / "whole", name="s", progress=False)
    sweep(TREE, {**changes, "sweep.trials": 3}, runs=tmp_path / "parts", name="s", progress=False)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("s-*/metrics.jsonl")}
    parts = sweep(resume="s", overrides=["sweep.trials=6"], runs=tmp_path / "parts", progress=False)
    # The searcher and the rungs remember what was before: proposals and stops are those of the sweep in one.
    assert [trial.config for trial in parts.trials] == [trial.config for trial in whole.trials]
    assert [(trial.status, trial.value) for trial in parts.trials] == [(t.status, t.value) for t in whole.trials]
    assert len(stamps) == 3
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_finished_sweep_stays_as_it_is(ray: None, tmp_path: Path) -> None:
    first = sweep(TREE, {"sweep.trials": 2}, runs=tmp_path, name="s", progress=False)
    again = sweep(resume="s", runs=tmp_path, progress=False)
    assert again.trials == first.trials
    assert RunFolder(tmp_path / "s").status()["state"] == "done"


def test_what_would_make_it_another_sweep_is_refused(tmp_path: Path, ray: None) -> None:
    sweep(TREE, {"sweep.trials": 2, "trainer.max_epochs": 1}, runs=tmp_path, name="s", progress=False)
    for given, line in (
        ({"resume": "t"}, "there is no sweep 't' in"),
        ({"resume": "s", "overrides": ["optim.lr=1"]}, "optim.lr: a sweep goes on with the recipe that it has"),
        ({"resume": "s", "overrides": ["sweep.trials=1"]}, "sweep.trials: 1, but 2 have been proposed already"),
        ({"resume": "s", "name": "t"}, "--resume: the sweep has its recipe and its name"),
        ({"resume": "s", "recipe": TREE}, "--resume: the sweep has its recipe and its name"),
        ({}, "sweep needs a RECIPE, or --resume SWEEP"),
    ):
        with pytest.raises(UserError) as refused:
            sweep(**given, runs=tmp_path, progress=False)  # type: ignore[arg-type]
        assert line in str(refused.value)


def test_a_sweep_that_somebody_else_runs_is_refused(tmp_path: Path, ray: None) -> None:
    sweep(TREE, {"sweep.trials": 1, "trainer.max_epochs": 1}, runs=tmp_path, name="s", progress=False)
    with RunFolder(tmp_path / "s").owned(), pytest.raises(UserError, match="another process is writing this run"):
        sweep(resume="s", overrides=["sweep.trials=2"], runs=tmp_path, progress=False)


# ---- the journal ---------------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_torn_line_is_told_of_and_what_was_before_it_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    events = [Event("propose", 0, config={"optim.lr": 0.1}), Event("start", 0, config={"optim.lr": 0.1})]
    events.append(Event("report", 0, step=7, value=0.5, iteration=1))
    for event in events:
        journal.write(event)
    journal.close()
    assert read_journal(tmp_path / "journal.jsonl") == (events, [])
    text = (tmp_path / "journal.jsonl").read_text()
    for cut in range(1, len(text.splitlines()[-1])):
        (tmp_path / "torn.jsonl").write_text(text[:-cut])
        found, problems = read_journal(tmp_path / "torn.jsonl")
        if found == events:
            assert cut == 1  # the end of the line alone
        else:
            assert found == events[:2]
            assert problems == ["torn.jsonl: line 3 is damaged; going on from the 2 events before it"]


def test_a_sweep_goes_on_from_a_torn_journal(ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = sweep(TREE, {"sweep.trials": 3}, runs=tmp_path, name="s", progress=False)
    journal = tmp_path / "s" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    last = max(place for place, line in enumerate(lines) if '"propose"' in line)
    journal.write_text("".join(lines[: last + 2]) + lines[last + 2][:9])
    again = sweep(resume="s", runs=tmp_path, progress=False)
    assert "is damaged; going on from" in capsys.readouterr().err
    assert [(t.run_id, t.config, t.value) for t in again.trials] == [
        (t.run_id, t.config, t.value) for t in whole.trials
    ]
    assert {trial.status for trial in again.trials} == {"done"}


# ---- files that a disk has lost a part of ---------------------------------------------------------------


def cuts(content: bytes) -> list[int]:
    """Returns where to cut: nothing left, a part, all but the last."""
    return sorted({0, 1, *(len(content) * part // 7 for part in range(1, 7)), len(content) - 2})


@pytest.fixture(scope="module")
def two_trials(ray: None, tmp_path_factory: pytest.TempPathFactory) -> SweepResult:
    runs = tmp_path_factory.mktemp("runs")
    changes = {"sweep.trials": 2, "trainer.max_epochs": 1, "sweep.metric": "val/accuracy", "sweep.mode": "max"}
    return sweep(TREE, changes, runs=runs, name="s", progress=False)


@pytest.mark.parametrize("name", ["plan.json", "status.json", "sweep.yaml", "trials.jsonl", "journal.jsonl"])
def test_a_state_file_that_was_cut_is_made_up_for(
    name: str, two_trials: SweepResult, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(two_trials.sweep_dir)
    file, runs = folder / name, folder.parent
    content = file.read_bytes()
    for cut in cuts(content):
        file.write_bytes(content[:cut])
        capsys.readouterr()
        assert headway(["sweeps", "show", "s", "--runs", str(runs), "--json"]) == 0, cut
        said = capsys.readouterr()
        shown = json.loads(said.out)
        if name in ("plan.json", "status.json"):
            assert f"{name} is damaged; its copy" in said.err
        assert (shown["metric"], shown["mode"], shown["status"]) == ("val/accuracy", "max", "done"), cut
        # What a row says besides its run is gone with it.
        assert [trial["value"] for trial in shown["trials"]] == [trial.value for trial in two_trials.trials], cut
        again = sweep(resume="s", runs=runs, progress=False)
        assert again.trials == two_trials.trials, cut
        assert again.best == two_trials.best
        whole = json.loads((folder / "plan.json").read_text())
        assert whole["tree"]["sweep"]["trials"] == 2
    assert not list(runs.glob("*aside*"))


def test_both_copies_lost_take_one_line(
    two_trials: SweepResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(two_trials.sweep_dir, tmp_path / "s")
    for file in ("plan.json", "plan.copy.json"):
        (tmp_path / "s" / file).write_bytes((tmp_path / "s" / file).read_bytes()[:-9])
    capsys.readouterr()
    assert headway(["sweep", "--resume", "s", "--runs", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("plan.json is damaged; start a new sweep with the recipe")
    (tmp_path / "s" / "sweep.yaml").write_text("")
    assert headway(["sweeps", "show", "s", "--runs", str(tmp_path)]) == 2
    assert "its sweep section cannot be read" in capsys.readouterr().err.splitlines()[-1]


def test_a_run_folder_of_a_trial_that_tried_something_else_is_put_aside(ray: None, tmp_path: Path) -> None:
    changes = {"sweep.trials": 2, "trainer.max_epochs": 1}
    first = sweep(TREE, changes, runs=tmp_path, name="s", progress=False)
    # As if a searcher that learns had proposed it before the journal lost that.
    other = tmp_path / "s-0001" / "recipe.yaml"
    recipe = yaml.safe_load(other.read_text())
    recipe["optim"]["lr"] = 0.123
    other.write_text(yaml.safe_dump(recipe))
    (tmp_path / "s" / "journal.jsonl").write_text("")
    again = sweep(resume="s", runs=tmp_path, progress=False)
    assert again.trials == first.trials
    (aside,) = tmp_path.glob("s-0001-aside-*")
    assert yaml.safe_load((aside / "recipe.yaml").read_text())["optim"]["lr"] == 0.123
    assert "resumed" not in RunFolder(tmp_path / "s-0001").read_json("manifest.json")


# ---- kills ---------------------------------------------------------------------------------------------


def start(folder: Path, *changes: str) -> subprocess.Popen[bytes]:
    (folder / "r.yaml").write_text(yaml.safe_dump(TREE))
    command = [sys.executable, "-m", "headway", "sweep", "r.yaml", "--name", "s", *changes]
    return subprocess.Popen(command, cwd=folder, start_new_session=True, stderr=subprocess.DEVNULL)


def wait_for(process: subprocess.Popen[bytes], folder: Path, num_reports: int) -> None:
    journal, deadline = folder / "runs" / "s" / "journal.jsonl", time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_text().count('"report"') >= num_reports:
            return
        time.sleep(0.05)
    raise AssertionError(f"the sweep ended with {process.poll()} before {num_reports} reports")


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not holds():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def kill(process: subprocess.Popen[bytes], *, whole_tree: bool) -> None:
    victims = [psutil.Process(process.pid)]
    if whole_tree:
        victims += victims[0].children(recursive=True)
    for victim in victims:
        victim.kill()
    process.wait(timeout=30)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    ("fuse", "target"),
    [
        ("on", "driver"),
        pytest.param("off", "driver", marks=pytest.mark.slow),
        pytest.param("off", "tree", marks=pytest.mark.slow),
    ],
)
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path, fuse: str, target: str) -> None:
    changes = [f"sweep.fuse={fuse}", "sweep.max_concurrent=2", "sweep.trials=4", "sweep.scheduler=asha"]
    process = start(tmp_path, *changes, "trainer.max_epochs=40")
    try:
        wait_for(process, tmp_path, 30)
        kill(process, whole_tree=target == "tree")
    finally:
        end(process)
    runs = tmp_path / "runs"
    before, problems = read_journal(runs / "s" / "journal.jsonl")
    ended = {event.number for event in before if event.kind == "end"}
    reached = {event.number: event.step for event in before if event.kind == "report"}
    stamps = {number: (runs / f"s-{number:04d}" / "metrics.jsonl").stat().st_mtime_ns for number in ended}
    command = [sys.executable, "-m", "headway", "sweep", "--resume", "s", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not problems or "is damaged" in done.stderr
    trials = json.loads(done.stdout.splitlines()[-1])["trials"]
    assert [trial["run_id"] for trial in trials] == ["s-0000", "s-0001", "s-0002", "s-0003"]
    assert {trial["status"] for trial in trials} <= {"done", "stopped"}
    for number, stamp in stamps.items():
        assert (runs / f"s-{number:04d}" / "metrics.jsonl").stat().st_mtime_ns == stamp
    gone_on = set(reached) - ended
    assert gone_on
    for number in gone_on:
        run = RunFolder(runs / f"s-{number:04d}")
        resumed = run.read_json("manifest.json").get("resumed")
        if fuse == "off":
            # A validation is saved before it is reported: what was reported is not trained again.
            assert resumed[0]["at_step"] >= reached[number]
        steps = [row["step"] for row in read_metrics(run.metrics) if "val/loss" in row]
        assert steps == sorted(set(steps))


@pytest.mark.slow
@pytest.mark.parametrize(("fuse", "target"), [("on", "driver"), ("off", "driver"), ("off", "tree")])
def test_between_rare_validations_a_kill_loses_what_is_newer_than_the_last_checkpoint(
    tmp_path: Path, fuse: str, target: str
) -> None:
    changes = [f"sweep.fuse={fuse}", "sweep.max_concurrent=2", "sweep.trials=2"]
    process = start(tmp_path, *changes, "trainer.max_epochs=100000000", "trainer.validate_every=500000000")
    runs = [RunFolder(tmp_path / "runs" / f"s-{number:04d}") for number in range(2)]
    try:
        wait_until(lambda: all(run.status().get("checkpoint", 0) > 0 for run in runs), process)
        kill(process, whole_tree=target == "tree")
    finally:
        end(process)
    time.sleep(1.0)  # processes of trials end with their driver
    saved = [store.steps(run.checkpoints)[-1] for run in runs]
    again = subprocess.Popen([*HEADWAY, "sweep", "--resume", "s"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: all(run.read_json("manifest.json").get("resumed") for run in runs), again)
        again.send_signal(signal.SIGTERM)
        assert again.wait(timeout=60) == 143
    finally:
        end(again)
    for run, step in zip(runs, saved, strict=True):
        assert [part["at_step"] for part in run.read_json("manifest.json")["resumed"]] == [step]
        assert store.steps(run.checkpoints)[-1] >= step


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_by_itself(tmp_path: Path) -> None:
    process = start(tmp_path, "sweep.fuse=off", "sweep.max_concurrent=1", "sweep.trials=1", "trainer.max_epochs=60")
    try:
        wait_for(process, tmp_path, 12)
        children = psutil.Process(process.pid).children(recursive=True)
        (worker,) = [child for child in children if "Trainable.train" in " ".join(child.cmdline())]
        worker.kill()
        process.wait(timeout=120)
    finally:
        end(process)
    assert process.returncode == 0
    run = RunFolder(tmp_path / "runs" / "s-0000")
    assert run.status()["state"] == "done"
    assert len(run.read_json("manifest.json")["resumed"]) == 1


def test_sigterm_to_the_whole_group_stops_it_soon_with_true_statuses(tmp_path: Path) -> None:
    process = start(tmp_path, "sweep.fuse=off", "sweep.max_concurrent=1", "trainer.max_epochs=100000")
    try:
        wait_for(process, tmp_path, 3)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=45)
    finally:
        end(process)
    assert process.returncode == 143
    status = RunFolder(tmp_path / "runs" / "s").status()
    assert status["state"] == "stopped"
    assert "headway sweep --resume s goes on" in status["reason"]
    assert RunFolder(tmp_path / "runs" / "s-0000").status()["state"] == "stopped"


@pytest.mark.slow
def test_an_array_whose_process_is_killed_is_started_anew_and_its_trials_go_on(tmp_path: Path) -> None:
    changes = ["sweep.fuse=on", "sweep.arrays=2", "sweep.max_concurrent=4", "sweep.trials=4", "trainer.max_epochs=60"]
    process = start(tmp_path, *changes)
    try:
        wait_for(process, tmp_path, 40)
        children = psutil.Process(process.pid).children(recursive=True)
        victim, _ = [child for child in children if "_ArrayActor" in " ".join(child.cmdline())]
        victim.kill()
        process.wait(timeout=200)
    finally:
        end(process)
    assert process.returncode == 0
    runs = [RunFolder(tmp_path / "runs" / f"s-{number:04d}") for number in range(4)]
    assert {run.status()["state"] for run in runs} == {"done"}
    # Within the seconds that a row may lose, its trials may start over; none of them was left to the dead process.
    assert victim.pid not in {run.status()["pid"] for run in runs}
    assert len({run.status()["pid"] for run in runs}) == 2
