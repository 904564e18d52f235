"""Trials of several processes: real Ray, real ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headway.config.errors import UserError
from headway.fit import fit
from headway.run import RunFolder, read_metrics
from headway.sweep import sweep
from headway.sweep._tune import quiet_environment, ray_session

TREE: dict[str, Any] = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "adamw", "lr": 0.01},
    "trainer": {"max_epochs": 2, "batch_size": 128, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {"trials": 2, "fuse": "off", "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}}},
}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(4):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", {"kind": "deepspeed", "stage": 2}])
def test_a_trial_on_two_ranks_is_the_fit_on_two_ranks(ray: None, tmp_path: Path, strategy: Any) -> None:
    # DeepSpeed has no fp64.
    precision = "fp64" if strategy == "ddp" else "fp32"
    changes = {"strategy": strategy, "trainer.devices": 2, "trainer.precision": precision}
    found = sweep(TREE, changes, runs=tmp_path, name="s", progress=False)
    assert {trial.status for trial in found.trials} == {"done"}
    run = RunFolder(Path(found.trials[0].run_dir))
    assert run.read_json("manifest.json")["world_size"] == 2
    alone = fit(
        TREE, {**changes, **found.trials[0].config, "trainer.threads": 1}, runs=tmp_path, name="alone", progress=False
    )
    ours, theirs = (
        [row["val/loss"] for row in read_metrics(folder / "metrics.jsonl") if "val/loss" in row]
        for folder in (run.path, Path(alone.run_dir))
    )
    assert ours == pytest.approx(theirs, rel=1e-9 if strategy == "ddp" else 1e-6)


@pytest.mark.slow
def test_a_scheduler_stops_all_ranks_of_a_trial(ray: None, tmp_path: Path) -> None:
    changes = {"strategy": "ddp", "trainer.devices": 2, "trainer.max_epochs": 4, "sweep.max_concurrent": 2}
    grid = {"sweep.searcher": "grid", "sweep.space": {"optim.lr": {"choice": [0.03, 1e-7]}}, "sweep.max_concurrent": 1}
    stopped = sweep(
        TREE, {**changes, **grid, "sweep.scheduler": {"kind": "asha", "reduction": 2}}, runs=tmp_path, name="a",
        progress=False,
    )  # fmt: skip
    assert [trial.status for trial in stopped.trials] == ["done", "stopped"]
    assert RunFolder(Path(stopped.trials[1].run_dir)).status()["reason"].startswith("stopped by asha at step")


def test_more_than_the_cluster_has_is_refused_before_anything_trains(ray: None, tmp_path: Path) -> None:
    changes = {"strategy": "ddp", "trainer.devices": 8}
    with pytest.raises(UserError, match=r"trainer.devices: a trial needs 8 CPUs, but Ray has 4; lower it"):
        sweep(TREE, changes, runs=tmp_path, name="s", progress=False)
    with pytest.raises(UserError, match=r"sweep.gpus_per_trial: 0.5, but Ray has no GPU here; leave it out"):
        sweep(TREE, {"sweep.gpus_per_trial": 0.5}, runs=tmp_path, name="g", progress=False)
    assert not list(tmp_path.glob("*-0000"))
