"""The sbatch script: what a person reads, what bash makes of hostile values, and what it does at its end."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.jobs.profiles import load_profile
from headway.launch._slurm_states import read_sacct, read_squeue
from headway.launch.base import Job, Launcher, Sent
from headway.launch.slurm import Config

pytestmark = pytest.mark.quick

GOLDEN = Path(__file__).parent / "golden"
JOB = Job("gpt-1122-101500-ab12cd", "fit", ("gpt",), group="gpt")
EVIL = "$(touch planted) `touch planted` '; touch planted; \" & touch planted #"


def script(job: Job = JOB, folder: str = "/shared/runs/.jobs/gpt", runs: str = "/shared/runs", **settings) -> str:
    profile = validate_section(Config, {"kind": "slurm", **settings}, path="profile")
    return profile.render(job, Path(folder), Path(runs)).files["script.sh"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "slurm-two-nodes",
            {"nodes": 2, "gpus_per_node": 8, "cpus_per_node": 64, "time_limit": "12h", "partition": "gpu"},
        ),
        (
            "slurm-pyxis",
            {
                "nodes": 2, "gpus_per_node": 4, "gpu_type": "h100", "container": "pyxis", "memory_gb": 500,
                "image": "registry.example.org/headway:1", "mounts": ["/data:/data"], "account": "lab", "qos": "high",
                "environment": {"NCCL_DEBUG": "WARN"}, "modules": ["cuda/13.0"], "exclusive": True,
            },
        ),
        ("slurm-apptainer", {"gpus_per_node": 1, "container": "apptainer", "image": "/shared/headway.sif"}),
    ],
)  # fmt: skip
def test_the_script_is_the_one_that_was_read(name: str, settings) -> None:
    assert script(**settings) == (GOLDEN / f"{name}.sh").read_text()


def test_a_sweeps_script_is_the_one_that_was_read() -> None:
    job = Job("search-1122-101500-ab12cd", "sweep", ("search",), group="search", workers=3)
    assert script(job, nodes=4, gpus_per_node=4) == (GOLDEN / "slurm-sweep.sh").read_text()


def test_an_array_has_a_line_for_each_seed() -> None:
    job = Job("a-1", "fit", ("a-seed3", "a-seed5"), group="a", overrides=(("trainer.seed=3",), ("trainer.seed=5",)))
    text = script(job, array_limit=1)
    assert "#SBATCH --array=0-1%1" in text
    assert "trainer.seed=5 --runs /shared/runs --name a-seed5 --resume auto" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "gpu\n#SBATCH --uid=root"}, "partition: should be of letters"),
        ({"account": "$(id)"}, "account: should be of letters"),
        ({"image": "a b", "container": "pyxis"}, "image: should be of letters"),
        ({"setup": ["a\nb"]}, "one line without control characters"),
        ({"mounts": ["/a:/b;id"]}, "should be of letters"),
        ({"container": "pyxis"}, "container and image go together"),
        ({"host": "login"}, "host and folder go together"),
        ({"host": "-oProxyCommand=id", "folder": "/x", "runs": "/r"}, "host: should be"),
        ({"host": "login", "folder": "/x"}, "host needs runs"),
        ({"time_limit": "1m", "grace_s": 60}, "grace_s: 60 leaves nothing"),
    ],
)
def test_a_hostile_or_impossible_profile_is_refused(settings, message: str) -> None:
    with pytest.raises(UserError) as refused:
        validate_section(Config, {"kind": "slurm", **settings}, path="profile")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def stub(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{body}\n")
    (folder / name).chmod(0o755)


def run(text: str, folder: Path, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script.sh").write_text(text)
    return subprocess.run(
        ["bash", "script.sh"],
        cwd=folder, capture_output=True, text=True, timeout=30, check=False,
        env={
            "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SLURM_NNODES": "1", "SLURM_JOB_ID": "7", **environment,
        },
    )  # fmt: skip


def test_hostile_values_arrive_as_they_are_and_do_nothing(tmp_path) -> None:
    folder = tmp_path / f"jobs {EVIL.replace('/', '')}" / "x"
    runs = tmp_path / "runs $(touch planted)"
    stub(tmp_path / "bin", "srun", 'printf "%s\\n" "$EVIL" "$@"')
    stub(tmp_path / "bin", "scontrol", "exit 1")
    text = script(folder=str(folder), runs=str(runs), environment={"EVIL": EVIL}, constraint=EVIL)
    done = run(text, folder, tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == EVIL
    assert f"{folder}/recipe.yaml" in said
    assert str(runs) in said
    assert not list(tmp_path.rglob("planted"))
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert shlex.split(next(option for option in options if "--constraint" in option)) == [f"--constraint={EVIL}"]


@pytest.mark.parametrize(
    ("exit_code", "job_state", "requeued", "left"),
    [
        (0, "RUNNING", False, "0"),
        (3, "RUNNING", False, "3"),
        (143, "RUNNING", True, None),
        (138, "RUNNING", True, None),  # told before its handler was there
        (143, "CANCELLED", False, "143"),
        (143, "", False, "143"),
    ],
)
def test_only_what_saved_and_was_not_cancelled_is_requeued(
    tmp_path, exit_code: int, job_state: str, requeued: bool, left: str | None
) -> None:
    folder = tmp_path / "job"
    stub(tmp_path / "bin", "srun", f"exit {exit_code}")
    shown = f'[ "$1" = requeue ] && touch {tmp_path}/requeued; echo "JobId=7 JobState={job_state} Reason=None"'
    stub(tmp_path / "bin", "scontrol", shown if job_state else "exit 1")
    done = run(script(folder=str(folder)), folder, tmp_path)
    assert done.returncode == exit_code
    assert (tmp_path / "requeued").exists() == requeued
    assert ((folder / "task-0.exit").read_text().strip() if (folder / "task-0.exit").exists() else None) == left


def test_the_warning_reaches_the_run(tmp_path) -> None:
    folder = tmp_path / "job"
    stub(tmp_path / "bin", "srun", "trap 'echo told; exit 143' USR1; kill -USR1 $PPID; while :; do sleep 0.05; done")
    stub(tmp_path / "bin", "scontrol", f'[ "$1" = requeue ] && touch {tmp_path}/requeued; echo JobState=RUNNING')
    done = run(script(folder=str(folder)), folder, tmp_path)
    assert done.stdout == "told\nJobState=RUNNING\n"
    assert (tmp_path / "requeued").exists()


def test_requeues_have_a_cap_and_nodes_are_counted(tmp_path) -> None:
    folder = tmp_path / "job"
    stub(tmp_path / "bin", "srun", "echo ran")
    done = run(script(folder=str(folder), max_requeues=2), folder, tmp_path, SLURM_RESTART_COUNT="3")
    assert (done.returncode, done.stdout) == (143, "")
    assert "requeued more than max_requeues: 2 times" in done.stderr
    done = run(script(folder=str(folder), nodes=2), folder, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "asked for 2 nodes, and Slurm gave 1" in done.stderr
    assert (folder / "task-0.exit").read_text() == "2\n"


def test_squeue_and_sacct_are_read_in_headways_words() -> None:
    lines = [
        "7|N/A|PENDING|Priority||N/A|N/A|0|0:0|",
        "8|0|RUNNING|None|n[1-2]|2026-11-22T10:00:00|2026-11-22T12:00:00|2|0:0|",
        "8|1|FAILED|NonZeroExitCode|n1|2026-11-22T10:00:00|2026-11-22T12:00:00|0|3:0|",
        "9|N/A|OUT_OF_MEMORY|OutOfMemory|n1|N/A|N/A|0|0:125|",
        "10|N/A|PENDING|BeginTime||N/A|N/A|1|0:0|",
        "11|N/A|TIMEOUT|TimeLimit|n1|N/A|N/A|0|0:15|",
        "half a line",
    ]
    known = read_squeue("\n".join(lines))
    assert known["7", 0].reason == "jobs of higher priority come first (Priority)"
    assert (known["8", 0].state, known["8", 0].where, known["8", 0].requeues) == ("running", ("n[1-2]",), 2)
    assert (known["8", 1].exit_code, known["8", 1].reason) == (3, "exit code 3: training failed, see the log")
    assert "memory_gb" in known["9", 0].reason
    assert known["10", 0].state == "requeued"
    assert "time_limit" in known["11", 0].reason
    text = """12|twelve|CANCELLED by 1000|0:0|n1|2026-11-22T12:00:00
