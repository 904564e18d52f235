"""A real Slurm on this machine for the tests: munge, slurmctld and two slurmd, without systemd, on ports of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_DAEMONS = ("munged", "slurmctld", "slurmd")


@dataclass
class Slurm:
    """A running cluster."""

    folder: Path
    processes: list[subprocess.Popen[bytes]]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __call__(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def start_node(self, name: str) -> subprocess.Popen[bytes]:
        node = subprocess.Popen(
            ["slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf")],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.append(node)
        return node

    def wait_for(self, truth, what: str, timeout_s: float = 60) -> None:
        until = time.monotonic() + timeout_s
        while not truth():
            if time.monotonic() > until:
                logs = "\n".join(path.read_text()[-2000:] for path in (self.folder / "log").glob("*.log"))
                pytest.fail(f"{what}: not within {timeout_s} s\n{logs}")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [name for name in _DAEMONS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (Debian: slurm-wlm, munge)")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    # Everything above the munge socket must be passable for munge's own user; pytest's folders are their owner's alone.
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077 == 0:
            path.chmod(0o711)
    cluster = Slurm(folder, [])
    os.environ["PATH"] += ":/usr/sbin"
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        _start(cluster)
        yield cluster
    finally:
        os.environ.pop("SLURM_CONF", None)
        _stop(cluster)


def _start(cluster: Slurm) -> None:
    folder, host = cluster.folder, socket.gethostname().partition(".")[0]
    for name in ("state", "spool", "log"):
        (folder / name).mkdir()
    munge = folder / "munge"
    munge.mkdir()
    (munge / "key").write_bytes(os.urandom(1024))
    (munge / "key").chmod(0o400)
    for path in (munge / "key", munge):
        shutil.chown(path, "munge", "munge")
    munge.chmod(0o711)
    options = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    cluster.processes.append(
        subprocess.Popen(
            [
                "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground", "--force",
                *(f"--{option}={munge / name}" for option, name in options.items()),
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
    )  # fmt: skip
    cluster.wait_for(lambda: (munge / "socket").exists(), "munge")
    first = _free_port()
    nodes = "".join(
        f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs=2 RealMemory=4000\n"
        for node in (1, 2)
    )
    (folder / "slurm.conf").write_text(
        f"""ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge / "socket"},cred_expire=5
CredType=cred/munge
StateSaveLocation={folder / "state"}
SlurmdSpoolDir={folder / "spool"}/%n
SlurmctldPidFile={folder / "slurmctld.pid"}
SlurmdPidFile={folder / "slurmd.%n.pid"}
SlurmctldLogFile={folder / "log" / "slurmctld.log"}
SlurmdLogFile={folder / "log"}/slurmd.%n.log
SlurmdTimeout=6
SlurmctldTimeout=10
KillWait=30
MinJobAge=300
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=25
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
    )
    cluster.processes.append(
        subprocess.Popen(
            ["slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf")],
            env=cluster.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )
    )  # fmt: skip
    for name in ("n1", "n2"):
        cluster.start_node(name)

    def up() -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "main", "-o", "%T"],
            env=cluster.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.split() == ["idle", "idle"]

    cluster.wait_for(up, "two idle nodes", 90)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _stop(cluster: Slurm) -> None:
    everything = []
    for process in cluster.processes:
        if process.poll() is None:
            everything += [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for process in everything:
        if process.is_running():
            process.kill()
    for started in cluster.processes:
        started.wait(timeout=10)
    # slurmstepd makes itself nobody's child.
    for process in psutil.process_iter(["cmdline"]):
        if any(str(cluster.folder) in part for part in process.info["cmdline"] or ()):
            process.kill()
