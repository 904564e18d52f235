"""What tracking costs: rows a second of the local file, and time on the training thread for W&B.

    python benchmarks/tracking.py [--out benchmarks/results/tracking-cpu.md]

The loop's step is made of matrix products and takes about 50 ms. Blocks of steps that give their rows to nobody, to
headway and to `wandb.log` follow each other, in an order drawn anew each round, so that whatever else the machine does
meets all three alike. What a way costs is the median over the rounds of its block's mean step, less that of the block
which gave its rows to nobody: what other threads do meanwhile is in it. The range is that median's 95% confidence
interval. Beside it stands what the calling thread itself spends: processor time, which no other program adds to. W&B is
offline, and every step is logged.
"""

from __future__ import annotations

import argparse
import math
import os
import platform as machine
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
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
ROUNDS = 150
BLOCK = 4
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


@dataclass(frozen=True)
class Cost:
    """What one way to track costs."""

    name: str
    call_s: float
    """Median time of a call."""
    thread_s: float
    """Mean processor time of the calling thread in a call."""
    extra_s: tuple[float, float, float]
    """How much longer a step is: the median, and the ends of its 95% confidence interval."""


def timed_round(
    step: Callable[[], None], ways: dict[str, Give], order: list[str], first: int
) -> dict[str, tuple[float, float, float]]:
    """Returns of each way the mean time of a step, of a call, and of the calling thread's processor in the call."""
    found = {}
    for name in order:
        step_s, call_s, thread_s = [], [], []
        for number in range(first, first + BLOCK):
            given = row(number)
            started = time.perf_counter()
            step()
            called, thread = time.perf_counter(), time.thread_time()
            ways[name](given)
            thread_s.append(time.thread_time() - thread)
            ended = time.perf_counter()
            step_s.append(ended - started)
            call_s.append(ended - called)
        found[name] = statistics.mean(step_s), statistics.mean(call_s), statistics.mean(thread_s)
    return found


def median_range(values: list[float]) -> tuple[float, float, float]:
    """Returns the median and the ends of its 95% confidence interval, by order statistics."""
    ordered = sorted(values)
    half = 0.98 * math.sqrt(len(ordered))
    low, high = math.floor(len(ordered) / 2 - half), math.ceil(len(ordered) / 2 + half)
    return statistics.median(ordered), ordered[max(0, low)], ordered[min(len(ordered) - 1, high)]


def compare(folder: Path, recipe: Recipe) -> tuple[float, list[Cost]]:
    """Returns the median time of a step that gives its row to nobody, and what each way to track costs."""
    sink = WandbSink(make_run_folder(folder / "threaded"), recipe, Choice("offline"))
    direct = wandb.init(dir=str(folder), mode="offline", reinit="create_new", settings=wandb.Settings(silent=True))
    ways: dict[str, Give] = {
        "nothing": lambda _: None,
        "headway: a queue and a thread": lambda given: sink.write([given]),
        "`wandb.log` in the loop": lambda given: direct.log(given),
    }
    step = matrix_products()
    draw = random.Random(0)
    rounds = [timed_round(step, ways, draw.sample(list(ways), len(ways)), 1 + turn * BLOCK) for turn in range(ROUNDS)]
    sink.close()
    direct.finish()
    costs = [
        Cost(
            name,
            statistics.median(found[name][1] for found in rounds),
            statistics.mean(found[name][2] for found in rounds),
            median_range([found[name][0] - found["nothing"][0] for found in rounds]),
        )
        for name in ways
    ]
    return statistics.median(found["nothing"][0] for found in rounds), costs


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows_per_s = local_rows_per_s(RunFolder(folder).path)
        base_s, costs = compare(folder, load_recipe(RECIPE))
    lines = [
        "# What tracking costs",
        "",
        f"`python benchmarks/tracking.py` on {os.cpu_count()} cores, Python {machine.python_version()}, "
        f"torch {torch.__version__}, W&B {wandb.__version__} offline, every step logged.",
        "",
        f"The local file takes {rows_per_s:,.0f} rows a second, each written on its own.",
        "",
        f"A step that gives its row to nobody takes {base_s * 1e3:.1f} ms (median of {ROUNDS} blocks of {BLOCK}).",
        "",
        "| W&B gets a row by | a call | of it the thread's own time | a step is longer by | 95% interval | of 50 ms |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {cost.name} | {cost.call_s * 1e6:.1f} µs | {cost.thread_s * 1e6:.1f} µs | "
        f"{cost.extra_s[0] * 1e6:+,.0f} µs | {cost.extra_s[1] * 1e6:+,.0f} to {cost.extra_s[2] * 1e6:+,.0f} µs | "
        f"{cost.extra_s[0] / STEP_S * 100:+.2f}% |"
        for cost in costs
    ]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if arguments.out:
        arguments.out.write_text(text)


if __name__ == "__main__":
    main()
