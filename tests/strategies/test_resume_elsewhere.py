"""A run stopped under one strategy goes on under another, on another number of ranks, as if it never had."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from headway.fit import fit
from headway.run import read_metrics

ZERO_1, ZERO_2, ZERO_3 = ({"kind": "deepspeed", "stage": stage} for stage in (1, 2, 3))
MOVES = ["single-to-ZeRO-3", "ZeRO-2-to-ddp", "ZeRO-3-to-ZeRO-1", "ddp-to-ZeRO-2", "fsdp-to-single", "ddp-to-ddp"]


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row}


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "checkpoints" / "00000030" / "weights.safetensors")


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Path:
    """Returns a folder of runs: each of MOVES, and two that were never stopped."""
    folder = tmp_path_factory.mktemp("moved")
    runs = folder / "runs"
    tiny = {
        "name": "tiny",
        "model": {"kind": "mlp", "hidden": [17], "dropout": 0.2},
        "data": "digits",
        "init": "kaiming",
        "optim": {"kind": "adamw", "lr": 3e-3},
        "trainer": {"max_steps": 30, "batch_size": 63, "validate_every": 10, "clip_norm": 1.0, "threads": 1},
        "track": {"wandb": "disabled"},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    fit(tiny, runs=runs, name="straight", progress=False)
    fit(tiny, {"trainer.max_steps": 20}, runs=runs, name="single-to-ZeRO-3", progress=False)
    legs = [
        ("straight-ddp", "ddp", 30, False),
        ("single-to-ZeRO-3", ZERO_3, 30, True),
        ("ZeRO-2-to-ddp", ZERO_2, 20, False),
        ("ZeRO-2-to-ddp", "ddp", 30, True),
        ("ZeRO-3-to-ZeRO-1", ZERO_3, 20, False),
        ("ZeRO-3-to-ZeRO-1", ZERO_1, 30, True),
        ("ddp-to-ZeRO-2", "ddp", 20, False),
        ("ddp-to-ZeRO-2", ZERO_2, 30, True),
        ("ddp-to-ddp", "ddp", 20, False),
        ("ddp-to-ddp", "ddp", 30, True),
        ("fsdp-to-single", "fsdp", 20, False),
    ]
    worker = Path(__file__).with_name("resume_worker.py")
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*ranks, str(worker), str(folder), json.dumps(legs)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    fit(
        None,
        {"trainer.max_steps": 30, "strategy": "single", "trainer.devices": 1},
        resume="fsdp-to-single",
        runs=runs,
        progress=False,
    )
    return runs


@pytest.mark.parametrize("move", MOVES)
def test_a_moved_run_has_the_losses_of_one_that_was_not(moved: Path, move: str) -> None:
    expected, got = losses(moved / "straight"), losses(moved / move)
    assert got.keys() == expected.keys()
    for step, loss in expected.items():
        assert got[step] == pytest.approx(loss, rel=1e-5), step
    first, second = weights(moved / "straight"), weights(moved / move)
    assert first.keys() == second.keys()
    assert max(float(first[name].sub(second[name]).abs().max()) for name in first) < 1e-4


def test_on_the_same_ranks_it_is_the_same_to_the_last_bit(moved: Path) -> None:
    assert losses(moved / "straight-ddp") == losses(moved / "ddp-to-ddp")
    first, second = weights(moved / "straight-ddp"), weights(moved / "ddp-to-ddp")
    assert all(first[name].equal(second[name]) for name in first)
