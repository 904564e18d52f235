"""Sweep folders without a sweep: what reads them needs neither Ray nor training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

SPACE = {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "init.kind": {"choice": ["xavier", "kaiming"]}}

WriteSweep = Callable[..., Path]


@pytest.fixture
def write_sweep(tmp_path: Path) -> WriteSweep:
    """Returns a function that writes a sweep's folder and its trials' run folders, and returns the sweep's."""

    def write(
        samples: Sequence[tuple[dict[str, Any], float | None]] = (),
        *,
        name: str = "s",
        space: dict[str, Any] = SPACE,
        state: str = "done",
        statuses: Sequence[str] = (),
        **status: Any,
    ) -> Path:
        path = tmp_path / "runs" / name
        path.mkdir(parents=True)
        search = {"metric": "val/loss", "mode": "min", "trials": max(1, len(samples)), "space": space}
        (path / "sweep.yaml").write_text(yaml.safe_dump({"model": {"kind": "mlp"}, "sweep": search}))
        rows = []
        for number, (config, value) in enumerate(samples):
            run_id = f"{name}-{number:04d}"
            run = write_run(path.parent / run_id, config, value)
            how = statuses[number] if statuses else "done"
            row = {"trial": number, "run_id": run_id, "run_dir": str(run), "status": how, "config": config}
            rows.append(row if value is None else {**row, "value": value, "step": 10})
        (path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        counts = {state: [row["status"] for row in rows].count(state) for state in ("done", "stopped", "failed")}
        write_status(
            path,
            kind="sweep",
            state=state,
            recipe="tiny",
            metric="val/loss",
            mode="min",
            trials={"total": len(samples), "pending": 0, "running": 0, **counts},
            **status,
        )
        return path

    return write


def write_run(path: Path, config: dict[str, Any], value: float | None) -> Path:
    """Writes a trial's run folder."""
    path.mkdir()
    tree: dict[str, Any] = {"model": {"kind": "mlp"}}
    for dotted, sampled in config.items():
        section, _, key = dotted.partition(".")
        tree.setdefault(section, {})[key] = sampled
    (path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    final = {} if value is None else {"val/loss": value + 0.5, "test/accuracy": 0.75}
    write_status(path, state="done", step=13, final=final)
    return path


def write_status(path: Path, **status: Any) -> None:
    """Writes a folder's status.json."""
    (path / "status.json").write_text(json.dumps({"updated": time.time(), **status}))
