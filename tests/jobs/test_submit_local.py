"""`headway submit` and `headway jobs` on this machine, as a person uses them."""

from __future__ import annotations

import json
import secrets
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from headway.jobs import board
from headway.jobs.records import JobRecord, list_records
from headway.run import RunFolder

CANARY = secrets.token_hex(12)
"""Made up each time: a patch of uncommitted changes may hold this very file."""
LONG = ("trainer.max_steps=100000", "trainer.validate_every=20", "trainer.steps_per_call=5", "optim.schedule=constant")


@pytest.fixture
def runs(tmp_path: Path):
    folder = tmp_path / "runs"
    yield folder
    board.cancel(list_records(folder))
    for record in list_records(folder):
        sent = record.sent()
        if sent is not None and psutil.pid_exists(int(sent.native_id.partition("@")[0])):
            for process in psutil.Process(int(sent.native_id.partition("@")[0])).children(recursive=True):
                process.kill()


def state_of(record: JobRecord) -> list[str]:
    return [task.status.state for task in board.look([record])]


def wait_for(truth, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not truth():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_job_is_submitted_watched_waited_for_and_read(command, recipe_file, runs) -> None:
    sent = command("submit", "fit", recipe_file, "--on", "local", "--seeds", "3,5", "--name", "two", "--runs", runs)
    assert sent.returncode == 0, sent.stderr
    listed = json.loads(command("jobs", "--runs", runs, "--json").stdout)["jobs"]
    assert [task["run"] for task in listed] == ["two-seed3", "two-seed5"]
    waited = command("jobs", "wait", "two", "--runs", runs, "--json")
    assert waited.returncode == 0, waited.stderr
    tasks = json.loads(waited.stdout)["jobs"]
    assert [(task["state"], task["step"], task["exit_code"]) for task in tasks] == [("done", 30, 0)] * 2
    losses = {RunFolder(runs / f"two-seed{seed}").status()["final"]["train/loss"] for seed in (3, 5)}
    assert len(losses) == 2
    assert "step 30/30" in command("jobs", "logs", "two-seed5", "--runs", runs).stdout
    assert "two-seed3" in command("jobs", "logs", "two-seed3", "--rank", "0", "--runs", runs).stdout
    shown = command("jobs", "status", "two", "--runs", runs)
    assert "2 jobs: 2 done" in shown.stderr
    assert shown.stdout.count("done") == 2
    again = command("jobs", "retry", "two", "--runs", runs)
    assert "all of it is done" in again.stderr


def test_a_cancelled_job_has_saved_and_a_retry_goes_on(command, recipe_file, runs) -> None:
    arguments = ("submit", "fit", recipe_file, *LONG, "--on", "local", "--name", "long", "--runs", runs)
    assert command(*arguments).returncode == 0
    (record,) = list_records(runs)
    wait_for(lambda: RunFolder(runs / "long").status().get("checkpoint", 0) >= 20)
    refused = command("jobs", "retry", "long", "--runs", runs)
    assert refused.returncode == 2
    assert "has not ended" in refused.stderr
    assert command("jobs", "cancel", "long", "--runs", runs).returncode == 0
    waited = command("jobs", "wait", "long", "--runs", runs)
    assert waited.returncode == 143
    assert state_of(record) == ["cancelled"]
    status = RunFolder(runs / "long").status()
    assert status["state"] == "stopped"
    again = command("jobs", "retry", "long", "--runs", runs)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: RunFolder(runs / "long").status().get("step", 0) > status["step"])
    assert RunFolder(runs / "long").read_json("manifest.json")["resumed"][0]["at_step"] == status["step"]
    newest = list_records(runs)[0]
    assert RunFolder(runs / "long").read_json("manifest.json")["job"] == newest.job.id
    assert record.retried_as() == newest.job.id


def test_a_failed_job_says_what_its_exit_code_means(command, recipe_file, runs) -> None:
    command("submit", "fit", recipe_file, "optim.lr=1e30", "--on", "local", "--name", "nan", "--runs", runs)
    waited = command("jobs", "wait", "nan", "--runs", runs)
    assert waited.returncode == 3
    (task,) = board.look(list_records(runs))
    assert task.status.reason == "exit code 3: training failed, see the log"


