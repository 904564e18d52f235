"""A Ray cluster of two nodes on this machine, of which one is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from headway.config.errors import UserError
from headway.run import RunFolder
from headway.sweep import sweep

TREE: dict[str, Any] = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "adamw", "lr": 0.01},
    "trainer": {"max_epochs": 2, "batch_size": 128, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {"trials": 2, "fuse": "off", "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}}},
}
STARTS_WITHIN_S = 120


def test_an_address_where_no_cluster_is_takes_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--address: no Ray cluster answers at 127.0.0.1:1 "):
        sweep(TREE, address="127.0.0.1:1", runs=tmp_path, name="s", progress=False)


@pytest.fixture
def ray_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a folder in which Ray, here and in what is started here, keeps and finds what it notes of itself."""
    # Not pytest's: the paths of sockets may have 107 characters.
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    monkeypatch.setenv("RAY_TMPDIR", folder)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield Path(folder)
    shutil.rmtree(folder, ignore_errors=True)


def test_a_cluster_that_is_gone_and_left_a_note_takes_one_line(tmp_path: Path, ray_tmpdir: Path) -> None:
    note = ray_tmpdir / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text("127.0.0.1:1")
    code = f"from headway.sweep import sweep; sweep({TREE!r}, address='auto', name='s', progress=False)"
    # In a process of its own: Ray ends the one that asks a head that does not answer.
    done = subprocess.run([sys.executable, "-c", FINDS_NONE + code], cwd=tmp_path, capture_output=True, text=True)
    assert "UserError: --address: no Ray cluster answers at auto (" in done.stderr


# Other tests may have a Ray of their own on this machine, which "auto" would rather have than one that is gone.
FINDS_NONE = "import ray._private.services as services; services.find_gcs_addresses = set; "


