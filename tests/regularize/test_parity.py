"""Two ranks train as one process does, with every technique, under every strategy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.config.contracts import REGULARIZE
from headway.fit import fit
from headway.run import read_metrics

STEPS = 6
# Held-out parts of a few rows: they are read in micro-batches too. Ranks never share a batch equally.
DIGITS = {"kind": "digits", "validation": 0.02, "test": 0.02}
TRAINER = {"max_steps": STEPS, "batch_size": 23, "micro_batch": 7, "seed": 7, "threads": 1}
COMMON = {"init": "kaiming", "optim": {"kind": "adamw", "lr": 3e-3}, "track": {"wandb": "disabled"}}
MLP = {**COMMON, "model": {"kind": "mlp", "hidden": [13, 11], "dropout": 0.2}, "data": DIGITS}
CONVNET = {
    **COMMON,
    "model": {"kind": "convnet", "filters": [5, 7]},
    "data": {**DIGITS, "layout": "image"},
}
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"kind": "ddp"},
    "fsdp": {"kind": "fsdp"},
    "ZeRO-1": {"kind": "deepspeed", "stage": 1},
    "ZeRO-2": {"kind": "deepspeed", "stage": 2},
    "ZeRO-3": {"kind": "deepspeed", "stage": 3},
}
WEIGHTS = {
    "penalty": {"l1": 1e-3, "l2": 1e-2},
    "max_norm": {"limit": 1.0},
    "noise": {"input": 0.3, "weight": 0.1, "gradient": 0.1},
    "prune": {"sparsity": 0.7, "end": 5, "every": 2},
}
BATCHES = {
    "augment": {"translate": 1, "rotate": 15.0, "brightness": 0.2, "flip": True},
    "adversarial": {"epsilon": 0.2},
    "sparse_activations": {"l1": 1e-2},
}
TOGETHER = {"together": (CONVNET, {**BATCHES, **WEIGHTS}, {"clip_value": 0.05, "clip_norm": 0.3})}
ALONE = {
    **{name: (MLP, {name: WEIGHTS[name]}, {}) for name in ("penalty", "max_norm", "prune")},
    **{f"noise on the {name}": (MLP, {"noise": {name: 0.2}}, {}) for name in ("input", "weight", "gradient")},
    **{name: (CONVNET, {name: BATCHES[name]}, {}) for name in BATCHES},
    "adversarial on features": (MLP, {"adversarial": {"epsilon": 0.2}}, {}),
    "clip_value": (MLP, {}, {"clip_value": 0.02}),
    "clip_norm": (MLP, {}, {"clip_norm": 0.3}),
}


def trained(folder: Path, cases: dict[str, Any], on_two_ranks: Callable[..., None]) -> Path:
    """Returns the folder of the runs of all cases: here in one process, and under each strategy on two ranks."""
    trees = {
        case: {**base, "regularize": regularize, "trainer": {**TRAINER, **trainer}}
        for case, (base, regularize, trainer) in cases.items()
    }
    shared = {
        run_name(case, strategy): {**tree, "strategy": section}
        for strategy, section in STRATEGIES.items()
        for case, tree in trees.items()
    }

    def alone() -> None:
        for case, tree in trees.items():
            fit(tree, runs=folder, name=run_name(case, "single"), progress=False)

    on_two_ranks(folder, shared, alone)
    return folder


def run_name(case: str, strategy: str) -> str:
    return f"{case}-{strategy}".replace(" ", "-")


def compare(folder: Path, case: str, strategy: str) -> None:
    alone, together = (read_metrics(folder / run_name(case, name) / "metrics.jsonl") for name in ("single", strategy))
    metrics = ("train/loss", "train/activation_l1", "test/loss", "test/robust_accuracy")
    expected, got = ([row[name] for name in metrics for row in rows if name in row] for rows in (alone, together))
    assert len(expected) > STEPS
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, on_two_ranks: Callable[..., None]) -> Path:
    return trained(tmp_path_factory.mktemp("together"), TOGETHER, on_two_ranks)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, on_two_ranks: Callable[..., None]) -> Path:
    return trained(tmp_path_factory.mktemp("alone"), ALONE, on_two_ranks)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_techniques_together_train_on_two_ranks_as_on_one(together: Path, strategy: str) -> None:
    compare(together, "together", strategy)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("case", ALONE)
def test_each_technique_trains_on_two_ranks_as_on_one(alone: Path, case: str, strategy: str) -> None:
    compare(alone, case, strategy)


def test_every_technique_is_in_the_matrix() -> None:
    assert {*WEIGHTS, *BATCHES} == set(REGULARIZE.names())
