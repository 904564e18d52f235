"""A sweep from the command line, with a Ray of its own, that somebody interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from headway.run import RunFolder, read_metrics

RECIPE = """
model: {kind: mlp, hidden: [7]}
data: {kind: digits}
optim: {kind: sgd, lr: 0.1}
trainer: {max_epochs: 100000, batch_size: 64}
track: {wandb: disabled}
sweep: {trials: 3, space: {optim.lr: {uniform: [0.01, 0.1]}}, max_concurrent: 1}
"""
STARTS_WITHIN_S = 120


def test_ctrl_c_ends_the_sweep_and_leaves_true_statuses(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "headway", "sweep", "long.yaml", "--name", "long"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    trial, whole = RunFolder(tmp_path / "runs" / "long-0000"), RunFolder(tmp_path / "runs" / "long")
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not whole.status().get("best") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        # A terminal sends it to all processes of the group, Ray's too.
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("headway: sweep long stopped after 0 of 3 trials")
    assert "Traceback" not in said
    assert whole.status()["state"] == "stopped"
    assert whole.status()["trials"]["pending"] == 2
    reached = max(row["step"] for row in read_metrics(trial.metrics) if "val/loss" in row)
    assert trial.status()["state"] == "stopped"
    assert trial.status()["step"] >= reached
    assert trial.status()["reason"] == f"stopped with its sweep at step {trial.status()['step']}"


def test_ctrl_c_does_not_wait_for_a_validation(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(RECIPE)
    rare = ["trainer.max_epochs=100000000", "trainer.validate_every=1000000000", "sweep.fuse=on"]
    command = [sys.executable, "-m", "headway", "sweep", "long.yaml", "--name", "long", *rare]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    trial = RunFolder(tmp_path / "runs" / "long-0000")
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not trial.status().get("checkpoint") and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=STARTS_WITHIN_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 130, said
    assert trial.status()["state"] == "stopped"
    assert trial.status()["step"] == trial.status()["checkpoint"] > 0
