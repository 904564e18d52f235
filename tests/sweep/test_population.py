"""Populations: who waits for whom, what is lent and given back, and how they go on after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from headway.checkpoint import store
from headway.config.space import SweepSection
from headway.run import RunFolder, read_metrics
from headway.sweep import SweepResult, sweep
from headway.sweep._callbacks import Returns
from headway.sweep._trial_run import TrialJob, TrialRun
from headway.sweep._tune import quiet_environment, ray_session
from headway.sweep.ledger import Ledger

EXCHANGE = 10  # steps of an epoch: 1,257 digits in batches of 128
TREE: dict[str, Any] = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "adamw", "lr": 0.1},
    "trainer": {"max_epochs": 4, "batch_size": 128, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {
        "trials": 4,
        "fuse": "on",
        "max_concurrent": 4,
        "scheduler": {
            "kind": "pbt", "quantile": 0.5, "resample": 0.0, "synchronous": True, "interval_steps": EXCHANGE,
        },
        "space": {
            "optim.lr": {"loguniform": [1e-4, 1e-1]},
            "optim.weight_decay": {"uniform": [0.0, 0.1]},
            "model.dropout": {"uniform": [0.0, 0.5]},
        },
    },
}  # fmt: skip
STARTS_WITHIN_S = 120


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(4):
        yield


def search(runs: Path, changes: dict[str, Any] | None = None) -> SweepResult:
    return sweep(TREE, changes or {}, runs=runs, name="p", progress=False)


def lineage(folder: str | Path) -> list[dict[str, Any]]:
    return read_metrics(Path(folder) / "lineage.jsonl")


def events(sweep_folder: Path, kind: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (sweep_folder / "journal.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


# ---- who waits -----------------------------------------------------------------------------------------


def test_lr_dropout_and_weight_decay_change_on_the_way(ray: None, tmp_path: Path) -> None:
    found = search(tmp_path)
    starts = events(tmp_path / "p", "start")
    first = {row["number"]: row["config"] for row in reversed(starts)}
    changed = [row for trial in found.trials for row in lineage(trial.run_dir)]
    assert changed
    drawn = {path: {config[path] for config in first.values()} for path in TREE["sweep"]["space"]}
    for path, values in drawn.items():
        assert any(row["config"][path] not in values for row in changed), path


def test_validations_may_be_further_apart_than_exchanges(ray: None, tmp_path: Path) -> None:
    # The next exchange is where nobody has been: that of Ray's own would be where all are, and all would wait.
    found = search(tmp_path, {"trainer.validate_every": 2 * EXCHANGE})
    assert {trial.status for trial in found.trials} == {"done"}
    assert {row["step"] for trial in found.trials for row in lineage(trial.run_dir)} == {2 * EXCHANGE}


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_nobody_waits_for_one_that_has_failed(ray: None, tmp_path: Path, at_a_time: int) -> None:
    rates = {"optim.lr": {"choice": [0.01, 0.001, 1e305]}}
    found = search(
        tmp_path, {"sweep.searcher": "grid", "sweep.space": rates, "sweep.max_concurrent": at_a_time}
    )  # fmt: skip
    assert [trial.status for trial in found.trials] == ["done", "done", "failed"]
    assert [row for trial in found.trials for row in lineage(trial.run_dir)]


@pytest.mark.slow
def test_a_population_in_processes_takes_turns_and_none_is_left_out(ray: None, tmp_path: Path) -> None:
    found = search(tmp_path, {"sweep.fuse": "off", "sweep.max_concurrent": 2, "trainer.max_epochs": 3})
    assert {trial.status for trial in found.trials} == {"done"}
    reports = [(row["number"], row["step"]) for row in events(tmp_path / "p", "report")]
    # Each is at an exchange before any trains on.
    assert {number for number, _ in reports[:4]} == {0, 1, 2, 3}
    assert [step for _, step in reports] == sorted(step for _, step in reports)
    assert not (tmp_path / "p" / "ray").exists()


def test_those_that_wait_for_their_turn_do_not_count_as_running(
    ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, seen = Ledger.pause, []

    def pause_and_count(ledger: Ledger, numbers: Collection[int]) -> bool:
        changed = pause(ledger, numbers)
        seen.append(ledger.counts)
        return changed

    monkeypatch.setattr(Ledger, "pause", pause_and_count)
    search(tmp_path, {"sweep.max_concurrent": 1})
    assert max(counts.running for counts in seen) == 1
    # All four, where one has paused and the next has not been chosen yet.
    assert max(counts.paused for counts in seen) in (3, 4)
    assert all(vars(counts)["total"] == sum(vars(counts).values()) - 4 == 4 for counts in seen)


# ---- what is lent ----------------------------------------------------------------------------------------


def test_what_is_lent_is_given_back(ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lend, there = TrialRun.lend, []

    def lend_and_count(trial: TrialRun, folder: Path) -> None:
        lend(trial, folder)
        there.append(len(list(folder.parent.iterdir())))

    monkeypatch.setattr(TrialRun, "lend", lend_and_count)
    search(tmp_path, {"trainer.max_epochs": 16})
    assert len(there) > 50
    # A few of each trial, and what the trials go on from.
    assert max(there) <= 4 * 3 + 4


def test_a_copy_that_somebody_goes_on_from_stays(tmp_path: Path) -> None:
    folders = [tmp_path / ("lent" if place % 2 else "lender") / str(place) for place in range(9)]
    lender, taker = SimpleNamespace(checkpoint=None), SimpleNamespace(checkpoint=None)
    for place, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / "lender.json").write_text(json.dumps({"from": "p-0000", "copy": str(place)}))
        os.utime(folder / "lender.json", ns=(place, place))
        taker.checkpoint = SimpleNamespace(path=str(folders[1]))
        Returns(tmp_path).on_trial_result(1, [lender, taker], lender, {})
    assert [int(folder.name) for folder in folders if folder.exists()] == [1, 6, 7, 8]


@pytest.fixture
def two(ray: None, tmp_path: Path) -> tuple[TrialRun, TrialRun]:
    """Returns two trials that have trained."""
    changes = {"sweep.trials": 2, "trainer.max_epochs": 2, "sweep.scheduler": "fifo"}
    sweep(TREE, changes, runs=tmp_path, name="p", progress=False)
    job = TrialJob(TREE, {}, SweepSection.model_validate(TREE["sweep"]), str(tmp_path), "p", (), str(tmp_path))
    samples = [{"optim.lr": 0.01}, {"optim.lr": 0.02}]
    lender, taker = (TrialRun(job, number, sample) for number, sample in enumerate(samples))
    return lender, taker


def test_a_copy_is_taken_once(two: tuple[TrialRun, TrialRun], tmp_path: Path) -> None:
    lender, taker = two
    (tmp_path / "lent").mkdir()
    lender.lend(tmp_path / "lent")
    taker.adopt(tmp_path / "lent")
    taken, _ = store.load_newest(taker.run.checkpoints)
    assert taken is not None
    # It trains on, and its process dies: Ray hands the same copy out again, which would undo what came after it.
    position = {**taken.position, "step": taken.step + 7}
    later = replace(taken, position=position, weights={name: weight + 1 for name, weight in taken.weights.items()})
    store.save(taker.run.checkpoints, later)
    taker.adopt(tmp_path / "lent")
    newest, _ = store.load_newest(taker.run.checkpoints)
    assert newest is not None
    assert newest.step == taken.step + 7
    assert len(lineage(taker.run.path)) == 1
    shutil.rmtree(tmp_path / "lent")
    (tmp_path / "lent").mkdir()
    lender.lend(tmp_path / "lent")
    taker.adopt(tmp_path / "lent")
    again, _ = store.load_newest(taker.run.checkpoints)
    assert again is not None
    assert all(torch.equal(weight, again.weights[name]) for name, weight in taken.weights.items())


def test_without_a_population_no_weights_are_copied(two: tuple[TrialRun, TrialRun], tmp_path: Path) -> None:
    lender, _ = two
    section = SweepSection.model_validate({**TREE["sweep"], "scheduler": "hyperband"})
    pausing = TrialRun(replace(lender.job, search=section), 0, {})
    (tmp_path / "lent").mkdir()
    pausing.lend(tmp_path / "lent")
    assert [path.name for path in (tmp_path / "lent").iterdir()] == ["lender.json"]
    before = store.steps(pausing.run.checkpoints)
    pausing.adopt(tmp_path / "lent")
    assert store.steps(pausing.run.checkpoints) == before


# ---- several processes a trial ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", {"kind": "deepspeed", "stage": 2}])
def test_trials_of_two_ranks_take_weights_and_keep_settings_apart(ray: None, tmp_path: Path, strategy: Any) -> None:
    changes = {
        "strategy": strategy, "trainer.devices": 2, "trainer.precision": "fp32", "trainer.max_epochs": 2,
        "sweep.fuse": "off", "sweep.trials": 2, "sweep.max_concurrent": 1,
    }  # fmt: skip
    found = search(tmp_path, changes)
    assert {trial.status for trial in found.trials} == {"done"}
    (taker,) = [trial for trial in found.trials if lineage(trial.run_dir)]
    (lender,) = [trial for trial in found.trials if not lineage(trial.run_dir)]
    row = lineage(taker.run_dir)[0]
    assert (row["from"], row["step"]) == (lender.run_id, EXCHANGE)
    assert row["config"]["optim.lr"] != lender.config["optim.lr"]
    recipe = RunFolder(Path(taker.run_dir)).recipe.read_text()
    assert f"lr: {row['config']['optim.lr']}" in recipe
    assert RunFolder(Path(taker.run_dir)).read_json("manifest.json")["world_size"] == 2


# ---- kills -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("where", ["rows", "processes", "ranks"])
def test_a_killed_population_goes_on(tmp_path: Path, where: str) -> None:
    changes = {
        "rows": ["trainer.max_epochs=120"],
        "processes": ["sweep.fuse=off", "sweep.trials=2", "sweep.max_concurrent=1", "trainer.max_epochs=5"],
        "ranks": [
            "sweep.fuse=off", "sweep.trials=2", "sweep.max_concurrent=1", "trainer.max_epochs=5", "strategy=ddp",
            "trainer.devices=2",
        ],
    }[where]  # fmt: skip
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TREE))
    command = [sys.executable, "-m", "headway", "sweep", "r.yaml", "--name", "p", *changes]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
    runs, deadline = tmp_path / "runs", time.monotonic() + STARTS_WITHIN_S
    try:
        while process.poll() is None and time.monotonic() < deadline:
            if list(runs.glob("p-*/lineage.jsonl")) and len(events(runs / "p", "report")) >= 5:
                break
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    taken = {path.parent.name: len(read_metrics(path)) for path in runs.glob("p-*/lineage.jsonl")}
    command = [sys.executable, "-m", "headway", "sweep", "--resume", "p", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    trials = json.loads(done.stdout.splitlines()[-1])["trials"]
    assert {trial["status"] for trial in trials} == {"done"}
    after = {trial["run_id"]: len(lineage(trial["run_dir"])) for trial in trials}
    assert all(after[name] >= count for name, count in taken.items())
    assert sum(after.values()) > sum(taken.values())
    for trial in trials:
        recipe = RunFolder(Path(trial["run_dir"])).recipe.read_text()
        assert f"lr: {trial['config']['optim.lr']}" in recipe
        steps = [row["step"] for row in read_metrics(Path(trial["run_dir"]) / "metrics.jsonl") if "val/loss" in row]
        assert steps == sorted(set(steps))
    assert not (runs / "p" / "ray").exists()
