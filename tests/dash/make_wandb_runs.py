"""Makes offline runs to look at with W&B's own SDK, as somebody's training elsewhere would leave them.

    python tests/dash/make_wandb_runs.py FOLDER

One of everything: a run with settings, curves, pictures, a table, histograms and printed output; one that failed; one
whose every name is markup; one that was killed, so that its file ends in the middle of a record.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from headway.wandb_file import read_offline_run

NUM_STEPS = 40
HOSTILE = "<script>alert(1)</script>"
_AN_HOUR_S = 3600.0
_PATIENCE_S = 60.0


def make_all(folder: Path) -> None:
    """Makes the runs, and waits until the SDK's own process has written them out."""
    make_first(folder)
    make_failed(folder)
    make_hostile(folder)
    make_killed(folder)
    until = time.monotonic() + _PATIENCE_S
    while not is_written(folder):
        if time.monotonic() > until:
            raise SystemExit(f"{folder}: W&B's process did not write its runs out within {_PATIENCE_S:.0f} s")
        time.sleep(0.05)
    tear(folder)


def is_written(folder: Path) -> bool:
    """Returns whether all that the runs logged and printed is in their files."""
    files = [*folder.rglob("run-*.wandb")]
    printed = [path.read_text() for path in folder.rglob("output.log")]
    said_all = len(printed) == 2 and all(f"step {NUM_STEPS - 1} " in text or HOSTILE in text for text in printed)
    return said_all and all(read_offline_run(path).complete for path in files)


@contextmanager
def run_of(folder: Path, run_id: str, **more: Any) -> Iterator[Any]:
    """Gives an offline run, and ends it."""
    settings = wandb.Settings(silent=True, disable_git=True, x_disable_stats=True)
    run = wandb.init(mode="offline", dir=str(folder), id=run_id, reinit="create_new", settings=settings, **more)
    yield run
    run.finish(exit_code=int(run_id == "failed"))


def make_first(folder: Path) -> None:
    """Makes a run with one of everything that the dashboard shows."""
    draw = np.random.default_rng(0)
    config = {"optim": {"kind": "sgd", "lr": 0.1}, "depth": 3}
    with run_of(
        folder, "first", name="first try", project="elsewhere", group="ablation", tags=["theirs", "for the paper"],
        notes="the baseline", config=config,
    ) as run:  # fmt: skip
        for step in range(NUM_STEPS):
            row: dict[str, Any] = {"train/loss": 2.0 / (step + 1), "val/loss": 2.5 / (step + 1), "accuracy": step / 50}
            if step % 13 == 0:
                row["val/samples"] = wandb.Image(picture(draw), caption=f"step {step}")
            if step % 4 == 0:
                row["weights/first"] = wandb.Histogram(draw.normal(0.0, 0.02 * (step + 5), 1000).tolist())
            if step == NUM_STEPS - 1:
                row["answers"] = wandb.Table(columns=["wanted", "found"], data=[["cat", "cat"], ["dog", "<b>cat</b>"]])
                row["errors"] = wandb.Histogram(np_histogram=np.histogram([1.0, 2.0, 2.0, 4.0], bins=3))
            run.log(row)
            print(f"step {step} <i>of {NUM_STEPS}</i>")  # noqa: T201 - the run's own output


def make_failed(folder: Path) -> None:
    """Makes a run that ended with an error, and has no loss."""
    with run_of(folder, "failed", name="too deep", project="elsewhere", config={"depth": 90}) as run:
        run.log({"accuracy": 0.1})


def make_hostile(folder: Path) -> None:
    """Makes a run of which everything that has a name is markup."""
    config = {"<b>depth</b>": HOSTILE}
    with run_of(
        folder, "hostile", name=HOSTILE, project="<i>project", tags=["<b>bold</b>"], notes=HOSTILE, config=config
    ) as run:
        row = {f"odd/{HOSTILE}": 1.0, f"spread/{HOSTILE}": wandb.Histogram([1.0, 2.0])}
        run.log({**row, "table": wandb.Table(columns=[HOSTILE], data=[[HOSTILE]])})
        print(HOSTILE)  # noqa: T201 - the run's own output


def make_killed(folder: Path) -> None:
    """Makes a run that `tear` takes the end of."""
    with run_of(folder, "killed", name="killed", project="elsewhere", config={"depth": 5}) as run:
        for step in range(NUM_STEPS):
            run.log({"val/loss": 1.0 + step})


def tear(folder: Path) -> None:
    """Takes the end of the killed run's file away, and makes it look an hour old."""
    (path,) = folder.rglob("run-killed.wandb")
    path.write_bytes(path.read_bytes()[:-700])
    then = time.time() - _AN_HOUR_S
    os.utime(path, (then, then))


def picture(draw: np.random.Generator) -> np.ndarray[Any, Any]:
    """Returns a picture of noise, 24 x 36 pixels."""
    return draw.integers(0, 255, (24, 36, 3), dtype=np.uint8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    make_all(arguments.folder)
