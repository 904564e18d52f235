"""One process and two ranks train the same: the claim of the README's table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "parity.py"


@pytest.fixture(scope="module")
def differences() -> dict[tuple[str, str, str], dict[str, float]]:
    done = subprocess.run([sys.executable, str(PROGRAM), "--json"], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    return {(row["model"], row["strategy"], row["precision"]): row for row in rows}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "ZeRO-1", "ZeRO-2", "ZeRO-3"])
@pytest.mark.parametrize("model", ["logistic", "mlp", "convnet", "gpt"])
def test_two_ranks_have_the_losses_of_one_process(differences, model: str, strategy: str) -> None:
    assert differences[model, strategy, "fp32"]["loss"] < 1e-5


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("model", ["logistic", "mlp", "convnet", "gpt"])
def test_two_ranks_have_the_weights_of_one_process_in_fp64(differences, model: str, strategy: str) -> None:
    assert differences[model, strategy, "fp64"]["weights"] < 1e-9
    assert differences[model, strategy, "fp64"]["loss"] < 1e-12
