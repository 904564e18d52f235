"""What tracking costs: rows a second of the local file, and time on the training thread for W&B.

    python benchmarks/tracking.py [--out benchmarks/results/tracking-cpu.md]

The loop's step is made of matrix products and takes about 50 ms; it is timed with and without W&B, offline and every
step logged, in turns. Beside it stands what it costs to call `wandb.log` where the step is made, as most programs do.
"""

from __future__ import annotations

import argparse
import os
import platform as machine
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import wandb

from headway.recipe import Recipe, load_recipe
from headway.run import MetricsFile, RunFolder, make_run_folder
from headway.track.weights_and_biases import Choice, WandbSink

RECIPE = {
    "name": "tracking",
    "model": {"kind": "mlp", "hidden": [17]},
    "data": "digits",
    "optim": {"kind": "adamw", "lr": 1e-3},
    "trainer": {"max_steps": 1, "batch_size": 64},
    "track": {"wandb": "offline", "wandb_every": 1, "code": False},
}
STEP_S = 0.05
STEPS = 60
TURNS = 6
Give = Callable[[dict[str, float]], None]


def row(step: int) -> dict[str, float]:
    """Returns a row as a fit makes one."""
    return {
        "step": step,
        "train/loss": 2.3 / (step + 1),
        "train/accuracy": 0.5,
        "train/lr": 1e-3,
        "train/grad_norm": 1.7,
    }


def local_rows_per_s(folder: Path, num_rows: int = 20_000) -> float:
    """Returns how many rows a second metrics.jsonl takes, each handed to the operating system on its own."""
    file = MetricsFile(folder / "metrics.jsonl")
    started = time.perf_counter()
    for step in range(num_rows):
        file.write([row(step)])
    elapsed_s = time.perf_counter() - started
    file.close()
    return num_rows / elapsed_s


def matrix_products() -> Callable[[], None]:
    """Returns a step that takes about 50 ms on this machine."""
    left, right = torch.randn(384, 384), torch.randn(384, 384)
    started = time.perf_counter()
    for _ in range(50):
        left @ right
    times = max(1, round(STEP_S / ((time.perf_counter() - started) / 50)))

    def step() -> None:
        for _ in range(times):
            left @ right

    return step


def median_step_s(step: Callable[[], None], give: Give, first: int) -> float:
    """Returns the median time of a step that gives a row away at its end."""
    times = []
    for number in range(first, first + STEPS):
        started = time.perf_counter()
        step()
        give(row(number))
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def cost_s(give: Give, num_rows: int = 2000) -> float:
    """Returns the median time of one call on the calling thread, at a pace that the other thread can keep."""
    times = []
    for number in range(num_rows):
        given = row(1_000_000 + number)
        started = time.perf_counter()
        give(given)
        times.append(time.perf_counter() - started)
        time.sleep(0.001)
    return statistics.median(times)


def compare(folder: Path, recipe: Recipe) -> list[tuple[str, float, float]]:
    """Returns name, cost of a call, and time of a step, of each way to track."""
    sink = WandbSink(make_run_folder(folder / "threaded"), recipe, Choice("offline"))
    direct = wandb.init(dir=str(folder), mode="offline", reinit="create_new", settings=wandb.Settings(silent=True))
    ways: dict[str, Give] = {
        "nothing": lambda _: None,
        "headway: a queue and a thread": lambda given: sink.write([given]),
        "`wandb.log` in the loop": lambda given: direct.log(given),
    }
    step = matrix_products()
    steps: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(TURNS):
        for name, give in ways.items():
            steps[name].append(median_step_s(step, give, turn * STEPS))
    found = [(name, cost_s(give), statistics.median(steps[name])) for name, give in ways.items()]
    sink.close()
    direct.finish()
    return found


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows_per_s = local_rows_per_s(RunFolder(folder).path)
        found = compare(folder, load_recipe(RECIPE))
    base = found[0][2]
    lines = [
        "# What tracking costs",
        "",
        f"`python benchmarks/tracking.py` on {os.cpu_count()} cores, Python {machine.python_version()}, "
        f"torch {torch.__version__}, W&B {wandb.__version__} offline, every step logged.",
        "",
        f"The local file takes {rows_per_s:,.0f} rows a second, each written on its own.",
        "",
        "| W&B gets a row by | a call, on the training thread | step | more than nothing |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {call_s * 1e6:.1f} µs | {step_s * 1e3:.2f} ms | {(step_s / base - 1) * 100:+.2f}% |"
        for name, call_s, step_s in found
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
