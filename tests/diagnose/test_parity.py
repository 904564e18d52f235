"""Health on two ranks is that of one process, under every strategy: of the whole model and the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.fit import fit
from headway.run import read_metrics

STEPS = 3
# Ranks never share a batch equally, and each cuts its part into micro-batches.
TRAINER = {"max_steps": STEPS, "batch_size": 23, "micro_batch": 7, "seed": 7, "threads": 1, "clip_norm": 0.3}
# Rates at which an update is long enough for float32 to resolve it.
COMMON = {"init": "kaiming", "optim": {"kind": "sgd", "lr": 0.5}, "track": {"wandb": "disabled", "health_every": 1}}
DIGITS = {"kind": "digits", "validation": 0.02, "test": 0.02}
TEXT = {"kind": "text", "sequence_length": 13, "max_characters": 10_000}
MODELS: dict[str, dict[str, Any]] = {
    "mlp": {**COMMON, "model": {"kind": "mlp", "hidden": [13, 11], "dropout": 0.2}, "data": DIGITS},
    # Every second batch is of one sample: the other rank passes a stand-in that counts for nothing.
    "mlp, short batches": {
        **COMMON,
        "model": {"kind": "mlp", "hidden": [13, 11]},
        "data": DIGITS,
        "trainer": {"batch_size": 1724, "micro_batch": None},
    },
    "convnet": {
        **COMMON,
        "model": {"kind": "convnet", "filters": [5, 7]},
        "data": {**DIGITS, "layout": "image"},
    },
    "gpt": {
        **COMMON,
        "model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 22, "dropout": 0.2},
        "data": TEXT,
    },
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"kind": "ddp"},
    "fsdp": {"kind": "fsdp"},
    "ZeRO-1": {"kind": "deepspeed", "stage": 1},
    "ZeRO-2": {"kind": "deepspeed", "stage": 2},
    "ZeRO-3": {"kind": "deepspeed", "stage": 3},
}
PRECISIONS = {"fp32": 1e-5, "fp64": 1e-9}


def strategies(precision: str) -> list[str]:
    return list(STRATEGIES) if precision == "fp32" else ["ddp", "fsdp"]


CASES = [
    (model, strategy, precision) for precision in PRECISIONS for strategy in strategies(precision) for model in MODELS
]


def tree(model: str, precision: str) -> dict[str, Any]:
    trainer = {**TRAINER, **MODELS[model].get("trainer", {}), "precision": precision}
    return {**MODELS[model], "trainer": trainer}


def run_name(model: str, strategy: str, precision: str) -> str:
    return f"{model}-{strategy}-{precision}".replace(", ", "-").replace(" ", "-")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, on_two_ranks: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("health")
    shared = {
        run_name(model, strategy, precision): {**tree(model, precision), "strategy": STRATEGIES[strategy]}
        for model, strategy, precision in CASES
    }
    for strategy, section in STRATEGIES.items():
        unwatched = {"strategy": section, "track": {"wandb": "disabled", "health_every": "never"}}
        shared[f"gpt-{strategy}-unwatched"] = tree("gpt", "fp32") | unwatched

    def alone() -> None:
        for precision in PRECISIONS:
            for model in MODELS:
                fit(tree(model, precision), runs=folder, name=run_name(model, "single", precision), progress=False)

    on_two_ranks(folder, shared, alone)
    return folder


def health(run: Path) -> list[dict[str, float]]:
    """Returns the health of each step."""
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row]
    assert len(rows) == STEPS
    return [{name: value for name, value in row.items() if name.startswith("health/")} for row in rows]


@pytest.mark.parametrize(("model", "strategy", "precision"), CASES)
def test_every_value_is_that_of_one_process(runs: Path, model: str, strategy: str, precision: str) -> None:
    expected = health(runs / run_name(model, "single", precision))
    got = health(runs / run_name(model, strategy, precision))
    assert len(expected[0]) >= 4 * 3
    for alone, together in zip(expected, got, strict=True):
        assert list(together) == list(alone)
        for name, value in alone.items():
            # A mean near zero is the rest of values that cancel: as exact as their spread.
            size = alone[name.replace("/activation_mean", "/activation_std")]
            assert together[name] == pytest.approx(value, abs=PRECISIONS[precision] * size), name


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_parts_of_a_step_do_not_overlap(runs: Path, strategy: str) -> None:
    (row,) = [row for row in read_metrics(runs / f"gpt-{strategy}-fp32" / "metrics.jsonl") if "perf/step_time_s" in row]
    parts = [
        part for part in ("data", "forward", "backward", "update", "communication") if f"perf/{part}_time_s" in row
    ]
    # Only DDP's communication can be told apart.
    assert parts == ["data", "forward", "backward", "update"] + ["communication"] * (strategy == "ddp")
    seconds = [row[f"perf/{part}_time_s"] for part in parts]
    assert all(value > 0 for value in seconds)
    # The length of the step is the ranks' mean, the parts are those of the first.
    assert sum(seconds) < 2 * row["perf/step_time_s"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_changes_no_bit_of_the_weights(runs: Path, strategy: str) -> None:
    with_health, without = (
        (runs / f"gpt-{strategy}-{name}" / "checkpoints" / f"{STEPS:08d}" / "weights.safetensors").read_bytes()
        for name in ("fp32", "unwatched")
    )
    assert with_health == without


@pytest.mark.parametrize(("model", "strategy", "precision"), CASES)
def test_the_layers_make_up_the_whole_gradient(runs: Path, model: str, strategy: str, precision: str) -> None:
    rows = read_metrics(runs / run_name(model, strategy, precision) / "metrics.jsonl")
    for row in (row for row in rows if "train/loss" in row):
        parts = [value for name, value in row.items() if name.endswith("/grad_norm") and name.startswith("health/")]
        assert math.hypot(*parts) == pytest.approx(row["train/grad_norm"], rel=1e-5)
