"""Fits of several processes through the command line: launch, signals, faults, and going on elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from headway.run import RunFolder, read_metrics


def losses(folder: Path) -> dict[int, float]:
    return {row["step"]: row["train/loss"] for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row}


def weights(folder: Path, step: int = 30) -> dict:
    return load_file(folder / "checkpoints" / f"{step:08d}" / "weights.safetensors")


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "headway", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if max(losses(folder), default=0) >= step:
            return
        time.sleep(0.1)
    output = process.communicate()[1] if process.poll() is not None else "still running"
    pytest.fail(f"no step {step} in {folder}: {output}")


LONG = ["trainer.max_steps=100000", "trainer.validate_every=20", "trainer.steps_per_call=5", "optim.schedule=constant"]


def test_json_is_the_last_line_of_standard_output(command, recipe_file, tmp_path) -> None:
    done = command("fit", recipe_file, "trainer.devices=2", "--runs", tmp_path / "runs", "--name", "two", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(done.stdout.splitlines()) == 1
    assert result["run_id"] == "two"
    assert result["status"] == "done"
    assert result["step"] == 30
    assert result["metrics"]["test/accuracy"] > 0.15
    assert "step 30/30" in done.stderr
    run = RunFolder(tmp_path / "runs" / "two")
    assert run.log(0).exists()
    assert run.log(1).exists()
    assert "strategy: {kind: ddp}" in run.recipe.read_text() or "kind: ddp" in run.recipe.read_text()


def test_torchrun_starts_the_same_ranks(recipe_file, tmp_path, command) -> None:
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = ["fit", recipe_file, "strategy=ddp", "--runs", tmp_path / "runs", "--name"]
    done = subprocess.run(
        [*ranks, "-m", "headway", *map(str, arguments), "torchrun"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    command(*arguments, "own", "trainer.devices=2")
    assert losses(tmp_path / "runs" / "torchrun") == losses(tmp_path / "runs" / "own")


def test_one_command_a_node_is_the_whole_launch(recipe_file, tmp_path) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "fit",
        recipe_file,
        "trainer.nodes=2",
        "trainer.devices=1",
        "--runs",
        tmp_path / "runs",
        "--name",
        "nodes",
    ]
    nodes = [start(*arguments, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)) for _ in range(2)]
    outputs = [node.communicate(timeout=120) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sorted(losses(tmp_path / "runs" / "nodes")) == list(range(1, 31))
    assert RunFolder(tmp_path / "runs" / "nodes").read_json("manifest.json")["world_size"] == 2


@pytest.mark.parametrize(
    ("ranks", "number", "code"),
    [
        (2, signal.SIGTERM, 143),
        (1, signal.SIGINT, 130),
        (1, signal.SIGUSR1, 143),
        pytest.param(2, signal.SIGUSR1, 143, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGTERM, 143, marks=pytest.mark.slow),
        pytest.param(2, signal.SIGINT, 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_stops_at_a_step_saves_and_says_so(recipe_file, tmp_path, ranks: int, number: int, code: int) -> None:
    run = tmp_path / "runs" / "stopped"
    process = start(
        "fit", recipe_file, *LONG, f"trainer.devices={ranks}", "--runs", tmp_path / "runs", "--name", "stopped"
    )
    wait_for_step(run, 25, process)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    status = RunFolder(run).status()
    assert status["state"] == "stopped"
    assert status["checkpoint"] == status["step"] == max(losses(run))
    assert "--resume stopped" in stderr


def test_a_rank_that_is_killed_ends_the_run_and_leaves_no_process(recipe_file, tmp_path) -> None:
    run = tmp_path / "runs" / "killed"
    process = start("fit", recipe_file, *LONG, "trainer.devices=2", "--runs", tmp_path / "runs", "--name", "killed")
    wait_for_step(run, 25, process)
    ranks = psutil.Process(process.pid).children(recursive=True)
    victim = next(rank for rank in ranks if rank.environ().get("RANK") == "1")
    victim.kill()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    status = RunFolder(run).status()
    assert status["state"] == "failed"
    assert status["reason"]
    assert not [rank for rank in ranks if rank.is_running() and rank.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_a_second_signal_does_not_spoil_the_saving(recipe_file, tmp_path) -> None:
    run = tmp_path / "runs" / "twice"
    process = start("fit", recipe_file, *LONG, "trainer.devices=2", "--runs", tmp_path / "runs", "--name", "twice")
    wait_for_step(run, 25, process)
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM):
        process.send_signal(number)
        time.sleep(0.05)
    _, stderr = process.communicate(timeout=40)
    assert process.returncode == 143, stderr
    status = RunFolder(run).status()
    assert status["state"] == "stopped"
    assert status["checkpoint"] == status["step"]


def test_ranks_end_with_the_process_that_started_them(recipe_file, tmp_path) -> None:
    run = tmp_path / "runs" / "orphans"
    process = start("fit", recipe_file, *LONG, "trainer.devices=2", "--runs", tmp_path / "runs", "--name", "orphans")
    wait_for_step(run, 5, process)
    ranks = psutil.Process(process.pid).children(recursive=True)
    assert len([rank for rank in ranks if "headway" in rank.cmdline()]) == 2
    process.kill()
    process.communicate(timeout=40)
    _, alive = psutil.wait_procs(ranks, timeout=10)
    assert not alive


@pytest.mark.quick
def test_a_signal_before_torch_is_imported_is_not_forgotten() -> None:
    from headway.supervise.signals import StopFlag, stop_on_signals

    with stop_on_signals(StopFlag()) as early:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert early()
        with stop_on_signals(StopFlag()) as late:
            assert late.signal_number == signal.SIGTERM
    with stop_on_signals(StopFlag()) as next_time:
        assert not next_time()


def test_resume_auto_starts_a_run_and_goes_on_with_it(command, recipe_file, tmp_path) -> None:
    line = ("fit", recipe_file, "--runs", tmp_path / "runs", "--name", "again", "--resume", "auto", "--json")
    process = start(*line[:2], *LONG, *line[2:])
    wait_for_step(tmp_path / "runs" / "again", 25, process)
    process.send_signal(signal.SIGUSR1)
    process.communicate(timeout=40)
    assert process.returncode == 143
    refused = command(*line, "optim.lr=0.5")
    assert refused.returncode == 2
    assert "optim.lr: is 0.5" in refused.stderr
    reached = RunFolder(tmp_path / "runs" / "again").status()["step"]
    done = command(*line[:2], *LONG[1:], f"trainer.max_steps={reached + 7}", *line[2:])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == reached + 7
    manifest = RunFolder(tmp_path / "runs" / "again").read_json("manifest.json")
    assert [each["at_step"] for each in manifest["resumed"]] == [reached]
    assert len(losses(tmp_path / "runs" / "again")) == reached + 7


def test_resume_auto_wants_a_name(command, recipe_file) -> None:
    done = command("fit", recipe_file, "--resume", "auto")
    assert done.returncode == 2
    assert "--name" in done.stderr


def test_a_run_that_was_killed_whole_ends_with_the_very_same_weights(command, recipe_file, tmp_path) -> None:
    runs = tmp_path / "runs"
    arguments = [
        "fit",
        recipe_file,
        "trainer.max_steps=1200",
        "trainer.validate_every=100",
        "trainer.devices=2",
        "--runs",
        runs,
    ]
    straight = command(*arguments, "--name", "straight")
    assert straight.returncode == 0, straight.stderr
    process = start(*arguments, "--name", "cut")
    wait_for_step(runs / "cut", 300, process)
    tree = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in tree:
        member.kill()
    process.communicate(timeout=30)
    assert max(losses(runs / "cut")) < 1200
    resumed = command("fit", "--resume", "cut", "--runs", runs)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(runs / "cut") == losses(runs / "straight")
    first, second = weights(runs / "straight", 1200), weights(runs / "cut", 1200)
    assert all(first[name].equal(second[name]) for name in first)


def test_a_failed_training_is_one_line_and_exit_code_three(command, recipe_file, tmp_path) -> None:
    for ranks in (1, 2):
        done = command(
            "fit", recipe_file, "optim={kind: sgd, lr: 1e30}", "trainer.clip_norm=null", f"trainer.devices={ranks}",
            "--runs", tmp_path / "runs", "--name", f"nan-{ranks}",
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("headway:")]
        assert len(said) == 1
        assert "train/loss is" in said[0]
        assert "Traceback" not in done.stderr


def test_python_starts_ranks_too(tiny_mlp, tmp_path) -> None:
    from headway.fit import fit

    result = fit(tiny_mlp, {"trainer.devices": 2}, runs=tmp_path, progress=False)
    assert result.status == "done"
    assert result.metrics["test/accuracy"] > 0.15


@pytest.mark.parametrize(("state", "ends_well"), [("done", True), ("running", False)])
def test_a_rank_that_dies_at_exit_spoils_only_a_run_that_was_not_done(
    tiny_mlp, tmp_path, monkeypatch, capsys, state: str, ends_well: bool
) -> None:
    from headway.config.errors import TrainingFailed
    from headway.fit import fit
    from headway.supervise import agent

    def aborted(arguments, **_) -> int:
        RunFolder(Path(arguments[1]).parent).update_status(state=state)
        return 128 + signal.SIGABRT

    monkeypatch.setattr(agent, "run_ranks", aborted)
    if ends_well:
        assert fit(tiny_mlp, {"trainer.devices": 2}, runs=tmp_path).status == "done"
        assert "ended with signal 6 after the run was done" in capsys.readouterr().err
    else:
        with pytest.raises(TrainingFailed, match="a rank ended with signal 6"):
            fit(tiny_mlp, {"trainer.devices": 2}, runs=tmp_path)
