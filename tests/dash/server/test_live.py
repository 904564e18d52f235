"""What a viewer is told as it happens: of a real training, and by one watch however many look."""

import asyncio
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from headway.dash.live import Live
from headway.dash.runs import Runs
from headway.dash.series import Curves
from headway.run import MetricsFile, RunFolder, create_run, read_metrics


def append(run, rows, **how):
    file = MetricsFile(run.metrics, **how)
    file.write(rows)
    file.close()


def test_the_rows_of_a_training_arrive_while_it_trains(serve, recipe_file, tmp_path):
    runs = tmp_path / "runs"
    runs.mkdir()
    command = [
        sys.executable,
        "-m",
        "headway",
        "fit",
        str(recipe_file),
        "trainer.max_steps=3000",
        "trainer.validate_every=1500",
        "--runs",
        str(runs),
    ]
    with serve(runs) as server, server.events("table=1") as table:
        training = subprocess.Popen([*command, "--name", "grows"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            states = []
            for name, data in table:
                states += [row["state"] for row in data.get("changed", []) if row["id"] == "grows"]
                if name == "table" and "running" in states:
                    break
            with server.events("runs=grows") as events:
                seen = []
                for name, data in events:
                    if name == "rows":
                        assert data["run"] == "grows"
                        seen += data["series"].get("train/loss", [])
                    if seen and seen[-1][0] == 3000:
                        break
        finally:
            training.wait(timeout=120)
        for _, data in table:
            states += [row["state"] for row in data.get("changed", []) if row["id"] == "grows"]
            if "done" in states:
                break
    rows = {row["step"]: row for row in read_metrics(runs / "grows" / "metrics.jsonl") if "train/loss" in row}
    first = min(row["time"] for row in rows.values())
    steps = [step for step, _, _ in seen]
    # Nothing twice, nothing left out from where the viewer came in.
    assert steps == list(range(steps[0], 3001))
    for step, seconds, value in seen:
        assert value == pytest.approx(rows[step]["train/loss"], rel=1e-8)
        assert seconds == pytest.approx(rows[step]["time"] - first, abs=2e-3)


def test_a_run_that_is_watched_before_it_has_metrics_is_told_from_its_first_row(serve, tmp_path):
    run = create_run(tmp_path, "x", name="run")
    run.recipe.write_text("name: x\n")
    with serve(tmp_path) as server, server.events("runs=run,nothing") as events:
        append(run, [{"step": 1, "time": 50.0, "train/loss": 0.5}, {"step": 2, "time": 51.5, "val/loss": None}])
        assert next(events) == (
            "rows",
            {"run": "run", "series": {"train/loss": [[1, 0, 0.5]], "val/loss": [[2, 1.5, None]]}},
        )


def test_a_torn_line_is_waited_for_and_a_resume_is_told(serve, tmp_path):
    run = create_run(tmp_path, "x", name="run")
    run.recipe.write_text("name: x\n")
    append(run, [{"step": step, "train/loss": 1.0} for step in range(1, 9)])
    with serve(tmp_path) as server, server.events("runs=run") as events:
        name, data = next(events)
        assert (name, [step for step, _, _ in data["series"]["train/loss"]]) == ("rows", [*range(1, 9)])
        with run.metrics.open("a") as file:
            file.write('{"step": 9, "time": 1.0, "tra')
            file.flush()
            time.sleep(0.2)
            file.write('in/loss": 7.0}\nnonsense\n')
        name, data = next(events)
        assert (name, data["series"]["train/loss"][0][0], data["series"]["train/loss"][0][2]) == ("rows", 9, 7)
        append(run, [], keep_through=4)
        assert next(events) == ("reset", {"run": "run"})
        append(run, [{"step": 5, "train/loss": 3.0}])
        name, data = next(events)
        assert (name, data["series"]["train/loss"][0][0], data["series"]["train/loss"][0][2]) == ("rows", 5, 3)


def test_the_table_tells_what_comes_changes_and_goes(serve, making, tmp_path):
    for name in ("stays", "goes"):
        making.make_fit(tmp_path, "mlp-digits", name, lr=1e-3, started=1e9, draw=random.Random(0), num_rows=31)
    with serve(tmp_path) as server, server.events("table=1") as events:
        server.get("/api/runs")
        changed, gone = {}, []
        RunFolder(tmp_path / "stays").update_status(reason="now")
        (tmp_path / "goes").rename(tmp_path / "came")
        for name, data in events:
            if name == "table":
                changed |= {row["id"]: row for row in data["changed"]}
                gone += data["gone"]
            if {"came", "stays"} <= set(changed) and gone:
                break
        assert changed["stays"]["reason"] == "now"
        assert gone == ["goes"]


def test_the_end_of_a_sweep_is_told(serve, making, tmp_path):
    making.make_sweep(tmp_path, "search", "asha", num_trials=1, draw=random.Random(0))
    sweep = RunFolder(tmp_path / "search")
    with serve(tmp_path) as server, server.events("table=1") as events:
        server.get("/api/sweeps")
        sweep.update_status(state="stopped")
        for name, data in events:
            if name == "table" and "search" in data["sweeps"]:
                break
        assert server.get("/api/sweep/search")["state"] == "stopped"


def test_however_many_look_a_run_is_watched_once(tmp_path):
    run = create_run(tmp_path, "x", name="run")
    run.recipe.write_text("name: x\n")
    table = Runs(tmp_path)
    entry = table.find("run")
    curves = Curves(tmp_path, None)
    live = Live(table, curves)

    async def look():
        streams = [live.events([entry], table=number % 2 == 0) for number in range(50)]
        for stream in streams:
            await anext(stream)
        assert live.num_watches == 2
        file = MetricsFile(run.metrics)
        waiting = [asyncio.ensure_future(anext(stream)) for stream in streams]
        await asyncio.sleep(0.1)
        file.write([{"step": 1, "time": 1.0, "train/loss": 0.5}])
        file.close()
        told = await asyncio.gather(*waiting)
        # One event, put into words once.
        assert len({id(event) for event in told}) == 1
        for stream in streams[:49]:
            await stream.aclose()
        assert live.num_watches == 1
        await streams[49].aclose()
        assert live.num_watches == 0

    asyncio.run(look())
    curves.close()


def test_a_viewer_that_is_too_slow_is_let_go(tmp_path, monkeypatch):
    monkeypatch.setattr("headway.dash.live._PENDING", 3)
    run = create_run(tmp_path, "x", name="run")
    run.recipe.write_text("name: x\n")
    table = Runs(tmp_path)
    curves = Curves(tmp_path, None)
    live = Live(table, curves)

    async def look():
        slow = live.events([table.find("run")], table=False)
        await anext(slow)
        file = MetricsFile(run.metrics)
        for step in range(8):
            file.write([{"step": step, "train/loss": 0.5}])
            await asyncio.sleep(0.06)
        file.close()
        assert [event async for event in slow] == []
        assert live.num_watches == 0

    asyncio.run(look())
    curves.close()


def test_a_server_with_viewers_ends_at_once(serve, tmp_path):
    with serve(tmp_path) as server, server.events("table=1") as events:
        threading.Timer(0.5, lambda: os.kill(server.process.pid, 2)).start()
        assert list(events) == []
        assert server.process.wait(timeout=10) == 0
