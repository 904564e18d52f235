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
_ACCOUNTING_DAEMONS = ("slurmdbd", "mariadbd", "mariadb-install-db")


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

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env=self.environment, stdout=quiet, stderr=quiet, start_new_session=True)
        self.processes.append(process)
        return process

    def start_node(self, name: str) -> subprocess.Popen[bytes]:
        return self.start("slurmd", "-D", "-N", name, "-f", str(self.folder / "slurm.conf"))

    def wait_for(self, truth, what: str, timeout_s: float = 60) -> None:
        until = time.monotonic() + timeout_s
        while not truth():
            if time.monotonic() > until:
                logs = "\n".join(path.read_text()[-2000:] for path in (self.folder / "log").glob("*.log"))
                pytest.fail(f"{what}: not within {timeout_s} s\n{logs}")
            time.sleep(0.2)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    yield from _cluster(tmp_path_factory, _DAEMONS, accounting=False)


@pytest.fixture(scope="module")
def accounted_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm that keeps accounts in a database, and forgets jobs a few seconds after they end."""
    yield from _cluster(tmp_path_factory, (*_DAEMONS, *_ACCOUNTING_DAEMONS), accounting=True)


def _cluster(
    tmp_path_factory: pytest.TempPathFactory, daemons: tuple[str, ...], *, accounting: bool
) -> Iterator[Slurm]:
    missing = [name for name in daemons if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(
            f"{missing[0]} is not installed (Debian: slurm-wlm, munge; for accounting slurmdbd, mariadb-server)"
        )
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons are started as root")
    folder = tmp_path_factory.mktemp("slurm")
    # Everything above the munge socket must be passable for munge's own user; pytest's folders are their owner's alone.
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077 == 0:
            path.chmod(0o711)
    cluster = Slurm(folder, [])
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
        environment.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            _start(cluster, accounting=accounting)
            yield cluster
        finally:
            _stop(cluster)


def _start(cluster: Slurm, *, accounting: bool) -> None:
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
    cluster.start(
        "setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground", "--force",
        *(f"--{option}={munge / name}" for option, name in options.items()),
    )  # fmt: skip
    cluster.wait_for(lambda: (munge / "socket").exists(), "munge")
    first = _free_port()
    nodes = "".join(
        f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} CPUs=2 RealMemory=4000\n"
        for node in (1, 2)
    )
    accounts = _start_accounting(cluster) if accounting else "AccountingStorageType=accounting_storage/none"
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
MinJobAge={2 if accounting else 300}
ReturnToService=2
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
{accounts}
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
{nodes}PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=25
PartitionName=urgent Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
    )
    if accounting:
        cluster.start("slurmdbd", "-D")
        cluster.wait_for(lambda: _has_accounts(cluster), "the cluster's accounts")
    cluster.start("slurmctld", "-D", "-i", "-f", str(folder / "slurm.conf"))
    for name in ("n1", "n2"):
        cluster.start_node(name)

    def up() -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "main", "-o", "%T"],
            env=cluster.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.split() == ["idle", "idle"]

    cluster.wait_for(up, "two idle nodes", 90)


def _start_accounting(cluster: Slurm) -> str:
    """Starts MariaDB and slurmdbd, and returns what slurm.conf says of them."""
    folder, database = cluster.folder, cluster.folder / "database"
    port, storage_port = _free_port(), _free_port()
    database.mkdir()
    shutil.chown(database, "mysql", "mysql")
    whose = ["--no-defaults", f"--datadir={database}", "--user=mysql"]
    subprocess.run(
        ["mariadb-install-db", *whose, "--skip-test-db", "--auth-root-authentication-method=normal"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    socket_path = database / "socket"
    cluster.start(
        "mariadbd", *whose, f"--socket={socket_path}", f"--pid-file={database / 'pid'}", "--skip-name-resolve",
        "--bind-address=127.0.0.1", f"--port={storage_port}", "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=0", f"--log-error={folder / 'log' / 'mariadb.log'}",
    )  # fmt: skip
    cluster.wait_for(socket_path.exists, "the database")
    who = "slurm@'127.0.0.1'"
    make = f"create database accounts; create user {who} identified by 'x'; grant all on accounts.* to {who}"
    subprocess.run(["mariadb", "--no-defaults", f"--socket={socket_path}", "-e", make], check=True, timeout=30)
    settings = folder / "slurmdbd.conf"
    settings.write_text(
        f"""AuthType=auth/munge
AuthInfo=socket={folder / "munge" / "socket"}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={storage_port}
StorageUser=slurm
StoragePass=x
StorageLoc=accounts
LogFile={folder / "log" / "slurmdbd.log"}
PidFile={folder / "slurmdbd.pid"}
"""
    )
    settings.chmod(0o600)
    return f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder / "munge" / "socket"}"""


def _has_accounts(cluster: Slurm) -> bool:
    """Tells the accounting of this cluster, and returns whether it knows it."""
    for command in (["sacctmgr", "--immediate", "add", "cluster", "tests"], ["sacctmgr", "-n", "list", "cluster"]):
        done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True, check=False)
    return "tests" in done.stdout


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
