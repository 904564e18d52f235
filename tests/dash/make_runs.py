"""Makes a runs folder to look at: runs that were never trained, written with the real writers, so true to the format.

    python tests/dash/make_runs.py FOLDER [--runs 10000] [--rows 1000000]

`--runs` adds that many small finished runs, `--rows` a run of that many rows. Besides, there are always: fits of
several recipes with health, throughput and media; an ASHA sweep and a PBT sweep; a run that runs (says so, and names
the machine's first process, which does not end), one that died, a torn one, a half-written one, one that may not be
read, one with a hostile name, and a folder and a file of somebody else's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

from headway.recipe import load_recipe
from headway.run import MetricsFile, RunFolder, create_run
from headway.sweep.check import check_sweep
from headway.sweep.ledger import Ledger, create_sweep_folder, trial_run_id

DAY_S = 86400.0
LAYERS = ("layers.0", "layers.1", "layers.2", "head")
HOSTILE = "<script>alert(1)<"


def make_all(runs: Path, *, seed: int = 0) -> None:
    """Makes one of everything."""
    draw = random.Random(seed)
    start = time.time() - 3 * DAY_S
    for place, recipe in enumerate(("mlp-digits", "convnet-digits", "gpt-python-docs", "lstm-python-docs")):
        for number in range(3):
            lr = 10 ** draw.uniform(-4, -2)
            make_fit(runs, recipe, f"{recipe}-{number}", lr=lr, started=start + (place * 3 + number) * 3600, draw=draw)
    make_sweep(runs, "digits-asha", "asha", num_trials=27, draw=draw)
    make_sweep(runs, "digits-pbt", "pbt", num_trials=8, draw=draw)
    make_odd_ones(runs, draw)


def make_fit(
    runs: Path,
    recipe: str,
    name: str,
    *,
    lr: float,
    started: float,
    draw: random.Random,
    num_rows: int = 300,
    state: str = "done",
    health: bool = True,
    media: bool = True,
) -> RunFolder:
    """Makes a run as `headway fit` leaves it."""
    run = create_run(runs, recipe, name=name)
    loaded = load_recipe(
        recipe, {"optim.lr": lr, "trainer.max_steps": num_rows, "track.tags": ["made", f"set-{draw.randint(0, 2)}"]}
    )
    run.recipe.write_text(loaded.yaml())
    spec = {"input_kind": "features", "input_shape": [64], "num_classes": 10}
    if loaded.data.kind == "text":
        spec = {"input_kind": "tokens", "input_shape": [64], "vocab_size": 90}
    run.write_json("data.json", {"spec": spec, "reading": {}})
    rows = curve_rows(num_rows, lr=lr, started=started, draw=draw, health=health, tokens=spec["input_kind"] == "tokens")
    metrics = MetricsFile(run.metrics)
    metrics.write(rows)
    metrics.close()
    finish(
        run, recipe, rows, started=started, state=state, strategy=draw.choice(["single", "ddp", "fsdp", "deepspeed"])
    )
    run.log(0).write_text(
        "".join(f"{name}  step {row['step']}  loss {row['train/loss']:.4g}\n" for row in rows if "train/loss" in row)
    )
    run.log(1).write_text("rank 1 has nothing to say\n")
    for step in (num_rows // 2, num_rows):
        checkpoint = run.checkpoints / f"{step:08d}"
        checkpoint.mkdir()
        (checkpoint / "weights.safetensors").write_bytes(bytes(20_011))
        (checkpoint / "position.json").write_text(json.dumps({"step": step}))
    if media:
        make_media(run, num_rows)
    return run


def curve_rows(
    num_rows: int, *, lr: float, started: float, draw: random.Random, health: bool = False, tokens: bool = False
) -> list[dict[str, Any]]:
    """Returns rows that look like those of a training."""
    rows = []
    for step in range(1, num_rows + 1):
        loss = 2.3 * math.exp(-lr * 40 * step / num_rows * 20) + 0.15 + 0.05 * draw.random()
        row: dict[str, Any] = {
            "time": round(started + step * 0.31, 3),
            "step": step,
            "train/loss": loss,
            "train/lr": lr,
        }
        row["train/accuracy"] = 1 - loss / 2.6
        if step % 10 == 0:
            row |= {
                "perf/samples_per_s": 900 + 90 * draw.random(),
                "perf/step_time_s": 0.031,
                "perf/data_time_s": 0.004,
                "perf/forward_time_s": 0.009,
                "perf/backward_time_s": 0.014,
                "perf/memory_bytes": 560_000_000 + 1000 * step,
                "perf/mfu": 0.31 + 0.02 * draw.random(),
            }
            if tokens:
                row["perf/tokens_per_s"] = row["perf/samples_per_s"] * 64
        if health and step % 10 == 0:
            for depth, layer in enumerate(LAYERS):
                row[f"health/{layer}/grad_norm"] = 10 ** (-depth + draw.random())
                row[f"health/{layer}/update_ratio"] = 1e-3 * (1 + draw.random())
                row[f"health/{layer}/activation_std"] = 1.0 / (1 + depth) + 0.1 * draw.random()
        rows.append(row)
        if step % 30 == 0:
            rows.append(
                {
                    "time": row["time"],
                    "step": step,
                    "val/loss": loss * 1.1,
                    "val/accuracy": 0.98 - loss / 2.7,
                    "epoch": step / 40,
                }
            )
    return rows


def finish(
    run: RunFolder, recipe: str, rows: list[dict[str, Any]], *, started: float, state: str, strategy: str = "single"
) -> None:
    """Writes status and manifest as they are at a run's end, or in its middle."""
    validations = [row for row in rows if "val/loss" in row]
    best = min(validations, key=lambda row: row["val/loss"], default=None)
    last: dict[str, Any] = {}
    for row in rows:
        last.update({name: value for name, value in row.items() if name.startswith(("train/", "val/"))})
    ended = rows[-1]["time"]
    run.write_json(
        "manifest.json",
        {
            "command": ["headway", "fit", recipe],
            "started": started,
            "code": {"commit": "0" * 40, "diff": ""},
            "job": None,
            "packages": {"headway": "0.1.0", "torch": "2.13.0", "numpy": "2.4.6"},
            "python": "3.11.7",
            "hardware": {"host": socket.gethostname(), "cores": 2, "memory_bytes": 25_000_000_000, "device": "cpu"},
            "world_size": 2,
            **({"ended": ended, "exit_code": 0} if state != "running" else {}),
        },
    )
    status: dict[str, Any] = {
        "state": state, "recipe": recipe, "step": rows[-1]["step"],
        "pid": 1 if state == "running" else os.getpid(), "host": socket.gethostname(),
        "monitor": "val/loss", "strategy": strategy, "updated": ended,
    }  # fmt: skip
    if best is not None:
        own = {name: value for name, value in best.items() if name.startswith("val/")}
        status["best"] = {"step": best["step"], "metric": "val/loss", "value": best["val/loss"], "metrics": own}
        status["checkpoint"] = best["step"]
    if state == "done":
        status["final"] = {**last, "test/loss": last.get("val/loss", 0.0) * 1.02}
    if state in ("failed", "stopped"):
        status["reason"] = {"failed": "train/loss is nan at step 211", "stopped": "stopped by asha at step 30"}[state]
    run.write_json("status.json", status)


