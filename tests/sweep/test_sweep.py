"""Sweeps with the real Ray, started once for this file; each search is looked at by several tests.

Every trial has a process of its own here; test_fused.py has those that are rows of an array.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
import yaml

from headway.config.errors import TrainingFailed, UserError
from headway.config.space import Distribution, SweepSection
from headway.run import RunFolder, list_runs, read_metrics
from headway.sweep import SweepResult, sweep
from headway.sweep._tune import quiet_environment, ray_session

RECIPE = """
model: {kind: mlp, hidden: [7], activation: tanh, dropout: 0.1}
data: {kind: digits}
init: kaiming
optim: {kind: sgd, lr: 0.1}
trainer: {max_epochs: 2, batch_size: 64}
track: {wandb: disabled}
sweep:
  trials: 3
  fuse: off
  space:
    init.kind: {choice: [uniform_fan_in, xavier, kaiming, orthogonal]}
    model.dropout: {uniform: [0, 0.5]}
    optim.lr: {loguniform: [1.0e-2, 1.0e-1]}
"""
RATES = [0.1, 1e-7, 1e38]
SCHEMES = ["kaiming", "xavier"]


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(2):
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweeps")
    (path / "tiny.yaml").write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def random_search(folder: Path) -> SweepResult:
    """Three trials, one at a time, with W&B's files."""
    changes = ["track.wandb=offline", "sweep.max_concurrent=1"]
    return sweep(folder / "tiny.yaml", changes, runs=folder / "runs", name="random", progress=False)


@pytest.fixture(scope="module")
def grid_search(folder: Path) -> SweepResult:
    """A grid with a good rate, one that learns nothing and one that explodes, one trial at a time."""
    changes = {
        "sweep.searcher": "grid",
        "sweep.scheduler": "asha",
        "sweep.max_concurrent": 1,
        "sweep.space": {"init.kind": {"choice": SCHEMES}, "optim.lr": {"choice": RATES}},
        "trainer.max_epochs": 4,
    }
    return sweep(folder / "tiny.yaml", changes, runs=folder / "runs", name="grid", progress=False)


def test_every_trial_is_an_ordinary_run(random_search: SweepResult, folder: Path) -> None:
    assert [trial.run_id for trial in random_search.trials] == ["random-0000", "random-0001", "random-0002"]
    listed = {run.id for run in list_runs(folder / "runs")}
    for trial in random_search.trials:
        run = RunFolder(Path(trial.run_dir))
        assert run.id in listed
        assert run.status()["state"] == trial.status == "done"
        assert "test/accuracy" in run.status()["final"]
        recipe = yaml.safe_load(run.recipe.read_text())
        assert recipe["optim"]["lr"] == trial.config["optim.lr"]
        assert recipe["init"]["kind"] == trial.config["init.kind"]
        values = [row["val/loss"] for row in read_metrics(run.metrics) if "val/loss" in row]
        assert trial.value == min(values)


def test_trials_are_offline_runs_of_one_wandb_group(random_search: SweepResult) -> None:
    for trial in random_search.trials:
        assert len(list(Path(trial.run_dir).glob("wandb/offline-run-*"))) == 1
        assert yaml.safe_load((Path(trial.run_dir) / "recipe.yaml").read_text())["track"]["group"] == "random"


def test_the_same_seed_proposes_and_trains_the_same_trials(random_search: SweepResult, folder: Path) -> None:
    # Two at a time instead of one.
    again = sweep(folder / "tiny.yaml", runs=folder / "runs", name="again", progress=False)
    before = [(trial.config, trial.value, trial.step) for trial in random_search.trials]
    assert [(trial.config, trial.value, trial.step) for trial in again.trials] == before


def test_the_command_trains_the_best_trial_again(random_search: SweepResult, folder: Path) -> None:
    from headway.fit import fit

    assert random_search.best is not None
    assert random_search.command is not None
    program, verb, recipe, *overrides = shlex.split(random_search.command)
    assert (program, verb, recipe) == ("headway", "fit", str(folder / "tiny.yaml"))
    overrides.append("track.wandb=disabled")
    refit = fit(recipe, overrides, runs=folder / "refits", name="best", progress=False)
    assert refit.metrics == RunFolder(Path(random_search.best.run_dir)).status()["final"]


