"""A run that goes on from a checkpoint draws and prunes as one that never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from headway.fit import fit
from headway.run import read_metrics

TECHNIQUES = {
    "noise": {"noise": {"input": 0.2, "weight": 0.1, "gradient": 0.1}},
    # Stopped between two prunings, with momentum under way.
    "prune": {"prune": {"sparsity": 0.7, "begin": 2, "end": 27, "every": 4}},
}


def losses(run: Path) -> list[float]:
    return [row["train/loss"] for row in read_metrics(run / "metrics.jsonl") if "train/loss" in row]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "00000030" / "weights.safetensors")


@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_stopped_run_goes_on_to_the_bit(tmp_path, tiny_mlp, name: str) -> None:
    # At a constant rate: a cosine would know how long the run is.
    changes = {"regularize": TECHNIQUES[name], "optim.schedule": "constant"}
    fit(tiny_mlp, changes, runs=tmp_path, name="straight", progress=False)
    fit(tiny_mlp, {**changes, "trainer.max_steps": 20}, runs=tmp_path, name="stopped", progress=False)
    fit(None, {"trainer.max_steps": 30}, resume="stopped", runs=tmp_path, progress=False)
    straight, stopped = losses(tmp_path / "straight"), losses(tmp_path / "stopped")
    assert len(straight) == 30
    assert straight == stopped
    first, second = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert all(first[key].equal(second[key]) for key in first)
