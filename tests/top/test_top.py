"""`headway top`: what a frame shows of real folders, and the live screen in a real terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from headway.cli import run
from headway.run import RunFolder, make_run_folder
from headway.top.gpus import look_at_gpus, read_gpus
from headway.top.look import Watch, newest_values
from headway.top.screen import Frame, draw, span


def write_run(runs: Path, name: str, rows: list[dict[str, float]] | None = None, **status) -> RunFolder:
    folder = make_run_folder(runs / name)
    folder.recipe.write_text("name: x\ntrainer: {max_steps: 200}\n")
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows or []))
    folder.update_status(**status)
    return folder


def own_process() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def gone_process() -> dict[str, object]:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert not psutil.pid_exists(process.pid)
    return {"pid": process.pid, "host": socket.gethostname()}


def text_of(frame: Frame, *, width: int = 150, height: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(draw(frame, height=height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_running_run_shows_its_newest_values_its_speed_and_the_time_left(tmp_path) -> None:
    rows = [
        {"step": 10, "train/loss": 2.5, "perf/step_time_s": 0.5, "perf/samples_per_s": 1234.0},
        {"step": 50, "train/loss": 1.25, "val/loss": 1.5},
    ]
    run_folder = write_run(tmp_path, "goes-on", rows, state="running", step=40, **own_process())
    with run_folder.metrics.open("a") as file:
        file.write('{"step": 60, "train/lo')
    write_run(tmp_path, "crashed", state="running", step=7, **gone_process())
    write_run(tmp_path, "bad", state="failed", step=3, reason="train/loss is nan at step 3")
    standings = Watch(tmp_path).standings()
    assert standings[0].id == "goes-on"
    assert (standings[0].done, standings[0].total, standings[0].left_s) == (50, 200, 75.0)
    assert {one.id: one.state for one in standings} == {"goes-on": "running", "crashed": "died", "bad": "failed"}
    said = text_of(Frame(tmp_path, standings, now=time.time()))
    for part in ("50/200 steps", "train/loss 1.25", "val/loss 1.5", "1,234 samples/s", "75 s", "train/loss is nan"):
        assert part in said


def test_what_changed_is_read_again_and_what_is_no_run_is_passed_over(tmp_path) -> None:
    folder = write_run(tmp_path, "one", state="running", step=1, **own_process())
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "status.json").write_text('{"state": "run')
    watch = Watch(tmp_path)
    assert [(one.id, one.state) for one in watch.standings()] == [("one", "running")]
    folder.update_status(state="done", step=200, final={"test/accuracy": 0.5})
    (one,) = watch.standings()
    assert (one.state, one.done, one.values) == ("done", 200, {"test/accuracy": 0.5})
    assert Watch(tmp_path / "nowhere").standings() == []
    assert newest_values(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    "status",
    [
        {"updated": "yesterday"},
        {"updated": 1.0, "step": "many"},
        {"updated": 1.0, "best": [1]},
        {"updated": 1.0, "state": "running", "pid": -5, "host": socket.gethostname()},
        {"updated": 1.0, "state": "done", "final": 7},
        {"updated": 1.0, "state": "done", "final": {"test/loss": "low"}},
    ],
    ids=str,
)
def test_somebody_elses_status_is_shown_and_nothing_breaks(tmp_path, status) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "status.json").write_text(json.dumps(status))
    write_run(tmp_path, "mine", state="done", step=3)
    standings = Watch(tmp_path).standings()
    assert {one.id for one in standings} == {"odd", "mine"}
    assert "odd" in text_of(Frame(tmp_path, standings, now=time.time()))


def test_a_sweep_shows_its_trials_and_its_best(tmp_path) -> None:
    folder = tmp_path / "search"
    folder.mkdir()
    (folder / "sweep.yaml").write_text("name: x\n")
    trials = {"total": 32, "done": 5, "stopped": 6, "failed": 1, "running": 4}
    best = {"metric": "val/loss", "value": 0.125}
    RunFolder(folder).update_status(state="running", trials=trials, best=best, **own_process())
    said = text_of(Frame(tmp_path, Watch(tmp_path).standings(), now=time.time()))
    assert "search (sweep)" in said
    assert "12/32 trials" in said
    assert "best val/loss 0.125" in said


def test_a_small_terminal_shows_what_goes_on_and_counts_the_rest(tmp_path) -> None:
    for number in range(40):
        write_run(tmp_path, f"old-{number}", state="done", step=200)
    write_run(tmp_path, "goes-on", state="running", step=1, **own_process())
    said = text_of(Frame(tmp_path, Watch(tmp_path).standings(), now=time.time()), width=80, height=24)
    assert len(said.splitlines()) <= 24
    assert "goes-on" in said
    assert "35 more" in said


def test_a_narrow_terminal_keeps_what_a_run_is_and_its_state(tmp_path) -> None:
    values = {"test/loss": 0.25, "test/accuracy": 0.9375}
    write_run(tmp_path, "mlp-digits-0001", state="done", step=200, final=values)
    write_run(tmp_path, "mlp-digits-0002", state="failed", step=3, reason="train/loss is nan at step 3")
    standings = Watch(tmp_path).standings()
    for width in (30, 40, 60, 80):
        said = text_of(Frame(tmp_path, standings, now=time.time()), width=width)
        assert max(map(len, said.splitlines())) <= width
        lines = [line for line in said.splitlines() if "mlp-digits-000" in line]
        assert sorted(line.split()[1] for line in lines) == ["done", "failed"]
    assert "test/loss 0.25" in text_of(Frame(tmp_path, standings, now=time.time()), width=50)


def test_what_nvidia_smi_prints_is_read_and_what_it_does_not_know_is_left_empty() -> None:
    text = "0, NVIDIA H100 80GB HBM3, 97, 61440, 81559, 61, 612.34\n1, NVIDIA H100, [N/A], 0, 81559, [N/A], [N/A]\nhm\n"
    first, second = read_gpus(text)
    assert (first.use_percent, first.memory_used_mib, first.watts) == (97, 61440, 612.34)
    assert (second.index, second.use_percent, second.celsius) == (1, None, None)


def test_gpus_are_asked_for_where_nvidia_smi_is(tmp_path, monkeypatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, NVIDIA L4, 50, 11264, 22528, 40, 36.5'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    said = text_of(Frame(tmp_path, gpus=look_at_gpus()))
    assert "0 NVIDIA L4" in said
    assert "11.0 of 22.0 GiB" in said
    program.write_text("#!/bin/sh\necho 'Failed to initialize NVML: Driver/library version mismatch'\nexit 18\n")
    assert "version mismatch" in text_of(Frame(tmp_path, gpus=look_at_gpus()))
    program.unlink()
    assert "no nvidia-smi on this machine" in text_of(Frame(tmp_path, gpus=look_at_gpus()))


def test_hostile_names_are_only_text(tmp_path) -> None:
    write_run(tmp_path, "[red]x", state="failed", step=1, reason="[bold]no[/nonsense] \x1b[2Jgone")
    said = text_of(Frame(tmp_path, Watch(tmp_path).standings(), now=time.time()))
    assert "[red]x" in said
    assert "[bold]no[/nonsense] ?[2Jgone" in said


def test_one_frame_is_printed_where_the_output_is_no_terminal(tmp_path, capsys) -> None:
    write_run(tmp_path, "mine", state="done", step=200, final={"test/loss": 0.25})
    assert run(["top", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "mine" in said
    assert "test/loss 0.25" in said
    assert "no jobs of the last day" in said
    assert "\x1b" not in said
    assert run(["top", "--every", "0"]) == 2
    assert "--every: 0.0 should be seconds above 0" in capsys.readouterr().err


def test_times_are_short() -> None:
    assert [span(seconds) for seconds in (5, 119, 600, 7200, 86400 * 3)] == ["5 s", "119 s", "10 min", "2 h", "3 d"]


def test_a_frame_imports_no_torch(tmp_path) -> None:
    code = "import sys; from headway.cli import run; run(['top', '--once']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("ending", ["q", "ctrl-c", "sigterm"])
def test_the_live_screen_follows_and_ends_with_a_key(tmp_path, ending: str) -> None:
    folder = write_run(tmp_path, "followed", state="running", step=11, **own_process())
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "150", "LINES": "40"}
        os.execv(sys.executable, [sys.executable, "-m", "headway", "top", "--runs", str(tmp_path), "--every", "0.2"])
    seen = b""

    def wait_for(part: bytes) -> None:
        nonlocal seen
        until = time.monotonic() + 60
        while part not in seen:
            assert time.monotonic() < until, seen[-2000:]
            if select.select([terminal], [], [], 0.2)[0]:
                seen += os.read(terminal, 65536)

    try:
        wait_for(b"11/200 steps")
        folder.update_status(step=23)
        wait_for(b"23/200 steps")
        if ending == "q":
            os.write(terminal, b"q")
        elif ending == "ctrl-c":
            os.write(terminal, b"\x03")
        else:
            os.kill(pid, signal.SIGTERM)
        wait_for(b"\x1b[?1049l")  # the screen that was there before
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == (143 if ending == "sigterm" else 0)
        pid = 0
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)
