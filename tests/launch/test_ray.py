"""Ray Jobs on a real cluster on this machine, with a token and without."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import psutil
import pytest
import ray
import yaml

from headway.config.section import validate_section
from headway.config.shipped import shipped_folder
from headway.jobs import board
from headway.jobs.profiles import known_profiles
from headway.jobs.records import list_records
from headway.launch.base import Job
from headway.launch.ray import Config
from headway.run import RunFolder

TOKEN = secrets.token_hex(20)
LONG = ("trainer.max_steps=100000", "trainer.validate_every=20", "trainer.steps_per_call=5", "optim.schedule=constant")


def free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def start_head(folder: Path, **environment: str) -> tuple[str, subprocess.Popen[bytes]]:
    port, dashboard = free_ports(2)
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block",
        f"--port={port}", f"--dashboard-port={dashboard}",
        "--node-ip-address=127.0.0.1", "--num-cpus=2", "--disable-usage-stats", "--object-store-memory=100000000",
        f"--temp-dir={folder}", "--include-dashboard=true", "--dashboard-agent-listen-port=0",
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "head.log").open("w") as log:
        head = subprocess.Popen(
            command, env={**os.environ, "PATH": path, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    return f"http://127.0.0.1:{dashboard}", head


def stop(head: subprocess.Popen[bytes], folder: Path) -> None:
    processes = [head] if head.poll() is None else []
    everything = [psutil.Process(each.pid) for each in processes]
    everything += [child for each in list(everything) for child in each.children(recursive=True)]
    everything += [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(str(folder) in part for part in process.info["cmdline"] or ())
    ]
    for process in everything:
        if process.is_running():
            process.kill()
    head.wait(timeout=20)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[str]:
    pytest.importorskip("aiohttp_cors", reason="Ray's job server is not installed (pip install 'ray[default]')")
    import requests

    # A short path: Ray keeps sockets in it, whose names have at most 107 characters.
    folder = Path("/tmp") / f"hw-ray-{os.getpid()}"
    folder.mkdir()
    address, head = start_head(folder, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
    until = time.monotonic() + 120
    try:
        while True:
            try:
                answer = requests.get(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
                if answer.status_code == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < until, (folder / "head.log").read_text()[-3000:]
            time.sleep(0.5)
        yield address
    finally:
        stop(head, folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def profile(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o600)

    def write(address: str, **settings) -> Path:
        path = tmp_path / "ray-cluster.yaml"
        whole = {
            "kind": "ray",
            "address": address,
            "token_file": str(token),
            "runs": str(tmp_path / "runs"),
            "grace_s": 30,
        }
        path.write_text(yaml.safe_dump({**whole, **settings}))
        return path

    return write


@pytest.mark.slow
def test_a_fit_is_submitted_read_stopped_and_retried(cluster, command, recipe_file, profile, tmp_path) -> None:
    runs = tmp_path / "runs"
    where = profile(cluster)
    done = command("submit", "fit", recipe_file, "--on", where, "--name", "short", "--runs", runs)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1
    assert command("jobs", "wait", "short", "--runs", runs).returncode == 0
    assert "step 30/30" in command("jobs", "logs", "short", "--runs", runs).stdout
    (task,) = board.look(list_records(runs))
    assert len(task.status.where) == 1
    assert RunFolder(runs / "short").read_json("manifest.json")["job"] == task.record.job.id
    # The same job once more is refused by Ray and taken for sent.
    record = task.record
    assert record.profile.find(record.job, record.folder) == record.job.id
    rendering = record.profile.render(record.job, record.folder, runs)
    assert record.profile.send(record.job, rendering, record.folder) == record.job.id
    assert len(board.look(list_records(runs))) == 1

    command("submit", "fit", recipe_file, *LONG, "--on", where, "--name", "long", "--runs", runs)
    until = time.monotonic() + 90
    while RunFolder(runs / "long").status().get("checkpoint", 0) < 20:
        assert time.monotonic() < until
        time.sleep(0.3)
    assert command("jobs", "cancel", "long", "--runs", runs).returncode == 0
    assert command("jobs", "wait", "long", "--runs", runs).returncode == 143
    status = RunFolder(runs / "long").status()
    assert (status["state"], status["checkpoint"]) == ("stopped", status["step"])

    command("submit", "fit", recipe_file, "optim.lr=1e30", "--on", where, "--name", "nan", "--runs", runs)
    assert command("jobs", "wait", "nan", "--runs", runs).returncode == 3
    (task,) = board.look(board.select(runs, ["nan"]))
    assert task.status.reason == "exit code 3: training failed, see the log"
    for path in (runs / ".jobs").rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_a_sweep_runs_on_the_cluster(cluster, command, tiny_mlp, profile, tmp_path) -> None:
    recipe = tmp_path / "sweep.yaml"
    space = {"optim.lr": {"loguniform": [1e-4, 1e-2]}}
    recipe.write_text(yaml.safe_dump({**tiny_mlp, "sweep": {"trials": 3, "space": space, "fuse": "off"}}))
    runs = tmp_path / "runs"
    done = command("submit", "sweep", recipe, "--on", profile(cluster), "--name", "found", "--runs", runs)
    assert done.returncode == 0, done.stderr
    waited = command("jobs", "wait", "found", "--runs", runs, timeout=240)
    assert waited.returncode == 0, command("jobs", "logs", "found", "--runs", runs).stdout
    shown = json.loads(command("sweeps", "show", "found", "--runs", runs, "--json").stdout)
    assert shown["counts"]["done"] == 3


@pytest.mark.slow
def test_a_wrong_token_is_one_line(cluster, command, recipe_file, profile, tmp_path) -> None:
    where = profile(cluster)
    (tmp_path / "token").write_text("wrong")
    done = command("submit", "fit", recipe_file, "--on", where, "--runs", tmp_path / "runs")
    assert done.returncode == 2
    assert "wants another token" in done.stderr
    assert done.stderr.count("\n") == 1
    (tmp_path / "token").chmod(0o644)
    done = command("submit", "fit", recipe_file, "--on", where, "--runs", tmp_path / "runs")
    assert "can be read by others" in done.stderr


@pytest.mark.slow
def test_a_cluster_that_asks_for_no_token_is_refused_unless_told(command, recipe_file, profile, tmp_path) -> None:
    pytest.importorskip("aiohttp_cors", reason="Ray's job server is not installed (pip install 'ray[default]')")
    import requests

    folder = Path("/tmp") / f"hw-open-{os.getpid()}"
    folder.mkdir()
    address, head = start_head(folder, RAY_AUTH_MODE="disabled")
    try:
        until = time.monotonic() + 120
        while True:
            try:
                if requests.get(f"{address}/api/version", timeout=5).status_code == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < until, (folder / "head.log").read_text()[-3000:]
            time.sleep(0.5)
        line = ("submit", "fit", recipe_file, "--on", profile(address), "--runs", tmp_path / "runs", "--name", "open")
        done = command(*line)
        assert done.returncode == 2
        assert "asks for no token" in done.stderr
        assert not (tmp_path / "runs").exists()
        done = command(*line, "--insecure")
        assert done.returncode == 0, done.stderr
        assert command("jobs", "wait", "open", "--runs", tmp_path / "runs").returncode == 0
    finally:
        stop(head, folder)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 2}, "trains on one node"),
        ({"secrets": ["WANDB_API_KEY"]}, "would stand in Ray's list of jobs"),
        ({"time_limit": "1h"}, "Ray Jobs have none"),
        ({"runs": None}, "runs is missing"),
        ({"address": "head:8265"}, "should be the dashboard's"),
        ({"address": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_what_ray_cannot_do_is_one_line(recipe_file, tmp_path, profile, capsys, settings, message: str) -> None:
    from headway.cli import run

    where = profile(**{"address": "http://127.0.0.1:9", **settings})
    line = ["submit", "fit", str(recipe_file), "strategy=ddp", "--on", str(where), "--runs", str(tmp_path / "runs")]
    assert run(line) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.quick
def test_the_request_is_the_one_that_was_read() -> None:
    tree = {
        "kind": "ray", "address": "http://head:8265", "runs": "/shared/runs", "gpus_per_node": 8, "cpus_per_node": 64,
        "memory_gb": 500, "environment": {"NOTE": "$(touch planted) '\""},
    }  # fmt: skip
    profile = validate_section(Config, tree, path="profile")
    job = Job(
        "gpt-1", "fit", ("gpt-seed0", "gpt-seed1"), group="gpt", overrides=(("trainer.seed=0",), ("trainer.seed=1",))
    )
    text = profile.render(job, Path("/x"), Path("/y")).files["ray-job.json"]
    assert text == (Path(__file__).parent / "golden" / "ray-two-seeds.json").read_text()


def test_the_cluster_file_that_comes_along_is_one_that_ray_takes() -> None:
    path = shipped_folder("cluster") / "ray" / "up" / "cluster.yaml"
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    tree = yaml.safe_load(path.read_text())
    assert list(jsonschema.Draft7Validator(schema).iter_errors(tree)) == []
    starts = [line for key in ("head", "worker") for line in tree[f"{key}_start_ray_commands"] if "ray start" in line]
    assert len(starts) == 2
    assert all(line.startswith("RAY_AUTH_MODE=token ") for line in starts)
    assert path not in known_profiles().values()
