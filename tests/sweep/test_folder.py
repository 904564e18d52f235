"""What is read from a sweep's folder, and the verbs that do, as a person types them."""

from __future__ import annotations

import fcntl
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from headway.cli import run
from headway.run import RunFolder
from headway.sweep.folder import SweepFolder, find_sweep, list_sweeps
from headway.sweep.result import Trial

TRIALS = [
    ({"optim.lr": 0.003, "init.kind": "xavier"}, 0.7),
    ({"optim.lr": 0.011, "init.kind": "kaiming"}, 0.3),
    ({"optim.lr": 0.051}, None),
]
STATUSES = ["done", "stopped", "failed"]
WriteSweep = Callable[..., Path]


def headway(path: Path, *arguments: str) -> int:
    """Runs `headway sweeps` on the runs folder that a sweep is in."""
    return run(["sweeps", *arguments, "--runs", str(path.parent)])


def line_said(capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the one line of an error."""
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return str(line)


def add_row(path: Path, text: str) -> None:
    with (path / "trials.jsonl").open("a") as file:
        file.write(text)


# ---- reading ---------------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_sweep_is_found_by_id_and_by_path(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS)
    assert find_sweep(path.parent, "s").path == find_sweep(Path("elsewhere"), str(path)).path == path
    assert [sweep.id for sweep in list_sweeps(path.parent)] == ["s"]
    assert list_sweeps(path / "nowhere") == []


@pytest.mark.quick
def test_trials_are_as_their_rows_say(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS, statuses=STATUSES)
    first, second, third = SweepFolder(path).trials()
    assert first == Trial("s-0000", str(path.parent / "s-0000"), "done", TRIALS[0][0], 0.7, 10)
    assert (second.status, second.value) == ("stopped", 0.3)
    assert (third.status, third.value) == ("failed", None)


@pytest.mark.quick
def test_the_last_row_of_a_trial_counts_and_a_torn_one_does_not(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS, statuses=["stopped", "stopped", "failed"])
    again = {"trial": 0, "run_id": "s-0000", "run_dir": "x", "status": "done", "config": {}, "value": 0.1, "step": 17}
    add_row(path, json.dumps(again) + "\n" + json.dumps(again)[:40])
    trials = SweepFolder(path).trials()
    assert len(trials) == 3
    assert (trials[0].status, trials[0].value) == ("done", 0.1)


@pytest.mark.quick
def test_a_trial_that_runs_is_read_from_its_run_folder(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS, state="running")
    (path / "trials.jsonl").write_text("")
    (path.parent / "s-0001" / "status.json").write_text(json.dumps({"state": "running"}))
    rows = [{"step": 5, "val/loss": 0.9}, {"step": 10, "val/loss": 0.6}, {"step": 15, "val/loss": None}]
    (path.parent / "s-0001" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trial = SweepFolder(path).trials()[1]
    assert (trial.status, trial.config, trial.value, trial.step) == ("running", TRIALS[1][0], 0.6, 10)


@pytest.mark.quick
def test_a_folder_that_was_copied_has_its_runs_beside_it(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS)
    path.parent.rename(path.parent.with_name("copied"))
    sweep = SweepFolder(path.parent.with_name("copied") / "s")
    assert sweep.trials()[0].run_dir == str(sweep.path.parent / "s-0000")


@pytest.mark.quick
def test_a_sweep_of_a_trials_name_is_no_trial(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS)
    write_sweep(TRIALS, name="s-2024")
    assert list(SweepFolder(path).run_folders()) == [0, 1, 2]


@pytest.mark.quick
def test_a_sweep_whose_process_is_gone_has_died_and_its_open_trials_failed(write_sweep: WriteSweep) -> None:
    # 2 ** 22 is the most that Linux gives a process.
    path = write_sweep(TRIALS, state="running", pid=2**22 + 1, host=socket.gethostname())
    (path / "trials.jsonl").write_text("")
    for number in (0, 1):
        (path.parent / f"s-000{number}" / "status.json").write_text(json.dumps({"state": "running"}))
    sweep = SweepFolder(path)
    assert sweep.state() == "died"
    # The third had said that it was done, though the sweep could not write it down.
    assert [trial.status for trial in sweep.trials()] == ["failed", "failed", "done"]


# ---- sweeps, sweeps show ---------------------------------------------------------------------------


@pytest.mark.quick
def test_sweeps_lists_state_counts_and_best(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(TRIALS, statuses=STATUSES, best={"run_id": "s-0001", "value": 0.3})
    assert headway(path) == 0
    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["sweep", "status", "done", "stopped", "failed", "of", "best", "recipe", "age"]
    assert line.split()[:10] == ["s", "done", "1", "1", "1", "3", "val/loss", "0.3", "(s-0001)", "tiny"]
    assert headway(path, "--json") == 0
    (listed,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert (listed["sweep"], listed["state"]) == ("s", "done")


@pytest.mark.quick
def test_show_has_every_trial_and_the_command_of_the_best(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep([({"optim.lr": 0.01 + number / 1000}, float(number)) for number in range(13)])
    assert headway(path, "show", "s") == 0
    out = capsys.readouterr().out
    assert all(f"s-{number:04d}" in out for number in range(13))
    assert out.splitlines()[-1] == f"headway fit {path.parent / 's-0000'}/recipe.yaml"
    assert headway(path, "show", "s", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["best"]["run_id"], len(shown["trials"])) == ("done", "s-0000", 13)


@pytest.mark.quick
@pytest.mark.parametrize("verb", [["show"], ["stop"], ["delete", "--yes"], ["export", "--to", "csv"]])
def test_a_sweep_that_is_not_there_is_one_line_and_exit_code_two(
    verb: list[str], write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS, name="digits")
    assert headway(path, *verb, "digit") == 2
    assert line_said(capsys).endswith("did you mean digits?")


# ---- sweeps stop -----------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Any:
    """Yields a process whose command line has `headway` in it, and one whose has not."""
    code = "import time; time.sleep(120)"
    processes = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("headway", "other")]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_stop_ends_the_process_and_waits_for_it(
    write_sweep: WriteSweep, sleeper: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS, state="running", pid=sleeper[0].pid, host=socket.gethostname())
    assert headway(path, "delete", "s", "--yes") == 2
    assert "still runs; `headway sweeps stop s` first" in line_said(capsys)
    assert headway(path, "stop", "s") == 0
    assert sleeper[0].wait(timeout=5) == -15
    assert "s: died" in capsys.readouterr().err


def test_stop_leaves_a_process_that_is_not_headways(
    write_sweep: WriteSweep, sleeper: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS, state="running", pid=sleeper[1].pid, host=socket.gethostname())
    assert headway(path, "stop", "s") == 2
    assert "is no headway command" in line_said(capsys)
    assert sleeper[1].poll() is None


def test_a_process_that_started_after_the_sweep_last_wrote_is_another(
    write_sweep: WriteSweep, sleeper: list[subprocess.Popen[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    there = {"pid": sleeper[0].pid, "host": socket.gethostname(), "updated": time.time() - 3600}
    path = write_sweep(TRIALS, state="running", **there)
    assert headway(path, "stop", "s") == 2
    assert "is gone and there is nothing to stop" in line_said(capsys)
    assert sleeper[0].poll() is None


@pytest.mark.quick
@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"state": "done"}, "does not run, it is done"),
        ({"state": "running"}, "status.json does not name its process"),
        ({"state": "running", "pid": 1, "host": "elsewhere"}, "runs on elsewhere; stop it there"),
    ],
)
def test_what_cannot_be_stopped_is_said_in_one_line(
    status: dict[str, Any], said: str, write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS, **status)
    assert headway(path, "stop", "s") == 2
    assert said in line_said(capsys)


# ---- sweeps delete ---------------------------------------------------------------------------------


@pytest.mark.quick
def test_delete_takes_the_sweep_and_its_trials_and_nothing_else(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS)
    write_sweep(TRIALS, name="s-2024")
    (path.parent / "s-0001-mine").mkdir()
    assert headway(path, "delete", "s", "--yes") == 0
    left = sorted(folder.name for folder in path.parent.iterdir())
    assert left == ["s-0001-mine", "s-2024", "s-2024-0000", "s-2024-0001", "s-2024-0002"]


@pytest.mark.quick
def test_delete_needs_a_yes_where_nobody_can_be_asked(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS)
    assert headway(path, "delete", "s") == 2
    assert "--yes" in line_said(capsys)
    assert path.is_dir()


@pytest.mark.quick
@pytest.mark.parametrize(("answer", "kept"), [("y\n", False), ("\n", True), ("no\n", True)])
def test_delete_asks_on_a_terminal(
    answer: str, kept: bool, write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_sweep(TRIALS)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdin.readline", lambda: answer, raising=False)
    assert headway(path, "delete", "s") == 0
    assert path.is_dir() == kept


@pytest.mark.quick
def test_delete_refuses_a_sweep_that_runs_elsewhere(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS, state="running", pid=1, host="elsewhere")
    assert headway(path, "delete", "s", "--yes") == 2
    assert "runs on elsewhere" in line_said(capsys)
    assert path.is_dir()


@pytest.mark.quick
def test_delete_refuses_while_a_trial_is_gone_on_with(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_sweep(TRIALS)
    with (path.parent / "s-0001" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert headway(path, "delete", "s", "--yes") == 2
    assert "another process is writing this run" in line_said(capsys)
    assert (path.parent / "s-0000").is_dir()


# ---- sweeps export ---------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_export_has_one_row_a_trial_with_samples_metric_and_final_metrics(form: str, write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS, statuses=STATUSES)
    assert headway(path, "export", "s", "--to", form) == 0
    read = pyarrow.csv.read_csv if form == "csv" else pyarrow.parquet.read_table
    rows = read(str(path / f"trials.{form}")).to_pylist()
    assert [row["run_id"] for row in rows] == ["s-0000", "s-0001", "s-0002"]
    assert [row["status"] for row in rows] == STATUSES
    assert [row["optim.lr"] for row in rows] == [0.003, 0.011, 0.051]
    assert [row["init.kind"] or None for row in rows] == ["xavier", "kaiming", None]
    assert [row["val/loss"] for row in rows] == [0.7, 0.3, None]
    assert [row["final/val/loss"] for row in rows] == [1.2, 0.8, None]
    assert [row["final/test/accuracy"] for row in rows] == [0.75, 0.75, None]
    assert {"step", "reason"} <= set(rows[0])


@pytest.mark.quick
def test_values_of_several_kinds_are_exported_as_json(write_sweep: WriteSweep, tmp_path: Path) -> None:
    samples = [({"model.hidden": [7, 5], "seed": 3}, 0.5), ({"model.hidden": "wide", "seed": 0.5}, 0.25)]
    path = write_sweep(samples)
    assert headway(path, "export", "s", "--to", "parquet", "--out", str(tmp_path / "table.parquet")) == 0
    table = pyarrow.parquet.read_table(str(tmp_path / "table.parquet")).to_pydict()
    assert table["model.hidden"] == ["[7, 5]", '"wide"']
    assert table["seed"] == [3.0, 0.5]


@pytest.mark.quick
def test_an_export_that_cannot_be_written_is_refused(
    write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write_sweep(TRIALS)
    assert headway(path, "export", "s", "--to", "csv", "--out", str(tmp_path / "nowhere" / "x.csv")) == 2
    assert "cannot be written" in line_said(capsys)


def test_the_verbs_import_neither_torch_nor_ray(write_sweep: WriteSweep) -> None:
    path = write_sweep(TRIALS)
    code = "import sys; from headway.cli import run; run(sys.argv[1:]); print({'torch', 'ray'} & set(sys.modules))"
    command = [sys.executable, "-c", code, "sweeps", "show", "s", "--runs", str(path.parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "set()"
    assert RunFolder(path).status()["state"] == "done"