def test_a_sweep_is_one_job(command, tiny_mlp, runs, tmp_path) -> None:
    # A sampled kind must not meet the defaults of the kind it replaces, in the recipe that travels.
    space = {"init.kind": {"choice": ["normal", "orthogonal"]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}
    recipe = tmp_path / "sweep.yaml"
    recipe.write_text(json.dumps({**tiny_mlp, "sweep": {"trials": 3, "space": space, "fuse": "on"}}))
    sent = command("submit", "sweep", recipe, "--on", "local", "--name", "search", "--runs", runs)
    assert sent.returncode == 0, sent.stderr
    assert command("jobs", "wait", "search", "--runs", runs).returncode == 0
    (task,) = board.look(list_records(runs))
    assert task.progress() == "3 of 3 trials"
    assert task.metric().startswith(("val/loss 0.", "val/loss 1.", "val/loss 2."))
    assert "search-0001" in command("jobs", "logs", "search", "--runs", runs).stdout
    bad = command("submit", "sweep", recipe, "sweep.space={init.gian: {choice: [1.0]}}", "--on", "local")
    assert bad.returncode == 2
    assert "did you mean" in bad.stderr


def test_the_time_limit_ends_a_job_saved(command, recipe_file, runs) -> None:
    profile = runs.parent / "short.yaml"
    profile.write_text("kind: local\ntime_limit: 12s\n")
    command("submit", "fit", recipe_file, *LONG, "--on", profile, "--name", "short", "--runs", runs)
    assert command("jobs", "wait", "short", "--runs", runs).returncode != 0
    status = RunFolder(runs / "short").status()
    assert status["state"] == "stopped"
    assert status["checkpoint"] == status["step"]


def test_a_job_whose_machine_went_down_is_lost_not_running(command, recipe_file, runs) -> None:
    command("submit", "fit", recipe_file, *LONG, "--on", "local", "--name", "gone", "--runs", runs)
    (record,) = list_records(runs)
    wait_for(lambda: state_of(record) == ["running"])
    sent = record.sent()
    assert sent is not None
    script = psutil.Process(int(sent.native_id.partition("@")[0]))
    everything = [script, *script.children(recursive=True)]
    for process in everything:
        process.kill()
    psutil.wait_procs(everything, timeout=10)
    assert state_of(record) == ["lost"]


def test_a_sender_that_dies_before_sending_loses_nothing_and_doubles_nothing(recipe_file, runs, command) -> None:
    """The record is there and the launcher never heard of it; then the other way round."""
    code = """
import os, sys
from headway.launch import local
send = local.Config.send
def die(self, *arguments):
    if sys.argv.pop() == "after":
        send(self, *arguments)
    os.kill(os.getpid(), 9)
local.Config.send = die
from headway.cli import run
run(sys.argv[1:-1])
"""
    for moment, state in (("before", "lost"), ("after", "done")):
        done = subprocess.run(
            [
                sys.executable, "-c", code, "submit", "fit", str(recipe_file), "--on", "local", "--name", moment,
                "--runs", str(runs), moment,
            ],
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        (record,) = [record for record in list_records(runs) if record.job.names == (moment,)]
        assert record.native_id() is None
        list(board.wait([record], every_s=0.2))
        assert state_of(record) == [state]
    again = command("jobs", "retry", "before", "--runs", runs)
    assert again.returncode == 0, again.stderr
    assert command("jobs", "wait", list_records(runs)[0].job.id, "--runs", runs).returncode == 0


def test_no_secret_is_written_down(command, recipe_file, runs) -> None:
    profile = runs.parent / "secret.yaml"
    profile.write_text("kind: local\nsecrets: [CANARY_TOKEN]\n")
    line = ("submit", "fit", recipe_file, "--on", profile, "--name", "quiet", "--runs", runs)
    dry = command(*line, "--dry-run", CANARY_TOKEN=CANARY)
    assert CANARY not in dry.stdout + dry.stderr
    assert command(*line, CANARY_TOKEN=CANARY).returncode == 0
    assert command("jobs", "wait", "quiet", "--runs", runs).returncode == 0
    for path in [path for path in runs.rglob("*") if path.is_file()]:
        assert CANARY.encode() not in path.read_bytes(), path
    for path in (runs / ".jobs").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.slow
def test_a_hundred_submissions_from_ten_processes_are_a_hundred_jobs(recipe_file, runs) -> None:
    code = """
import sys
from pathlib import Path
from headway.jobs.profiles import load_profile
from headway.jobs.submit import prepare_submission, submit
profile = load_profile("local", ["environment.PATH=/nowhere"])
for index in range(10):
    submission = prepare_submission(
        "fit", sys.argv[1], profile=profile, profile_name="local", runs=Path(sys.argv[2]), name="same", group="hundred"
    )
    submit(submission)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, str(recipe_file), str(runs)]) for _ in range(10)]
    assert [process.wait(timeout=300) for process in processes] == [0] * 10
    records = list_records(runs)
    assert len({record.job.id for record in records}) == len(records) == 100
    assert len({record.native_id() for record in records}) == 100
    list(board.wait(records, every_s=1))
    assert {task.status.exit_code for task in board.look(records)} == {127}
    assert {record.job.id for record in board.select(runs, ["hundred"])} == {record.job.id for record in records}
