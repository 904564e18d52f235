"""A Ray cluster of two nodes on this machine, of which one is killed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_client_server(port: int) -> None:
    """Returns once a client is let in: the port is open before all of what Ray needs for that has started."""
    deadline, enter = time.monotonic() + STARTS_WITHIN_S, f"import ray; ray.init('ray://127.0.0.1:{port}')"
    while (code := subprocess.run([sys.executable, "-c", enter], capture_output=True).returncode) != 0:
        assert time.monotonic() < deadline, code
