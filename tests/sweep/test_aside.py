"""What another process works out at a sweep's end is what this one would."""

import json

import pytest

from headway.sweep._aside import draw_aside, measure_aside
from headway.sweep.folder import SweepFolder

SPACE = {"optim.lr": {"loguniform": [1e-4, 1.0]}, "model.dropout": {"uniform": [0.0, 0.5]}}


@pytest.fixture
def folder(tmp_path):
    """A sweep that has ended, of which lr is what mattered."""
    path = tmp_path / "s"
    path.mkdir()
    (path / "sweep.yaml").write_text(json.dumps({"name": "x", "sweep": {"trials": 12, "space": SPACE}}))
    (path / "status.json").write_text(json.dumps({"state": "done", "metric": "val/loss", "mode": "min"}))
    rows = [
        {
            "trial": number, "run_id": f"s-{number:04d}", "run_dir": str(tmp_path / f"s-{number:04d}"),
            "status": "done", "config": {"optim.lr": 10 ** -(number / 4), "model.dropout": number * 5 % 12 / 24},
            "value": float(number), "step": 3,
        }
        for number in range(12)
    ]  # fmt: skip
    (path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_mattered_is_the_same(folder):
    found = measure_aside(folder)
    assert found == SweepFolder(folder).result().importance()
    assert found.effects[0].path == "optim.lr"
    assert found.effects[0].importance > 0.5


def test_it_draws_every_hyperparameter(folder):
    assert draw_aside(folder) is None
    assert {file.name for file in (folder / "plots").iterdir()} == {"optim.lr.png", "model.dropout.png"}


def test_why_it_could_not_is_one_line(folder):
    (folder / "plots").write_text("in the way")
    assert draw_aside(folder) == "File exists"
    (folder / "sweep.yaml").write_text("sweep: 3\n")
    assert measure_aside(folder).reason.endswith("was it edited?")