@pytest.mark.slow
def test_auto_joins_the_cluster_that_was_started_on_this_machine(tmp_path: Path, ray_tmpdir: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TREE))
    options = {"port": free_port(), "ray-client-server-port": free_port(), "dashboard-agent-listen-port": free_port()}
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    start += ["--node-ip-address=127.0.0.1", "--include-dashboard=false", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*start, *(f"--{name}={value}" for name, value in options.items())], stdout=subprocess.DEVNULL, cwd=tmp_path
    )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not (ray_tmpdir / "ray" / "ray_current_cluster").exists():
            assert head.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        command = [sys.executable, "-m", "headway", "sweep", "r.yaml", "--name", "s", "--address", "auto", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        sessions = list((ray_tmpdir / "ray").glob("session_2*"))
        alive = head.poll() is None
    finally:
        end(head)
    assert done.returncode == 0, done.stderr
    assert [trial["status"] for trial in json.loads(done.stdout.splitlines()[-1])["trials"]] == ["done", "done"]
    # It started no Ray of its own, and left the cluster as it was.
    assert len(sessions) == 1
    assert alive


def end(process: subprocess.Popen[Any]) -> None:
    """Ends a process and all that it started."""
    family = [psutil.Process(process.pid)] if process.poll() is None else []
    family += family[0].children(recursive=True) if family else []
    process.terminate()
    psutil.wait_procs(family, timeout=20)
    for member in family:
        if member.is_running():
            member.kill()
    process.wait()


@pytest.mark.slow
def test_a_node_of_the_cluster_is_killed_and_its_trial_goes_on_elsewhere(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    tree = {**TREE, "trainer": {**TREE["trainer"], "max_epochs": 120}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(tree))
    handler = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        command = [sys.executable, "-m", "headway", "sweep", "r.yaml", "--name", "s", "--address", cluster.address]
        process = subprocess.Popen(
            [*command, "--json"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        runs, deadline = tmp_path / "runs", time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline and not all(
            RunFolder(runs / f"s-000{n}").status().get("checkpoint", 0) > 60 for n in (0, 1)
        ):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        said, errors = process.communicate(timeout=300)
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)  # Ray's nodes leave one of their own behind
    assert process.returncode == 0, errors
    trials = json.loads(said.splitlines()[-1])["trials"]
    assert [trial["status"] for trial in trials] == ["done", "done"]
    resumed = [RunFolder(Path(trial["run_dir"])).read_json("manifest.json").get("resumed", []) for trial in trials]
    assert sorted(len(times) for times in resumed) == [0, 1]
    assert next(times for times in resumed if times)[0]["at_step"] >= 60


# Ray does not close the files of a client server that a test's cluster has started.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_through_rays_client_the_sweep_runs_on_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    # The cluster starts a process for each client, and gives it half a minute; a busy machine takes longer.
    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", str(STARTS_WITHIN_S))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TREE))
    handler, port = signal.getsignal(signal.SIGTERM), free_port()
    head = {"num_cpus": 2, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        command = [sys.executable, "-m", "headway", "sweep", "r.yaml", "--name", "s", "--address"]
        wait_for_client_server(port)
        done = subprocess.run(
            [*command, f"ray://127.0.0.1:{port}", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        again = subprocess.run(
            [*command[:4], "--resume", "s", "--address", f"ray://127.0.0.1:{port}", "sweep.trials=1"],
            cwd=tmp_path, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        more = ["trainer.max_epochs=100000"]
        long = subprocess.Popen(
            [*command[:4], "r.yaml", "--name", "l", "--address", f"ray://127.0.0.1:{port}", *more],
            cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        whole, deadline = RunFolder(tmp_path / "runs" / "l"), time.monotonic() + STARTS_WITHIN_S
        while not whole.status().get("best") and long.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        long.send_signal(signal.SIGINT)
        _, said = long.communicate(timeout=100)
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)
    assert long.returncode == 130, said
    assert "headway sweep --resume l goes on" in said.splitlines()[-1]
    assert whole.status()["state"] == "stopped"
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [trial["status"] for trial in found["trials"]] == ["done", "done"]
    assert found["best"]["run_id"].startswith("s-000")
    assert "s  trials are a process each" in done.stderr
    assert RunFolder(tmp_path / "runs" / "s").status()["state"] == "done"
    assert again.returncode == 2
    assert "sweep.trials: 1, but 2 have been proposed already" in again.stderr


# Ray does not close the files of a client server that a test's cluster has started.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_client_that_is_killed_leaves_a_sweep_that_stopped_and_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_CLIENT_SERVER_CHECK_CHANNEL_TIMEOUT_S", str(STARTS_WITHIN_S))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**TREE, "trainer": {**TREE["trainer"], "max_epochs": 100_000}}))
    handler, port = signal.getsignal(signal.SIGTERM), free_port()
    head = {"num_cpus": 2, "include_dashboard": False, "ray_client_server_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    command = [sys.executable, "-m", "headway", "sweep", "--address", f"ray://127.0.0.1:{port}"]
    whole, run = (RunFolder(tmp_path / "runs" / name) for name in ("s", "s-0000"))
    clients = []
    try:
        wait_for_client_server(port)
        for more in (["r.yaml", "--name", "s"], ["--resume", "s"]):
            reached = run.status().get("checkpoint", 0)
            clients.append(subprocess.Popen([*command, *more], cwd=tmp_path, stderr=subprocess.PIPE, text=True))
            wait_until(lambda reached=reached: run.status().get("checkpoint", 0) > reached, clients[-1])
            clients[-1].kill()
            clients[-1].communicate()
            wait_until(lambda: whole.status().get("state") != "running")
            assert whole.status()["state"] == "stopped"
            assert run.status()["state"] == "stopped"
            whole.wait_until_free(STARTS_WITHIN_S)
    finally:
        for client in clients:
            end(client)
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)
    (resumed,) = run.read_json("manifest.json")["resumed"]
    assert resumed["at_step"] > 0
    assert "headway sweep --resume s goes on" in whole.status()["reason"]


def wait_until(holds: Callable[[], bool], process: subprocess.Popen[Any] | None = None) -> None:
    """Returns once something holds, while a process runs."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while not holds():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_client_server(port: int) -> None:
    """Returns once a client is let in: the port is open before all of what Ray needs for that has started.

    Whoever comes too early may wait for as long as a client may take, and is let in when it comes again.
    """
    enter = [sys.executable, "-c", f"import ray; ray.init('ray://127.0.0.1:{port}')"]
    deadline = time.monotonic() + 2 * STARTS_WITHIN_S
    while time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if subprocess.run(enter, capture_output=True, timeout=STARTS_WITHIN_S / 4).returncode == 0:
                return
    raise AssertionError(f"no client is let in at port {port}")
