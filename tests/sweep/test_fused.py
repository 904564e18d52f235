"""Sweeps whose trials are rows of an array, under the real Ray Tune."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headway.config.errors import UserError
from headway.fused.probe import Pace
from headway.run import RunFolder
from headway.sweep import SweepResult, fusing, sweep
from headway.sweep._rows import RowManager, check_contract
from headway.sweep._tune import quiet_environment, ray_session
from headway.sweep.check import check_sweep
from headway.wandb_file import read_offline_run

TREE = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "sgd", "lr": 0.1},
    "trainer": {"max_epochs": 3, "batch_size": 64, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {
        "trials": 6,
        "space": {
            "init.kind": {"choice": ["uniform_fan_in", "xavier", "kaiming", "orthogonal"]},
            "model.dropout": {"uniform": [0, 0.5]},
            "optim.lr": {"loguniform": [1e-2, 1e-1]},
        },
    },
}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(2):
        yield


def trained_here(result: SweepResult) -> bool:
    """Returns whether every trial was trained in this process."""
    return all(RunFolder(Path(trial.run_dir)).status()["pid"] == os.getpid() for trial in result.trials)


def by_number(result: SweepResult) -> list[tuple[object, ...]]:
    return [(trial.run_id[-4:], trial.status, trial.config, trial.step) for trial in result.trials]


def test_rows_find_what_processes_find(ray: None, tmp_path: Path) -> None:
    fused, apart = (
        sweep(TREE, {"sweep.fuse": fuse}, runs=tmp_path / fuse, name="six", progress=False) for fuse in ("on", "off")
    )
    assert trained_here(fused)
    assert not trained_here(apart)
    assert by_number(fused) == by_number(apart)
    assert [trial.value for trial in fused.trials] == pytest.approx([trial.value for trial in apart.trials], rel=1e-9)
    assert fused.best is not None
    assert fused.best.status == "done"
    assert RunFolder(Path(fused.best.run_dir)).status()["final"]["test/loss"] > 0


def test_asha_stops_rows_and_seats_others(ray: None, tmp_path: Path) -> None:
    changes = {"sweep.fuse": 3, "sweep.trials": 9, "sweep.scheduler": "asha", "trainer.validate_every": 10}
    result = sweep(TREE, changes, runs=tmp_path, name="nine", progress=False)
    assert trained_here(result)
    states = [trial.status for trial in result.trials]
    assert len(states) == 9
    assert states.count("stopped") >= 3
    assert states.count("done") >= 1
    for trial in result.trials:
        status = RunFolder(Path(trial.run_dir)).status()
        assert status["state"] == trial.status
        if trial.status == "stopped":
            assert status["reason"] == f"stopped by asha at step {status['step']}"
            assert status["step"] < 60


def test_a_row_that_fails_is_a_trial_that_failed(ray: None, tmp_path: Path) -> None:
    changes = {
        "sweep.fuse": "on",
        "sweep.searcher": "grid",
        "sweep.space": {"optim.lr": {"choice": [0.1, 1e38]}, "init.kind": {"choice": ["kaiming", "constant"]}},
        "model.dropout": 0.0,
        "trainer.precision": "fp32",
    }
    result = sweep(TREE, changes, runs=tmp_path, name="grid", progress=False)
    assert trained_here(result)
    assert len(result.trials) == 4
    failed = [trial for trial in result.trials if trial.status == "failed"]
    assert {trial.config["optim.lr"] for trial in failed} == {1e38}
    assert all("train/loss is" in str(trial.reason) for trial in failed)
    assert result.best is not None
    assert result.best.config["init.kind"] == "kaiming"


def test_rows_are_offline_runs_of_one_wandb_group_that_say_how_they_ended(ray: None, tmp_path: Path) -> None:
    changes = {
        "sweep.fuse": "on", "sweep.searcher": "grid", "sweep.scheduler": "asha", "sweep.max_concurrent": 1,
        "sweep.space": {"optim.lr": {"choice": [0.1, 1e-7, 1e38]}}, "track.wandb": "offline",
        "trainer.precision": "fp32",
    }  # fmt: skip
    result = sweep(TREE, changes, runs=tmp_path, name="w", progress=False)
    assert trained_here(result)
    assert [trial.status for trial in result.trials] == ["done", "stopped", "failed"]
    for trial in result.trials:
        (folder,) = Path(trial.run_dir).glob("wandb/offline-run-*")
        deadline = time.monotonic() + 30
        while not (run := read_offline_run(folder)).complete and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (run.id, run.group, run.job_type) == (trial.run_id, "w", "trial")
        assert run.config["optim.lr"] == trial.config["optim.lr"]
        assert run.config["sweep.trials"] == 6
        assert run.summary["ended"] == trial.status
        assert run.exit_code == (1 if trial.status == "failed" else 0)
        validations = [row["step"] for row in run.rows if "val/loss" in row]
        assert len(validations) == {"done": 3, "stopped": 1, "failed": 0}[trial.status]


# ---- the choice --------------------------------------------------------------------------------------


@pytest.mark.quick
def test_ray_still_has_what_rows_lean_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_contract() is None
    monkeypatch.delattr("ray.tune.execution.tune_controller.RayActorManager.remove_actor")
    assert check_contract() == "RayActorManager has no remove_actor"
    assert fusing.choose(check_sweep(TREE), processes=2) == fusing.Choice(
        None, "a process each: RayActorManager has no remove_actor"
    )


@pytest.mark.quick
def test_rows_answer_to_every_name_that_the_controller_uses() -> None:
    import inspect
    import re

    from ray.tune.execution import tune_controller

    used = set(re.findall(r"_actor_manager\.(\w+)", inspect.getsource(tune_controller)))
    assert used
    for name in used - {"_live_actors_to_ray_actors_resources", "_actor_task_events"}:
        assert hasattr(RowManager, name), name


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sweep.space": {"model.hidden": {"choice": [[3], [5]]}}}, "the space changes shapes, the loss or the kind"),
        ({"sweep.space": {"data.validation": {"choice": [0.1, 0.2]}}}, "the space changes the data"),
        ({"trainer.compile": True}, "trainer.compile compiles one net"),
    ],
)
def test_what_cannot_be_a_row_has_a_process_and_the_reason_is_said(changes: dict[str, object], reason: str) -> None:
    choice = fusing.choose(check_sweep(TREE, changes), processes=2)
    assert choice.seats is None
    assert choice.reason.startswith(f"a process each: {reason}")
    with pytest.raises(UserError, match=f"^sweep.fuse: on, but {reason}.*; set sweep.fuse=off"):
        fusing.choose(check_sweep(TREE, {**changes, "sweep.fuse": True}), processes=2)


@pytest.mark.quick
@pytest.mark.parametrize(("together", "seats"), [({2: 0.01, 6: 0.012}, 6), ({2: 0.01, 6: 9.0}, 2), ({6: 9.0}, None)])
def test_auto_takes_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, together: dict[int, float], seats: int | None
) -> None:
    monkeypatch.setattr("headway.fused.probe.measure_pace", lambda *_, **__: Pace(0.01, together))
    assert fusing.choose(check_sweep(TREE), processes=2).seats == seats


@pytest.mark.quick
def test_auto_measures(capsys: pytest.CaptureFixture[str]) -> None:
    choice = fusing.choose(check_sweep(TREE), processes=2)
    assert " ms together, of one " in choice.reason


def test_arrays_in_processes_of_their_own_find_the_same(ray: None, tmp_path: Path) -> None:
    here, apart = (
        sweep(TREE, {"sweep.fuse": "on", **more}, runs=tmp_path / name, name="six", progress=False)
        for name, more in (("here", {}), ("apart", {"sweep.arrays": 2}))
    )
    assert by_number(here) == by_number(apart)
    assert [trial.value for trial in here.trials] == pytest.approx([trial.value for trial in apart.trials], rel=1e-9)
    processes = {RunFolder(Path(trial.run_dir)).status()["pid"] for trial in apart.trials}
    assert len(processes) == 2
    assert os.getpid() not in processes