def make_media(run: RunFolder, step: int) -> None:
    """Writes a picture, a table and a text."""
    folder = run.path / "media"
    folder.mkdir()
    for at in (step // 2, step):
        (folder / f"misclassified-{at:08d}.png").write_bytes(png(64, 48, at))
        table = {"columns": ["text", "wanted", "found"], "data": [["<b>sample</b>", 3, 5], ["another", 1, 1]]}
        (folder / f"predictions-{at:08d}.json").write_text(json.dumps(table))
        (folder / f"sample-{at:08d}.txt").write_text(f"def step_{at}():\n    return '<script>alert(1)</script>'\n")


def png(width: int, height: int, shade: int) -> bytes:
    """Returns a small grey picture."""
    rows = b"".join(b"\0" + bytes((x * y + shade) % 256 for x in range(width)) for y in range(height))

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


def make_sweep(runs: Path, name: str, scheduler: str, *, num_trials: int, draw: random.Random) -> None:
    """Makes a sweep with the ledger that a real one keeps: its trials, its journal, and who took whose weights."""
    changes = [
        f"sweep.trials={num_trials}",
        f"sweep.scheduler={scheduler}",
        "trainer.max_steps=270",
        "sweep.searcher=random",
    ]
    plan = check_sweep("mlp-digits", changes)
    ledger = Ledger(create_sweep_folder(runs, plan, name=name), plan)
    began = time.time() - DAY_S
    for number in range(num_trials):
        config = {
            "init.kind": draw.choice(["uniform_fan_in", "xavier", "kaiming", "orthogonal"]),
            "model.dropout": draw.uniform(0, 0.5),
            "optim.lr": 10 ** draw.uniform(-4, -1),
        }
        ledger.propose(number, config)
        ledger.start(number, config)
        steps = 270 if scheduler == "pbt" or number % 9 == 0 else 90 if number % 3 == 0 else 30
        failed = number == num_trials - 1
        started = began + number * 40
        run = make_fit(
            runs, "mlp-digits", trial_run_id(name, number), lr=config["optim.lr"], started=started, draw=draw,
            num_rows=steps, state="failed" if failed else "done" if steps == 270 else "stopped",
            health=False, media=False,
        )  # fmt: skip
        for row in (json.loads(line) for line in run.metrics.read_text().splitlines()):
            if "val/loss" in row:
                ledger.report(number, {"val/loss": row["val/loss"], "step": row["step"], "done": False})
        if scheduler == "pbt" and number % 2:
            lineage = MetricsFile(run.path / "lineage.jsonl")
            lineage.write(
                [
                    {
                        "step": 90,
                        "from": trial_run_id(name, number - 1),
                        "config": {**config, "optim.lr": config["optim.lr"] * 1.2},
                    }
                ]
            )
            lineage.close()
        ledger.end(number, "train/loss is nan at step 211" if failed else None)
    ledger.close("done")
    spread_times(runs / name / "journal.jsonl", began)


def spread_times(path: Path, began: float) -> None:
    """Gives the lines of a journal, which were written in one go, times as if each had taken a while."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "time": began + place * 2.5}) + "\n" for place, row in enumerate(rows)))


def make_odd_ones(runs: Path, draw: random.Random) -> None:
    """Makes what goes wrong."""
    now = time.time()
    running = make_fit(runs, "mlp-digits", "running-now", lr=1e-3, started=now - 93, draw=draw, state="running")
    running.update_status(step=150)
    died = make_fit(runs, "mlp-digits", "died-silently", lr=1e-3, started=now - DAY_S, draw=draw, state="running")
    status = died.status()
    # No process has this number: the kernel's are smaller.
    died.write_json("status.json", {**status, "pid": 2**22 + 1})
    torn = make_fit(runs, "mlp-digits", "torn-metrics", lr=3e-3, started=now - DAY_S / 2, draw=draw)
    with torn.metrics.open("a") as file:
        file.write('{"step": 301, "train/lo\n{"step": 302, "train/loss": 0.2, "time": 1.0}\n{"step": 303, "tra')
    half = create_run(runs, "mlp-digits", name="half-written")
    half.recipe.write_text("model: [unclosed")
    (half.path / "status.json").write_text('{"state": "run')
    closed = create_run(runs, "mlp-digits", name="not-mine")
    closed.recipe.write_text("name: secret\n")
    closed.path.chmod(0)
    hostile = runs / f'{HOSTILE} img src=x onerror=alert(2)> & "quotes"'
    made = make_fit(runs, "mlp-digits", "hostile", lr=1e-2, started=now - DAY_S / 3, draw=draw)
    made.update_status(recipe="<img src=x onerror=alert(3)>", reason="</script><script>alert(4)</script>")
    made.path.rename(hostile)
    (runs / "holiday-photos").mkdir()
    (runs / "holiday-photos" / "beach.jpg").write_bytes(b"no run")
    (runs / "notes.txt").write_text("not a run either\n")


def make_many(runs: Path, count: int, *, seed: int = 1) -> None:
    """Makes small finished runs, quickly."""
    draw = random.Random(seed)
    runs.mkdir(parents=True, exist_ok=True)
    texts = {
        recipe: load_recipe(recipe, {"optim.lr": 0.123456}).yaml()
        for recipe in ("mlp-digits", "convnet-digits", "gpt-python-docs")
    }
    now = time.time()
    for number in range(count):
        recipe = draw.choice(list(texts))
        path = runs / f"{recipe}-{number:06d}"
        (path / "logs").mkdir(parents=True)
        (path / "checkpoints").mkdir()
        run = RunFolder(path, flush=False)
        lr = round(10 ** draw.uniform(-4, -1), 8)
        run.recipe.write_text(texts[recipe].replace("0.123456", repr(lr)))
        rows = curve_rows(30, lr=lr, started=now - draw.uniform(0, 90) * DAY_S, draw=draw)
        run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        finish(
            run, recipe, rows, started=rows[0]["time"], state=draw.choice(["done", "done", "done", "stopped", "failed"])
        )


def make_long(runs: Path, num_rows: int, *, name: str = "long", columns: bool = True) -> RunFolder:
    """Makes a run of very many rows; without `columns` as a headway that kept none would have left it."""
    draw = random.Random(2)
    run = create_run(runs, "mlp-digits", name=name)
    run.recipe.write_text(load_recipe("mlp-digits", {"trainer.max_steps": num_rows}).yaml())
    started = time.time() - DAY_S
    metrics = MetricsFile(run.metrics, columns=columns)
    rows: list[dict[str, Any]] = []
    for begin in range(0, num_rows, 10_000):
        rows = [
            {
                "time": round(started + step * 0.05, 3),
                "step": step,
                "train/loss": 1 / (1 + step / 1e4) + 0.1 * draw.random(),
                "train/accuracy": draw.random(),
                "train/lr": 1e-3,
            }
            for step in range(begin + 1, min(begin + 10_000, num_rows) + 1)
        ]
        metrics.write(rows)
    metrics.close()
    finish(run, "mlp-digits", rows, started=started, state="done")
    return run


def main() -> None:
    """Makes the folder that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=0, help="small runs besides")
    parser.add_argument("--rows", type=int, default=0, help="rows of one long run besides")
    given = parser.parse_args()
    make_all(given.folder)
    if given.runs:
        make_many(given.folder, given.runs)
    if given.rows:
        make_long(given.folder, given.rows)


if __name__ == "__main__":
    main()