def test_the_sweep_folder_says_what_it_came_to(random_search: SweepResult) -> None:
    sweep_folder = RunFolder(Path(random_search.sweep_dir))
    status = sweep_folder.status()
    assert (status["kind"], status["state"], status["metric"], status["mode"]) == ("sweep", "done", "val/loss", "min")
    assert status["trials"] == {
        "total": 3,
        "pending": 0,
        "running": 0,
        "done": 3,
        "stopped": 0,
        "failed": 0,
        "paused": 0,
    }
    assert random_search.best is not None
    assert status["best"]["run_id"] == random_search.best.run_id
    rows = read_metrics(sweep_folder.path / "trials.jsonl")
    assert sorted(row["trial"] for row in rows) == [0, 1, 2]
    assert (sweep_folder.path / "sweep.yaml").is_file()
    assert (sweep_folder.path / "journal.jsonl").is_file()
    assert not (sweep_folder.path / "ray").exists()
    assert json.loads(json.dumps(random_search.as_dict()))["status"] == "done"


def test_the_sweep_folder_has_a_picture_of_each_path(random_search: SweepResult) -> None:
    pictures = sorted(file.name for file in Path(random_search.sweep_dir).glob("plots/*"))
    assert pictures == ["init.kind.png", "model.dropout.png", "optim.lr.png"]


def test_what_was_found_can_be_opened_again(random_search: SweepResult) -> None:
    from headway.sweep.folder import find_sweep

    assert find_sweep(Path("elsewhere"), random_search.sweep_dir).result().trials == random_search.trials


def test_the_table_has_the_best_first_and_its_command(
    random_search: SweepResult, capsys: pytest.CaptureFixture[str]
) -> None:
    random_search.print_table()
    lines = capsys.readouterr().out.splitlines()
    assert random_search.best is not None
    assert lines[1].startswith(random_search.best.run_id)
    assert lines[-1] == random_search.command


def test_a_name_that_is_taken_is_refused(random_search: SweepResult, folder: Path) -> None:
    with pytest.raises(UserError, match="exist already; choose another"):
        sweep(folder / "tiny.yaml", runs=folder / "runs", name="random")


def test_a_grid_covers_the_product(grid_search: SweepResult) -> None:
    sampled = [(trial.config["init.kind"], trial.config["optim.lr"]) for trial in grid_search.trials]
    assert sorted(sampled) == sorted(product(SCHEMES, RATES))


def test_asha_stops_the_rate_that_learns_nothing(grid_search: SweepResult) -> None:
    stopped = [trial for trial in grid_search.trials if trial.config["optim.lr"] == 1e-7]
    assert [trial.status for trial in stopped] == ["stopped", "stopped"]
    for trial in stopped:
        run = RunFolder(Path(trial.run_dir))
        assert run.status()["state"] == "stopped"
        assert run.status()["reason"] == trial.reason == f"stopped by asha at step {trial.step}"
        assert run.status()["step"] == trial.step
        assert run.read_json("manifest.json")["ended"] > 0
    assert grid_search.best is not None
    assert grid_search.best.status == "done"
    assert grid_search.best.config["optim.lr"] == 0.1


def test_a_trial_that_explodes_fails_alone_and_says_why(grid_search: SweepResult) -> None:
    exploded = [trial for trial in grid_search.trials if trial.config["optim.lr"] == 1e38]
    assert [trial.status for trial in exploded] == ["failed", "failed"]
    for trial in exploded:
        assert trial.reason is not None
        assert "lower optim.lr" in trial.reason
        assert RunFolder(Path(trial.run_dir)).status()["state"] == "failed"
        assert trial.value is None or not math.isnan(trial.value)


def test_a_sweep_whose_trials_all_fail_fails_with_the_first_reason(folder: Path) -> None:
    changes = {"sweep.trials": 1, "sweep.space": {"optim.lr": {"choice": [1e38]}}}
    with pytest.raises(TrainingFailed, match="all 1 trials failed; the first, hopeless-0000: train/loss is "):
        sweep(folder / "tiny.yaml", changes, runs=folder / "runs", name="hopeless", progress=False)
    assert RunFolder(folder / "runs" / "hopeless").status()["state"] == "failed"


def test_a_sample_that_the_recipe_refuses_is_a_failed_run(tmp_path: Path) -> None:
    from headway.sweep._trial import RunningTrial
    from headway.sweep._trial_run import TrialJob, TrialRun

    search = SweepSection(trials=4, space={"optim.nesterov": Distribution(choice=[True])})
    job = TrialJob(
        tree=yaml.safe_load(RECIPE), fixed={}, search=search, runs=str(tmp_path), sweep_id="s", trust=(),
        folder=str(tmp_path),
    )  # fmt: skip
    trial = RunningTrial(TrialRun(job, 3, {"optim.nesterov": True}))
    assert "val/loss" not in trial.advance()
    trial.stop()
    status = RunFolder(tmp_path / "s-0003").status()
    assert status["state"] == "failed"
    assert status["reason"] == "optim: nesterov is true but momentum is 0; set optim.momentum"
