"""Jobs under a real Slurm: two slurmd on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
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
    # What is left need not save: a run that has only just started would take its time to.
    slurm("scancel", "--quiet", "--signal=KILL", "--full", "--state=running", "--user=root")
    slurm("scancel", "--quiet", "--user=root")
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


@contextmanager
def standing_still(job: str) -> Iterator[None]:
    """Stops a job's training processes; what they are told meanwhile they hear afterwards."""
    found = [process for process in psutil.process_iter() if trains_in(process, job)]
    assert found
    for process in found:
        process.suspend()
    yield
    for process in found:
        process.resume()


def trains_in(process: psutil.Process, job: str) -> bool:
    try:
        return "fit" in process.cmdline() and process.environ().get("SLURM_JOB_ID") == job
    except psutil.Error:
        return False


def time_limit_is_close(slurm, job: str) -> bool:
    """Returns whether a job of one minute has been warned, 25 seconds before its end or earlier."""
    ran = re.search(r"RunTime=00:(\d\d):(\d\d) ", slurm("scontrol", "show", "job", job))
    return ran is not None and 60 * int(ran[1]) + int(ran[2]) >= 40


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
    # Slurm counts limits in minutes, and a fast machine is done in one: this job stands still until it has been warned.
    steps = ("trainer.max_steps=20000", "trainer.validate_every=1000", "trainer.steps_per_call=10")
    submit(*steps, "--on", profile(time_limit="1m", grace_s=25), "--name", "limited")
    (record,) = list_records(runs)
    job = str(record.native_id())
    slurm.wait_for(lambda: checkpoint(runs, "limited") >= 1000, "a checkpoint")
    with standing_still(job):
        slurm.wait_for(lambda: time_limit_is_close(slurm, job), "the warning", 120)
    slurm.wait_for(lambda: "Restarts=1 " in slurm("scontrol", "show", "job", job), "a requeue", 180)
    # Once shows it; on a busy machine, a minute at a time, it would go on for very long.
    slurm("scontrol", "update", f"jobid={job}", "timelimit=30")
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
    slurm("sbatch", "--output=/dev/null", "--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 5")
    slurm.wait_for(lambda: state(runs, "low") in ("requeued", "preempted", "pending"), "preempted", 120)
    reached = RunFolder(runs / "low").status()["checkpoint"]
    slurm.wait_for(lambda: RunFolder(runs / "low").status().get("step", 0) > reached, "to go on", 120)
    (task,) = board.look(list_records(runs))
    assert task.status.requeues == 1
    resumed = RunFolder(runs / "low").read_json("manifest.json")["resumed"]
    assert [each["at_step"] for each in resumed] == [reached]


@pytest.mark.slow
def test_a_job_that_is_requeued_by_hand_goes_on_as_the_same_wandb_run(slurm, submit, profile, runs) -> None:
    submit(*LONG, "track.wandb=offline", "--on", profile(), "--name", "again")
    slurm.wait_for(lambda: checkpoint(runs, "again") >= 20, "a checkpoint")
    (record,) = list_records(runs)
    slurm("scontrol", "requeue", str(record.native_id()))
    slurm.wait_for(lambda: RunFolder(runs / "again").read_json("manifest.json").get("resumed"), "resumed", 120)
    slurm.wait_for(lambda: state(runs, "again") == "running", "running")
    folder = runs / "again" / "wandb"
    slurm.wait_for(lambda: len(list(folder.glob("offline-run-*"))) == 2, "what W&B goes on with")
    assert {path.name.rpartition("-")[2] for path in folder.glob("offline-run-*")} == {"again"}


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


