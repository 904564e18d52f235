"""Jobs: those of a real launcher, and one whose launcher cannot be asked."""

import json
import time

import psutil
import pytest

from headway.jobs import board
from headway.jobs.records import list_records

LONG = ("trainer.max_steps=100000", "trainer.validate_every=20", "trainer.steps_per_call=5", "optim.schedule=constant")


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    yield folder
    board.cancel(list_records(folder))
    for record in list_records(folder):
        sent = record.sent()
        pid = int(sent.native_id.partition("@")[0]) if sent is not None else -1
        if pid > 0 and psutil.pid_exists(pid):
            for process in psutil.Process(pid).children(recursive=True):
                process.kill()


def wait_for(server, truth, timeout_s=120):
    until = time.monotonic() + timeout_s
    while not truth(jobs := server.get("/api/jobs")["jobs"]):
        assert time.monotonic() < until, jobs
        time.sleep(0.3)
    return jobs


def test_a_job_is_seen_read_cancelled_and_retried(command, recipe_file, runs, serve):
    with serve(runs) as server:
        assert server.get("/api/jobs") == {"jobs": [], "launchers": []}
        sent = command("submit", "fit", recipe_file, *LONG, "--on", "local", "--name", "long", "--runs", runs)
        assert sent.returncode == 0, sent.stderr
        (job,) = wait_for(server, lambda jobs: jobs and jobs[0]["state"] == "running" and jobs[0]["step"])
        assert (job["run"], job["launcher"], job["task"]) == ("long", "local", 0)
        assert server.get("/api/runs?q=id=long")["rows"][0]["job"] == job["id"]
        assert server.post(f"/api/job/{job['id']}/retry").status == 400
        log = server.get(f"/api/job/{job['id']}/log?task=0")
        assert "/100000" in log["text"]
        assert log["next"] == len(log["text"].encode())
        assert server.post(f"/api/job/{job['id']}/cancel").json() == {"result": "cancelled"}
        (job,) = wait_for(server, lambda jobs: jobs[0]["state"] == "cancelled")
        answer = server.post(f"/api/job/{job['id']}/retry")
        assert answer.status == 200, answer.body
        jobs = wait_for(server, lambda jobs: len(jobs) == 2 and jobs[0]["state"] == "running")
        assert jobs[0]["id"] == answer.json()["result"]
        assert "goes on as" in server.post(f"/api/job/{job['id']}/retry").json()["error"]
        assert server.post(f"/api/job/{jobs[0]['id']}/cancel").status == 200


def test_an_arrays_tasks_have_logs_of_their_own(command, recipe_file, runs, serve):
    sent = command("submit", "fit", recipe_file, "--on", "local", "--seeds", "3,5", "--name", "two", "--runs", runs)
    assert sent.returncode == 0, sent.stderr
    with serve(runs) as server:
        jobs = wait_for(server, lambda jobs: [job["state"] for job in jobs] == ["done", "done"])
        assert [(job["run"], job["task"]) for job in jobs] == [("two-seed3", 0), ("two-seed5", 1)]
        assert {job["group"] for job in jobs} == {"two"}
        name = jobs[1]["id"].replace("/", "%2F")
        assert "two-seed5" in server.get(f"/api/job/{name}/log")["text"]
        assert server.ask(f"/api/job/{name}/log?task=2").status == 400
        assert "all of it is done" in server.post(f"/api/job/{name}/retry").json()["error"]


def test_a_launcher_that_cannot_be_asked_is_told_and_its_jobs_are_as_last_seen(command, recipe_file, runs, serve):
    sent = command("submit", "fit", recipe_file, "--on", "local", "--name", "far", "--runs", runs)
    assert sent.returncode == 0, sent.stderr
    (record,) = list_records(runs)
    file = record.folder / "job.json"
    own = file.read_text()
    # The same record as a cluster's, whose login node is not there.
    profile = {"kind": "slurm", "host": "no.such.host.invalid", "folder": "/nowhere", "runs": "/nowhere"}
    file.write_text(json.dumps({**json.loads(own), "profile": profile}))
    try:
        with serve(runs) as server:
            (job,) = server.get("/api/jobs")["jobs"]
            assert (job["run"], job["launcher"]) == ("far", "slurm")
            until = time.monotonic() + 60
            while (told := server.get("/api/jobs")["launchers"]) == [{"name": "slurm", "error": None}]:
                assert time.monotonic() < until
                time.sleep(0.3)
            assert told[0]["error"]
            assert server.get("/api/jobs")["jobs"][0]["state"] in ("pending", "running")
    finally:
        file.write_text(own)
