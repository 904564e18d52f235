"""A fit in this process: what it leaves, how it repeats, stops and goes on."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from headway.config.errors import Stopped, TrainingFailed, UserError
from headway.fit import fit
from headway.run import RunFolder, read_metrics


def losses(folder: str | Path) -> dict[int, float]:
    rows = read_metrics(Path(folder) / "metrics.jsonl")
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}


def weights(folder: str | Path, step: int) -> dict[str, Any]:
    return load_file(Path(folder) / "checkpoints" / f"{step:08d}" / "weights.safetensors")


def same(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


def test_a_fit_leaves_the_documented_run_folder(tiny_mlp, tmp_path) -> None:
    result = fit(tiny_mlp, runs=tmp_path, progress=False)
    run = RunFolder(Path(result.run_dir))
    assert {path.name for path in run.path.iterdir()} == {
        "recipe.yaml", "data.json", "manifest.json", "status.json", "metrics.jsonl", "logs", "checkpoints", "lock",
        "alerts.jsonl", "media", "media.jsonl", "system",
    }  # fmt: skip
    assert result.status == "done" == run.status()["state"]
    assert result.step == 30
    assert {"train/loss", "val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= set(result.metrics)
    manifest = run.read_json("manifest.json")
    assert manifest["exit_code"] == 0
    assert manifest["packages"]["torch"]
    assert len(manifest["data_sha256"]) == 64
    assert manifest["ended"] >= manifest["started"]


def test_metric_rows_hold_every_step_validation_and_test(tiny_mlp, tmp_path) -> None:
    result = fit(tiny_mlp, runs=tmp_path, progress=False)
    rows = read_metrics(Path(result.run_dir) / "metrics.jsonl")
    assert sorted(losses(result.run_dir)) == list(range(1, 31))
    assert [row["step"] for row in rows if "val/loss" in row] == [10, 20, 30]
    assert sum("test/loss" in row for row in rows) == 1
    assert all("train/grad_norm" in row and "train/lr" in row for row in rows if "train/loss" in row)
    assert any("perf/samples_per_s" in row for row in rows)


def test_fitting_the_run_folders_recipe_repeats_the_run(tiny_mlp, tmp_path) -> None:
    first = fit(tiny_mlp, {"trainer.seed": 5}, runs=tmp_path, progress=False)
    second = fit(Path(first.run_dir) / "recipe.yaml", runs=tmp_path, name="again", progress=False)
    assert losses(first.run_dir) == losses(second.run_dir)
    assert same(weights(first.run_dir, 30), weights(second.run_dir, 30))


def test_steps_that_share_a_call_change_nothing(tiny_mlp, tmp_path) -> None:
    one, seven = (
        fit(tiny_mlp, {"trainer.steps_per_call": steps}, runs=tmp_path, name=f"by-{steps}", progress=False)
        for steps in (1, 7)
    )
    assert losses(one.run_dir) == losses(seven.run_dir)
    assert same(weights(one.run_dir, 30), weights(seven.run_dir, 30))


@pytest.mark.parametrize("rng", ["keyed", "fast"])
def test_a_stopped_run_goes_on_to_the_very_same_weights(tiny_mlp, tmp_path, rng: str) -> None:
    changes = {"trainer.rng": rng}
    straight = fit(tiny_mlp, changes, runs=tmp_path, name="straight", progress=False)
    with pytest.raises(Stopped):
        _fit_until(20, tiny_mlp, changes, tmp_path)
    assert RunFolder(tmp_path / "cut").status()["state"] == "stopped"
    resumed = fit(resume="cut", runs=tmp_path, progress=False)
    assert losses(resumed.run_dir) == losses(straight.run_dir)
    assert same(weights(resumed.run_dir, 30), weights(straight.run_dir, 30))
    assert resumed.metrics == straight.metrics


def _fit_until(step: int, tree: dict[str, Any], changes: dict[str, Any], runs: Path) -> None:
    """Fits as if a SIGTERM came once a step was made."""
    import signal

    module = importlib.import_module("headway.fit")
    from headway.supervise.signals import StopFlag

    flag = StopFlag()

    def on_report(metrics: dict[str, float]) -> bool:
        if metrics["step"] >= step:
            flag.signal_number = signal.SIGTERM
        return True

    original = module.StopFlag
    module.StopFlag = lambda: flag  # type: ignore[assignment, misc]
    try:
        fit(tree, {**changes, "trainer.steps_per_call": 1}, runs=runs, name="cut", on_report=on_report, progress=False)
    finally:
        module.StopFlag = original  # type: ignore[misc]


def test_a_damaged_newest_checkpoint_is_passed_over(tiny_mlp, tmp_path, capsys) -> None:
    straight = fit(tiny_mlp, runs=tmp_path, name="straight", progress=False)
    with pytest.raises(Stopped):
        _fit_until(20, tiny_mlp, {"trainer.checkpoint_every": 1}, tmp_path)
    steps = sorted((tmp_path / "cut" / "checkpoints").iterdir())
    assert len(steps) >= 2
    damaged = steps[-1] / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00")
    resumed = fit(resume="cut", runs=tmp_path, progress=False)
    assert "has changed since it was written" in capsys.readouterr().err
    assert same(weights(resumed.run_dir, 30), weights(straight.run_dir, 30))


def test_a_finished_run_can_be_given_more_steps(tiny_mlp, tmp_path) -> None:
    fit(tiny_mlp, runs=tmp_path, name="more", progress=False)
    again = fit(resume="more", runs=tmp_path, progress=False)
    assert again.step == 30
    longer = fit(None, {"trainer.max_steps": 40}, resume="more", runs=tmp_path, progress=False)
    assert longer.step == 40
    assert sorted(losses(longer.run_dir)) == list(range(1, 41))


def test_resume_refuses_another_experiment(tiny_mlp, tmp_path) -> None:
    fit(tiny_mlp, runs=tmp_path, name="one", progress=False)
    with pytest.raises(UserError, match=r"optim.lr: is 0.1, but one was trained with 0.003"):
        fit(None, {"optim.lr": 0.1}, resume="one", runs=tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_no_weights_of_it(tiny_mlp, tmp_path) -> None:
    broken = {"optim": {"kind": "sgd", "lr": 1e30}, "trainer.clip_norm": None, "trainer.validate_every": 30}
    with pytest.raises(TrainingFailed, match=r"train/loss is (nan|inf) at step \d+"):
        fit(tiny_mlp, broken, runs=tmp_path, name="nan", progress=False)
    status = RunFolder(tmp_path / "nan").status()
    assert status["state"] == "failed"
    assert "train/loss is" in status["reason"]
    assert not list((tmp_path / "nan" / "checkpoints").iterdir())
    for line in (tmp_path / "nan" / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} in the metrics"))


def test_early_stopping_ends_with_the_best_weights_tested(tiny_mlp, tmp_path) -> None:
    changes = {
        "trainer.max_steps": 2000, "trainer.early_stopping": {"patience": 2}, "optim.schedule": "constant",
        "optim.lr": 0.03, "model.dropout": 0.0,
    }  # fmt: skip
    result = fit(tiny_mlp, changes, runs=tmp_path, progress=False)
    best = RunFolder(Path(result.run_dir)).status()["best"]
    assert result.step < 2000
    assert result.step - best["step"] == 20
    assert result.metrics["val/loss"] == best["value"]


def test_a_listener_hears_every_validation_and_can_stop(tiny_mlp, tmp_path) -> None:
    heard: list[dict[str, float]] = []

    def on_report(metrics: dict[str, float]) -> bool:
        heard.append(metrics)
        return len(heard) < 2

    result = fit(tiny_mlp, runs=tmp_path, on_report=on_report, progress=False)
    assert [report["step"] for report in heard] == [10, 20]
    assert result.step == 20
    assert result.status == "done"
    assert {"val/loss", "val/accuracy", "train/loss"} <= set(heard[0])


def test_micro_batches_change_no_loss(tiny_mlp, tmp_path) -> None:
    whole = fit(tiny_mlp, {"trainer.precision": "fp64"}, runs=tmp_path, name="whole", progress=False)
    cut = fit(
        tiny_mlp, {"trainer.precision": "fp64", "trainer.micro_batch": 11}, runs=tmp_path, name="cut", progress=False
    )
    for step, loss in losses(whole.run_dir).items():
        assert losses(cut.run_dir)[step] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16", "fp64"])
def test_other_precisions_train(tiny_mlp, tmp_path, precision: str) -> None:
    result = fit(tiny_mlp, {"trainer.precision": precision, "trainer.max_steps": 60}, runs=tmp_path, progress=False)
    assert result.metrics["val/loss"] < 1.9
    dtype = next(iter(weights(result.run_dir, 60).values())).dtype
    assert str(dtype) == {"bf16-mixed": "torch.float32", "bf16": "torch.bfloat16", "fp64": "torch.float64"}[precision]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.devices": 2, "strategy": "single"}, r"strategy.kind: single is one process"),
        ({"trainer.accelerator": "cuda"}, r"trainer.accelerator: cuda, but torch sees no GPU"),
        ({"trainer.precision": "fp16-mixed"}, r"trainer.precision: fp16-mixed needs a GPU"),
        ({"trainer.precision": "fp64", "strategy": "deepspeed"}, r"trainer.precision: deepspeed has no fp64"),
        ({"model": "convnet"}, r"model.kind: convnet needs images"),
        ({"objective": "causal_lm"}, r"objective.kind: causal_lm needs tokens"),
        ({"trainer.monitor": "val/f1"}, r"there is no 'val/f1'; a validation gives val/loss, val/accuracy"),
        ({"model": {"kind": "mlp", "hidden": [2**62]}}, r"model: torch cannot make a net of these sizes"),
        ({"trainer.nodes": 2}, r"trainer.nodes: several nodes write one run"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_made(tiny_mlp, tmp_path, changes, message: str) -> None:
    import torch

    if torch.cuda.is_available() and "GPU" in message:
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=message):
        fit(tiny_mlp, changes, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_two_runs_cannot_share_a_folder(tiny_mlp, tmp_path) -> None:
    fit(tiny_mlp, runs=tmp_path, name="taken", progress=False)
    with pytest.raises(UserError, match=r"exists already; choose another, or --resume taken"):
        fit(tiny_mlp, runs=tmp_path, name="taken")


def test_a_fit_leaves_the_process_as_it_was(tiny_mlp, tmp_path) -> None:
    import headway

    for name in ("first", "second"):
        result = headway.fit(tiny_mlp, {"strategy": "deepspeed"}, runs=tmp_path, name=name, progress=False)
        assert result.status == "done"
    assert "RANK" not in __import__("os").environ
    assert callable(headway.fit)