13_4|array|PREEMPTED|0:0|n1|2026-11-22T11:00:00
13_4|array|REQUEUED|0:0|n1|2026-11-22T11:30:00
13_4|array|COMPLETED|0:0|n2|2026-11-22T12:00:00
15_[0-2,5%1]|array|CANCELLED by 0|0:0|None assigned|2026-11-22T12:00:00
14|somebody-elses|COMPLETED|0:0|n2|2019-11-22T12:00:00
"""
    accounted = read_sacct(text, {"12": "twelve", "13": "array", "15": "array", "14": "mine"})
    assert accounted["12", 0].state == "cancelled"
    assert (accounted["13", 4].state, accounted["13", 4].requeues) == ("done", 2)
    assert [(task, status.state) for (job, task), status in accounted.items() if job == "15"] == [
        (0, "cancelled"), (1, "cancelled"), (2, "cancelled"), (5, "cancelled"),
    ]  # fmt: skip
    assert ("14", 0) not in accounted


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("sacct: error: Problem talking to the database: Connection refused", None),
        ("Slurm accounting storage is disabled", "lost"),
    ],
)
def test_accounts_that_do_not_answer_are_no_proof_that_a_job_is_lost(tmp_path, monkeypatch, said, told) -> None:
    stub(tmp_path / "bin", "squeue", "exit 0")
    stub(tmp_path / "bin", "sacct", f'echo "{said}" >&2; exit 1')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    profile = validate_section(Config, {"kind": "slurm"}, path="profile")
    found = profile.statuses([Sent(JOB, "41", tmp_path)])
    assert [status.state for status in found.get(JOB.id, ())] == ([told] if told else [])
    (tmp_path / "task-0.exit").write_text("0\n")
    assert profile.statuses([Sent(JOB, "41", tmp_path)])[JOB.id][0].state == "done"


def test_secrets_are_named_and_their_values_stay_where_they_are(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-key")
    profile = validate_section(Config, {"kind": "slurm", "secrets": ["WANDB_API_KEY"]}, path="profile")
    rendering = profile.render(JOB, Path("/x"), Path("/r"))
    assert "canary-key" not in rendering.files["script.sh"] + " ".join(rendering.command)
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(UserError, match="secrets: WANDB_API_KEY is not set here"):
        profile.check_secrets()


FAKE_SSH = """
# A fake: runs here what it is asked to run on HOST, and keeps what it was called with.
while [ "${1#-}" != "$1" ]; do shift 2; done
printf '%s\\n' "$*" >>"$CALLS"
shift
exec bash -c "$*"
"""


def test_a_login_node_gets_files_commands_and_secrets_through_ssh(tmp_path, monkeypatch) -> None:
    far = tmp_path / "far away's"
    stub(tmp_path / "bin", "ssh", FAKE_SSH)
    stub(tmp_path / "bin", "sbatch", f'echo "$WANDB_API_KEY" >{tmp_path}/key; [ -r "$2" ] && echo "41;cluster"')
    stub(tmp_path / "bin", "squeue", 'echo "41|N/A|RUNNING|None|far1|N/A|N/A|0|0:0|"')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("WANDB_API_KEY", "canary-key")
    settings = {"host": "me@login", "folder": str(far), "runs": "/far/runs", "secrets": ["WANDB_API_KEY"]}
    profile = validate_section(Config, {"kind": "slurm", **settings}, path="profile")
    job = Job("j-1", "fit", ("j",), files={"recipe.yaml": "name: j\n"})
    rendering = profile.render(job, tmp_path / "here", tmp_path / "runs")
    native_id = profile.send(job, rendering, tmp_path / "here")
    assert native_id == "41"
    assert (far / "j-1" / "recipe.yaml").read_text() == "name: j\n"
    assert (far / "j-1" / "script.sh").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "key").read_text() == "canary-key\n"
    assert "canary-key" not in (tmp_path / "calls").read_text()
    (status,) = profile.statuses([Sent(job, native_id, tmp_path / "here")])["j-1"]
    assert (status.state, status.where) == ("running", ("far1",))
    (far / "j-1" / "task-0.log").write_text("step 1\nnaïve step 2\n")
    assert "".join(profile.log(Sent(job, native_id, tmp_path), task=0, follow=False)) == "step 1\nnaïve step 2\n"
    # Once Slurm has forgotten it, what the script left over there counts: it is neither lost nor sent again.
    stub(tmp_path / "bin", "squeue", "exit 0")
    stub(tmp_path / "bin", "sacct", "exit 1")
    (far / "j-1" / "task-0.exit").write_text("0\n")
    assert profile.find(job, tmp_path / "here") == "forgotten"
    (status,) = profile.statuses([Sent(job, "forgotten", tmp_path / "here")])["j-1"]
    assert (status.state, status.exit_code) == ("done", 0)
    assert "".join(profile.log(Sent(job, native_id, tmp_path), task=0, follow=True)) == "step 1\nnaïve step 2\n"


def test_a_login_node_that_does_not_answer_is_one_line(tmp_path, monkeypatch) -> None:
    stub(tmp_path / "bin", "ssh", 'echo "ssh: connect to host login port 22: No route to host" >&2; exit 255')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    profile = validate_section(Config, {"kind": "slurm", "host": "login", "folder": "/x", "runs": "/r"}, path="profile")
    with pytest.raises(UserError, match=r"host: login cannot be reached \(ssh: connect to host login port 22"):
        profile.find(JOB, tmp_path)


def test_profiles_that_come_along_render_scripts_that_bash_can_read(tmp_path) -> None:
    from headway.jobs.profiles import known_profiles

    for name, path in known_profiles().items():
        profile = load_profile(name)
        assert isinstance(profile, Launcher)
        if yaml.safe_load(path.read_text())["kind"] != "slurm":
            continue
        text = profile.render(JOB, Path("/shared/x"), Path("/shared/runs")).files["script.sh"]
        subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=20)
