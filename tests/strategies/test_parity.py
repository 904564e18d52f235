"""One process and two ranks train the same: the claim of the README's table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headway.config.contracts import MODEL

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "parity.py"
EVERYWHERE = ("logistic", "mlp", "convnet", "gpt")
STRATEGIES = ("ddp", "fsdp", "ZeRO-1", "ZeRO-2", "ZeRO-3")
Differences = dict[tuple[str, str, str], dict[str, float]]


def measure(*options: str, timeout: float) -> Differences:
    command = [sys.executable, str(PROGRAM), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])
    return {(row["model"], row["strategy"], row["precision"]): row for row in rows}


@pytest.fixture(scope="module")
def differences() -> Differences:
    return measure(timeout=500)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("model", EVERYWHERE)
def test_two_ranks_have_the_losses_of_one_process(differences: Differences, model: str, strategy: str) -> None:
    assert differences[model, strategy, "fp32"]["loss"] < 1e-5


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("model", EVERYWHERE)
def test_two_ranks_have_the_weights_of_one_process_in_fp64(differences: Differences, model: str, strategy: str) -> None:
    assert differences[model, strategy, "fp64"]["weights"] < 1e-9
    assert differences[model, strategy, "fp64"]["loss"] < 1e-12


@pytest.mark.parametrize("strategy", ["ddp", "ZeRO-2"])
@pytest.mark.parametrize("model", sorted(set(MODEL.names()) - set(EVERYWHERE)))
def test_every_other_architecture_too(differences: Differences, model: str, strategy: str) -> None:
    assert differences[model, strategy, "fp32"]["loss"] < 1e-5


@pytest.mark.soak
def test_every_architecture_under_every_strategy() -> None:
    for (model, strategy, precision), row in measure("--all", timeout=3000).items():
        assert row["loss"] < (1e-5 if precision == "fp32" else 1e-12), (model, strategy, precision)
        assert precision == "fp32" or row["weights"] < 1e-9, (model, strategy)