@pytest.fixture
def login_node(tmp_path: Path, slurm, monkeypatch) -> Iterator[subprocess.Popen[bytes]]:
    """A real sshd on this machine; `ssh login` reaches it, as if by the person's own ~/.ssh/config."""
    missing = [name for name in ("sshd", "ssh", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (Debian: openssh-server, openssh-client)")
    folder = tmp_path / "ssh"
    folder.mkdir(mode=0o700)
    for key in ("host", "mine"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True, timeout=30)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    (folder / "sshd_config").write_text(
        f"""Port {port}
ListenAddress 127.0.0.1
HostKey {folder / "host"}
AuthorizedKeysFile {folder / "mine.pub"}
PidFile {folder / "pid"}
StrictModes no
UsePAM no
PasswordAuthentication no
SetEnv SLURM_CONF={slurm.folder / "slurm.conf"} PATH={Path(sys.executable).parent}:{os.environ["PATH"]}
"""
    )
    (folder / "ssh_config").write_text(
        f"""Host login
  HostName 127.0.0.1
  Port {port}
  User root
  IdentityFile {folder / "mine"}
  IdentitiesOnly yes
  UserKnownHostsFile {folder / "known"}
  StrictHostKeyChecking accept-new
"""
    )
    (folder / "bin").mkdir()
    own = folder / "bin" / "ssh"
    own.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n')
    own.chmod(0o700)
    monkeypatch.setenv("PATH", f"{own.parent}:{os.environ['PATH']}")
    # sshd starts itself anew for each connection, by its whole path.
    with (folder / "sshd.log").open("w") as log:
        daemon = subprocess.Popen([shutil.which("sshd"), "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    try:
        slurm.wait_for(lambda: subprocess.run(["ssh", "login", "true"], check=False).returncode == 0, "sshd")
        yield daemon
    finally:
        daemon.kill()
        daemon.wait(timeout=10)


@pytest.mark.slow
def test_jobs_go_through_a_login_node_by_the_persons_own_ssh(
    slurm, login_node, submit, profile, runs, command, tmp_path, monkeypatch
) -> None:
    canary = secrets.token_hex(12)
    monkeypatch.setenv("CANARY_TOKEN", canary)
    # What runs over there must not know it from here.
    far, there = tmp_path / "far" / "jobs", tmp_path / "far" / "runs"
    settings = {"host": "login", "folder": str(far), "runs": str(there), "secrets": ["CANARY_TOKEN"]}
    on = profile(**settings, setup=["printf %s $CANARY_TOKEN | sha256sum"])
    submit("--on", on, "--name", "near")
    # Asked for over there, and answered with what it is here.
    waited = command("jobs", "wait", "near", "--runs", runs)
    assert waited.returncode == 0, waited.stderr
    said = command("jobs", "logs", "near", "--follow", "--runs", runs).stdout
    assert "step 30/30" in said
    assert hashlib.sha256(canary.encode()).hexdigest() in said
    assert RunFolder(there / "near").status()["state"] == "done"
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert canary.encode() not in path.read_bytes(), path
    for path in far.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path

    submit(*LONG, "--on", on, "--name", "long")
    slurm.wait_for(lambda: checkpoint(there, "long") >= 20, "a checkpoint")
    assert command("jobs", "cancel", "long", "--runs", runs).returncode == 0
    assert command("jobs", "wait", "long", "--runs", runs).returncode == 143
    slurm.wait_for(lambda: RunFolder(there / "long").status()["state"] == "stopped", "the run to stop")

    submit(*LONG, "--on", on, "--name", "unseen")
    slurm.wait_for(lambda: state(runs, "unseen") == "running", "running")
    login_node.kill()
    login_node.wait(timeout=10)
    (task,) = board.look(board.select(runs, ["unseen"]))
    assert task.status.state == "running"
    assert "last seen so: host: login cannot be reached" in task.status.reason


def test_what_slurm_refuses_is_one_line_and_nothing_is_lost(slurm, submit, profile, runs, command) -> None:
    done = submit("--on", profile(partition="nowhere"), "--name", "bad", code=2)
    assert "invalid partition name specified" in done.stderr.lower()
    assert done.stderr.count("\n") == 1
    (task,) = board.look(list_records(runs))
    assert task.status.state == "failed"
    assert "refused" in task.status.reason


def test_a_waiting_job_says_why(slurm, submit, profile, runs) -> None:
    slurm("sbatch", "--output=/dev/null", "--nodes=2", "--exclusive", "--wrap", "sleep 60")
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
