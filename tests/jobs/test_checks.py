"""What is wrong with a submission is said in one line, before anything is written or sent."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import yaml

from headway.cli import run
from headway.config.errors import UserError
from headway.jobs.profiles import known_profiles, load_profile
from headway.jobs.records import create_record, job_folder
from headway.jobs.shipping import environment_lock, shipped_files
from headway.jobs.submit import prepare_submission
from headway.launch.base import Job, seconds

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({}, "kind"),
        ({"kind": "locl"}, "did you mean local"),
        ({"kind": "local", "node": 2}, "did you mean nodes"),
        ({"kind": "local", "nodes": 0}, "nodes: "),
        ({"kind": "local", "nodes": 2}, "this machine alone"),
        ({"kind": "local", "time_limit": "soon"}, "should be a time such as 90m"),
        ({"kind": "local", "environment": {"A": "x\ny"}}, "one line without control characters"),
        ({"kind": "local", "environment": {"A B": "x"}}, "should be the name of an environment variable"),
        ({"kind": "local", "environment": {"RANK": "0"}}, "set by the launch"),
        ({"kind": "local", "secrets": ["$(id)"]}, "should be the name of an environment variable"),
        ({"kind": "local", "ranks_per_node": 3}, "trainer.devices: 2, but the profile gives 3"),
        ({"kind": "local", "gpus_per_node": 2}, "trainer.accelerator: cpu, but the profile has 2 GPUs"),
    ],
)
def test_a_profile_that_cannot_be_is_one_line(tiny_mlp, tmp_path, capsys, profile, message: str) -> None:
    tiny_mlp["trainer"] |= {"devices": 2, "accelerator": "cpu"}
    tiny_mlp["strategy"] = "ddp"
    recipe, file = tmp_path / "r.yaml", tmp_path / "p.yaml"
    recipe.write_text(yaml.safe_dump(tiny_mlp))
    file.write_text(yaml.safe_dump(profile))
    if profile.get("kind") == "local" and "ranks_per_node" not in profile and "gpus_per_node" not in profile:
        file.write_text(yaml.safe_dump({**profile, "ranks_per_node": 2}))
    code = run(["submit", "fit", str(recipe), "--on", str(file), "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "nowhere"], "no such profile"),
        (["--on", "nowhere.yaml"], "no such file"),
        (["--on", "local", "--with", "nods=2"], "did you mean nodes"),
        (["--on", "local", "--name", "../x"], "should be of letters"),
        (["--on", "local", "--name", "a\nb"], "should be of letters"),
        (["--on", "local", "--group", "$(id)"], "should be of letters"),
        (["--on", "local", "--seeds", "1,x"], "should be whole numbers"),
        (["--on", "local", "--seeds", "1,1"], "stands twice"),
        (["--on", "local", "optim.lrr=1"], "did you mean optim.lr"),
        (["--on", "local", "strategy=single", "--with", "ranks_per_node=2"], "gives 2 ranks"),
        ([], "--on"),
    ],
)
def test_a_command_line_that_cannot_be_is_one_line(recipe_file, tmp_path, capsys, arguments, message: str) -> None:
    code = run(["submit", "fit", str(recipe_file), *arguments, "--runs", str(tmp_path / "runs")])
    said = capsys.readouterr().err
    assert code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_sweep_needs_its_section(recipe_file, tmp_path, capsys) -> None:
    assert run(["submit", "sweep", str(recipe_file), "--on", "local", "--runs", str(tmp_path)]) == 2
    assert "no sweep section" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["cancel", "wait", "retry", "logs"])
def test_a_job_that_is_not_there_is_one_line(tmp_path, capsys, verb: str) -> None:
    assert run(["jobs", verb, "nothing", "--runs", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"headway: nothing: no such job in {tmp_path}/; `headway jobs` lists them\n"


def test_the_profile_decides_machines_and_ranks(recipe_file, tmp_path) -> None:
    profile = load_profile("local", ["ranks_per_node=3"])
    submission = prepare_submission(
        "fit", recipe_file, ["strategy=ddp"], profile=profile, profile_name="local", runs=tmp_path, name="a"
    )
    trainer = yaml.safe_load(submission.job.files["recipe.yaml"])["trainer"]
    assert (trainer["nodes"], trainer["devices"], trainer["accelerator"]) == (1, 3, "cpu")


def test_rendering_is_pure_and_quotes_what_it_is_given(recipe_file, tmp_path) -> None:
    folder = tmp_path / "it's $(touch planted) here"
    profile = load_profile("local", ["environment.A=$(touch planted)'\"; touch planted"])
    submission = prepare_submission("fit", recipe_file, profile=profile, profile_name="local", runs=folder, name="a")
    again = profile.render(submission.job, folder / ".jobs" / submission.job.id, folder)
    assert again == submission.rendering
    script = again.files["script.sh"]
    assert "$(touch planted)" in script
    import subprocess

    where = folder / ".jobs" / submission.job.id
    where.mkdir(parents=True)
    stub = tmp_path / "bin" / "headway"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$A" "$@"\n')
    stub.chmod(0o755)
    subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, check=True, env={"PATH": f"{stub.parent}:/usr/bin:/bin"}, timeout=20
    )
    said = (where / "task-0.log").read_text().splitlines()
    assert said[0] == "$(touch planted)'\"; touch planted"
    assert said[1:5] == ["fit", f"{where}/recipe.yaml", "--runs", str(folder)]
    assert not list(tmp_path.rglob("planted"))


def test_uncommitted_changes_and_own_modules_travel(tmp_path, monkeypatch) -> None:
    import subprocess

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout

    git("init", "-q")
    (tmp_path / "old.py").write_text("a = 1\n")
    git("add", ".")
    git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x")
    (tmp_path / "old.py").write_text("a = 2\n")
    (tmp_path / "net.py").write_text("b = 1\n")
    (tmp_path / ".env").write_text("TOKEN=secret\n")
    monkeypatch.chdir(tmp_path)
    before = git("status", "--porcelain")
    files = shipped_files("name: x\n", ["net"])
    assert git("status", "--porcelain") == before
    assert "+a = 2" in files["code.patch"]
    assert "+b = 1" in files["code.patch"]
    assert "secret" not in "".join(files.values())
    assert files["net.py"] == "b = 1\n"
    git("stash", "-q", "-u")
    (tmp_path / "patch").write_text(files["code.patch"])
    git("apply", "patch")
    assert (tmp_path / "old.py").read_text() == "a = 2\n"
    assert (tmp_path / "net.py").read_text() == "b = 1\n"


def test_the_environments_lock_names_torch() -> None:
    assert any(line.startswith("torch==") for line in environment_lock().splitlines())


def test_times_are_read_in_seconds() -> None:
    assert seconds("1d2h30m15s") == 95415
    assert seconds("90m") == 5400


def test_profiles_that_come_along_can_be_read() -> None:
    from headway.jobs.profiles import known_profiles

    for name, path in known_profiles().items():
        assert path.read_text().startswith("# "), f"{name} says in its first line what it is"
        load_profile(name)


def test_a_broken_record_is_passed_over(tmp_path) -> None:
    from headway.jobs.records import list_records

    for name, text in (("a", "{"), ("b", "{}"), ("c", '{"job": 3}')):
        folder = Path(tmp_path / ".jobs" / name)
        folder.mkdir(parents=True)
        (folder / "job.json").write_text(text)
    (tmp_path / ".jobs" / "file").write_text("")
    assert list_records(tmp_path) == []


def test_exit_codes_stand_for_jobs(tmp_path) -> None:
    from headway.jobs.board import Task, exit_code
    from headway.launch.base import JobStatus

    def tasks(*statuses: JobStatus) -> list[Task]:
        return [Task(None, index, status) for index, status in enumerate(statuses)]  # type: ignore[arg-type]

    done, failed = JobStatus("done", exit_code=0), JobStatus("failed", exit_code=3)
    assert exit_code(tasks(done, done)) == 0
    assert exit_code(tasks(done, failed)) == 3
    assert exit_code(tasks(done, JobStatus("cancelled"), failed)) == 143
    assert exit_code(tasks(JobStatus("lost"))) == 3


def test_launching_and_looking_at_jobs_imports_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, headway.jobs_verbs, headway.jobs.board, headway.launch.local; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unreadable_errors_name_the_folder(tmp_path) -> None:
    from headway.jobs.records import create_record
    from headway.launch.base import Job, Rendering

    (tmp_path / "file").write_text("")
    job = Job("x", "fit", ("x",))
    with pytest.raises(UserError, match=r"--runs: .* cannot be written"):
        create_record(tmp_path / "file", job, load_profile("local"), Rendering({}, ()), profile_name="local")


@pytest.mark.parametrize("verb", ["fit", "sweep"])
@pytest.mark.parametrize("profile_name", sorted(known_profiles()))
def test_no_launcher_writes_down_what_is_secret_in_the_environment(tmp_path, monkeypatch, profile_name, verb) -> None:
    canary = secrets.token_hex(12)
    for name in ("WANDB_API_KEY", "RAY_AUTH_TOKEN", "CANARY_TOKEN"):
        monkeypatch.setenv(name, canary)
    profile = load_profile(profile_name)
    if verb == "fit" or profile.kind != "local":
        profile = profile.model_copy(update={"secrets": ["CANARY_TOKEN"]})
    names = ("a", "b") if verb == "fit" else ("a",)
    job = Job("a-1", verb, names, overrides=((),) * len(names), files=shipped_files("name: a\n", ()))
    folder = job_folder(tmp_path, job.id)
    rendering = profile.render(job, folder, tmp_path)
    create_record(tmp_path, job, profile, rendering, profile_name=profile_name)
    assert canary not in " ".join(rendering.command)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"job.json", "recipe.yaml", *rendering.files} <= {path.name for path in files}
    for path in files:
        assert canary not in path.read_text(), path
        assert path.stat().st_mode & 0o777 == 0o600, path
