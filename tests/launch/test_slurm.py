"""Jobs under a real Slurm: two slurmd on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from headway.fit import fit
from headway.jobs import board
from headway.jobs.records import list_records
from headway.run import RunFolder, read_metrics

LONG = ("trainer.max_steps=100000", "trainer.validate_every=20", "trainer.steps_per_call=5", "optim.schedule=constant")


@pytest.fixture
def runs(tmp_path: Path, slurm):
    folder = tmp_path / "runs"
    yield folder
    board.cancel(list_records(folder))
    slurm("scancel", "--user=root")
    slurm.wait_for(lambda: not slurm("squeue", "-h").strip(), "an empty queue")


@pytest.fixture
def profile(tmp_path: Path):
    def write(**settings) -> Path:
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump({"kind": "slurm", "grace_s": 30, **settings}))
        return path

    return write


@pytest.fixture
def submit(command, recipe_file, runs):
    def send(*arguments, code: int = 0):
        done = command("submit", "fit", recipe_file, *arguments, "--runs", runs)
        assert done.returncode == code, done.stderr
        return done

    return send


def state(runs: Path, name: str) -> str:
    (record,) = board.select(runs, [name])
    (task,) = board.look([record])
    return task.status.state


def checkpoint(runs: Path, name: str) -> int:
    return int(RunFolder(runs / name).status().get("checkpoint", 0))


def test_two_nodes_train_one_run(slurm, submit, profile, runs, command, tiny_mlp) -> None:
    submit("strategy=ddp", "--on", profile(nodes=2), "--name", "two")
    waited = command("jobs", "wait", "two", "--runs", runs)
    assert waited.returncode == 0, waited.stderr + command("jobs", "logs", "two", "--runs", runs).stdout
    (task,) = board.look(list_records(runs))
    assert task.status.where == ("n[1-2]",)
    manifest = RunFolder(runs / "two").read_json("manifest.json")
    assert manifest["world_size"] == 2
    assert manifest["job"] == task.record.job.id
    alone = fit(tiny_mlp, runs=runs, name="alone", progress=False)
    assert RunFolder(runs / "two").status()["final"]["test/loss"] == pytest.approx(alone.metrics["test/loss"], rel=1e-5)
    assert "step 30/30" in command("jobs", "logs", "two", "--runs", runs).stdout


def test_an_array_trains_a_run_for_each_seed_and_a_failed_one_is_told(slurm, submit, profile, runs, command) -> None:
    submit("--on", profile(array_limit=2), "--name", "seeds", "--seeds", "1-3")
    waited = command("jobs", "wait", "seeds", "--runs", runs)
    assert waited.returncode == 0, waited.stderr
    assert [task.run.id for task in board.look(list_records(runs))] == ["seeds-seed1", "seeds-seed2", "seeds-seed3"]
    assert len({RunFolder(runs / f"seeds-seed{seed}").status()["final"]["train/loss"] for seed in (1, 2, 3)}) == 3
    submit("optim.lr=1e30", "--on", profile(), "--name", "nan")
    assert command("jobs", "wait", "nan", "--runs", runs).returncode == 3
    (task,) = board.look(board.select(runs, ["nan"]))
    assert task.status.reason == "exit code 3: training failed, see the log"


def test_a_job_that_is_cancelled_has_saved_and_stays_cancelled(slurm, submit, profile, runs, command) -> None:
    submit(*LONG, "--on", profile(), "--name", "long")
    slurm.wait_for(lambda: checkpoint(runs, "long") >= 20, "a checkpoint")
    assert state(runs, "long") == "running"
    assert command("jobs", "cancel", "long", "--runs", runs).returncode == 0
    slurm.wait_for(lambda: state(runs, "long") == "cancelled", "cancelled")
    slurm.wait_for(lambda: RunFolder(runs / "long").status()["state"] == "stopped", "the run to stop")
    status = RunFolder(runs / "long").status()
    assert status["checkpoint"] == status["step"]
    time.sleep(3)
    assert state(runs, "long") == "cancelled"


@pytest.mark.slow
def test_the_time_limit_requeues_once_and_ends_with_the_very_same_weights(
    slurm, submit, profile, runs, command, tiny_mlp
) -> None:
    # Slurm counts limits in minutes and may warn half a minute early: warned after 0 to 30 of 60 seconds.
    steps = ("trainer.max_steps=20000", "trainer.validate_every=1000", "trainer.steps_per_call=10")
    submit(*steps, "--on", profile(time_limit="1m", grace_s=25), "--name", "limited")
    slurm.wait_for(lambda: RunFolder(runs / "limited").status().get("step", 0) > 0, "a step", 120)
    waited = command("jobs", "wait", "limited", "--runs", runs, timeout=400)
    assert waited.returncode == 0, waited.stderr
    (task,) = board.look(list_records(runs))
    manifest = RunFolder(runs / "limited").read_json("manifest.json")
    assert task.status.requeues == len(manifest["resumed"]) >= 1
    fit(tiny_mlp, list(steps), runs=runs, name="undisturbed", progress=False)
    rows = [
        [row["train/loss"] for row in read_metrics(runs / name / "metrics.jsonl") if "train/loss" in row]
        for name in ("limited", "undisturbed")
    ]
    assert rows[0] == rows[1]
    weights = [
        load_file(runs / name / "checkpoints" / "00020000" / "weights.safetensors")
        for name in ("limited", "undisturbed")
    ]
    assert all(bool((weights[0][key] == weights[1][key]).all()) for key in weights[1])


@pytest.mark.slow
def test_a_preempted_job_saves_comes_back_and_goes_on(slurm, submit, profile, runs, command) -> None:
    submit(*LONG, "--on", profile(nodes=2, ranks_per_node=1), "strategy=ddp", "--name", "low")
    slurm.wait_for(lambda: checkpoint(runs, "low") >= 20, "a checkpoint", 120)
    slurm("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 5")
    slurm.wait_for(lambda: state(runs, "low") in ("requeued", "preempted", "pending"), "preempted", 120)
    reached = RunFolder(runs / "low").status()["checkpoint"]
    slurm.wait_for(lambda: RunFolder(runs / "low").status().get("step", 0) > reached, "to go on", 120)
    (task,) = board.look(list_records(runs))
    assert task.status.requeues == 1
    resumed = RunFolder(runs / "low").read_json("manifest.json")["resumed"]
    assert [each["at_step"] for each in resumed] == [reached]


@pytest.mark.slow
def test_a_person_can_requeue_a_job(slurm, submit, profile, runs) -> None:
    submit(*LONG, "--on", profile(), "--name", "again")
    slurm.wait_for(lambda: checkpoint(runs, "again") >= 20, "a checkpoint")
    (record,) = list_records(runs)
    slurm("scontrol", "requeue", str(record.native_id()))
    slurm.wait_for(lambda: RunFolder(runs / "again").read_json("manifest.json").get("resumed"), "resumed", 120)
    slurm.wait_for(lambda: state(runs, "again") == "running", "running")


@pytest.mark.slow
def test_a_job_on_a_node_that_dies_goes_on_elsewhere(slurm, submit, profile, runs) -> None:
    submit(*LONG, "--on", profile(), "--name", "moved")
    slurm.wait_for(lambda: checkpoint(runs, "moved") >= 20, "a checkpoint")
    (task,) = board.look(list_records(runs))
    (node,) = task.status.where
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if (line[:1] == ["slurmd"] and node in line) or "slurmstepd" in " ".join(line) or "moved" in line:
            process.kill()
    try:
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=died")
        slurm.wait_for(lambda: RunFolder(runs / "moved").read_json("manifest.json").get("resumed"), "resumed", 120)
        (task,) = board.look(list_records(runs))
        assert task.status.where != (node,)
        assert task.status.requeues == 1
    finally:
        slurm.start_node(node)
        slurm("scontrol", "update", f"nodename={node}", "state=resume")


def test_what_slurm_refuses_is_one_line_and_nothing_is_lost(slurm, submit, profile, runs, command) -> None:
    done = submit("--on", profile(partition="nowhere"), "--name", "bad", code=2)
    assert "invalid partition name specified" in done.stderr.lower()
    assert done.stderr.count("\n") == 1
    (task,) = board.look(list_records(runs))
    assert task.status.state == "failed"
    assert "refused" in task.status.reason


def test_a_waiting_job_says_why(slurm, submit, profile, runs) -> None:
    slurm("sbatch", "--nodes=2", "--exclusive", "--wrap", "sleep 60")
    submit("--on", profile(), "--name", "waits")
    slurm.wait_for(lambda: board.look(list_records(runs))[0].status.reason != "", "a reason")
    (task,) = board.look(list_records(runs))
    assert task.status.state == "pending"
    assert "Resources" in task.status.reason or "Priority" in task.status.reason


@pytest.mark.slow
def test_a_sweep_searches_on_two_machines(slurm, profile, runs, command, tiny_mlp, tmp_path) -> None:
    recipe = tmp_path / "sweep.yaml"
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    changes = {"sweep": {"trials": 6, "space": space, "fuse": "off"}}
    recipe.write_text(yaml.safe_dump({**tiny_mlp, **changes}))
    on = profile(nodes=2, cpus_per_node=1)
    done = command("submit", "sweep", recipe, "trainer.max_steps=1000", "--on", on, "--name", "wide", "--runs", runs)
    assert done.returncode == 0, done.stderr
    waited = command("jobs", "wait", "wide", "--runs", runs, timeout=400)
    assert waited.returncode == 0, command("jobs", "logs", "wide", "--runs", runs).stdout
    shown = json.loads(command("sweeps", "show", "wide", "--runs", runs, "--json").stdout)
    assert shown["counts"]["done"] == 6
    (record,) = list_records(runs)
    assert (record.folder / "ray-token").stat().st_mode & 0o777 == 0o600
    assert not (record.folder / "ray-head").exists()
    joined = (record.folder / "task-1.log").read_text()
    assert "Ray runtime started" in joined
    slurm.wait_for(lambda: not slurm("squeue", "-h").strip(), "the helping machine to leave")
    assert not list(Path("/tmp").glob("headway-ray-*"))
