"""Curves: as many points as asked for, and what a stretch holds is what its rows hold."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from headway.config.errors import UserError
from headway.dash.runs import Runs
from headway.dash.series import Curves, number, per_step, thinned
from headway.run import COLUMNS_NAME, MetricsFile, RunFolder, create_run, read_metrics

pytestmark = pytest.mark.quick
POINTS = 97


def by_hand(x, y, points):
    """The same, one row at a time."""
    low, high = x[0], x[-1]
    buckets = {}
    for place, value in zip(x, y, strict=True):
        bucket = min(points - 1, int((place - low) / (high - low) * points))
        buckets.setdefault(bucket, []).append((place, value))
    for rows in (buckets[bucket] for bucket in sorted(buckets)):
        values = [value for _, value in rows if math.isfinite(value)]
        mean = sum(values) / len(values) if values else None
        yield sum(place for place, _ in rows) / len(rows), mean, min(values, default=None), max(values, default=None)


@pytest.mark.parametrize("count", [98, 1009, 20_011])
def test_a_stretch_tells_mean_least_and_most_of_its_rows(count):
    draw = np.random.default_rng(3)
    x = np.cumsum(draw.uniform(0.1, 9.7, count))
    y = draw.normal(size=count)
    y[::17] = np.nan
    y[5::31] = np.inf
    found = thinned(x, y, points=POINTS)
    wanted = list(by_hand(x.tolist(), y.tolist(), POINTS))
    assert len(found["x"]) == len(wanted) <= POINTS
    for name, place in (("x", 0), ("y", 1), ("min", 2), ("max", 3)):
        for got, want in zip(found[name], (row[place] for row in wanted), strict=True):
            assert got == want or got == pytest.approx(want, rel=1e-7)


def test_few_rows_are_told_as_they_are():
    x, y = np.array([1.0, 2.0, 5.0]), np.array([0.5, np.nan, -np.inf])
    assert thinned(x, y, points=3) == {"x": [1, 2, 5], "y": [0.5, None, None], "min": None, "max": None}
    assert thinned(np.empty(0), np.empty(0), points=3) == {"x": [], "y": [], "min": None, "max": None}


def test_a_part_is_told_in_full_detail():
    x = np.arange(10_000.0)
    found = thinned(x, x * 2, points=11, begin=500, end=509.5)
    assert found == {"x": [*range(500, 510)], "y": [*range(1000, 1020, 2)], "min": None, "max": None}
    assert thinned(x, x, points=11, begin=20_000)["x"] == []


def test_rows_out_of_order_and_without_a_place_are_put_in_order():
    x = np.array([3.0, 1.0, np.nan, 2.0, 1.0])
    assert thinned(x, np.arange(5.0), points=9) == {"x": [1, 1, 2, 3], "y": [1, 4, 3, 0], "min": None, "max": None}


def test_rows_all_at_one_place_are_one_point():
    assert thinned(np.full(50, 7.0), np.arange(50.0), points=5) == {"x": [7], "y": [24.5], "min": [0], "max": [49]}


@pytest.mark.parametrize(
    ("value", "told"), [(float("nan"), None), (float("inf"), None), (3.0, 3), (0.1 + 0.2, 0.3), (1e300, 1e300)]
)
def test_a_number_is_told_as_json_has_it(value, told):
    assert number(value) == told


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path / "runs", "x", name="run")
    run.recipe.write_text("name: x\ntrainer:\n  batch_size: 32\n")
    return run


@pytest.fixture
def looked_at():
    """Returns a function that gives the curves of a run as a server that starts now reads them."""
    made = []

    def look(run, cache=None):
        made.append(Curves(run.path.parent, cache))
        return made[-1], Runs(run.path.parent).find(run.id)

    yield look
    for curves in made:
        curves.close()


def fill(run, steps, **how):
    file = MetricsFile(run.metrics, **how)
    file.write([{"time": 100.0 + step, "step": step, "train/loss": 1.0 / step} for step in steps])
    file.close()


def test_a_run_that_grows_is_followed(run, looked_at, tmp_path):
    curves, entry = looked_at(run)
    assert curves.curves(entry, ["train/loss"]) == [
        {"name": "train/loss", "x": [], "y": [], "min": None, "max": None, "rows": 0, "last_step": None}
    ]
    for end in (3, 5, 5000):
        fill(run, range(1 if end == 3 else end - 2, end + 1))
        (curve,) = curves.curves(entry, ["train/loss"], points=7)
        assert curve["last_step"] == end
        assert curve["rows"] == len(read_metrics(run.metrics))


def test_the_axes_are_steps_seconds_samples_and_tokens(run, looked_at, tmp_path):
    fill(run, range(1, 4))
    curves, entry = looked_at(run)
    tokens = {"input_kind": "tokens", "input_shape": [64]}
    for axis, x in (
        ("step", [1, 2, 3]),
        ("time", [0, 1, 2]),
        ("samples", [32, 64, 96]),
        ("tokens", [2048, 4096, 6144]),
    ):
        (curve,) = curves.curves(entry, ["train/loss"], axis=axis, scale=per_step(entry, axis, tokens))
        assert curve["x"] == x
    with pytest.raises(UserError, match="reads no tokens"):
        per_step(entry, "tokens", {"input_kind": "features", "input_shape": [64]})
    run.recipe.write_text("name: x\n")
    with pytest.raises(UserError, match="does not say its batch size"):
        per_step(looked_at(run)[1], "samples", {})


def test_a_resume_that_drops_rows_is_noticed(run, looked_at, tmp_path):
    fill(run, range(1, 9000), columns=True)
    curves, entry = looked_at(run)
    assert curves.rows(entry, "train/loss").step[-1] == 8999
    MetricsFile(run.metrics, keep_through=7).close()
    fill(run, [8, 9])
    assert curves.rows(entry, "train/loss").step.tolist() == [*range(1, 10)]


def test_columns_that_are_damaged_while_they_are_read_are_done_without(run, looked_at, tmp_path):
    fill(run, range(1, 9000), columns=True)
    curves, entry = looked_at(run)
    assert curves.names(entry) == ["train/loss"]
    os.truncate(run.path / COLUMNS_NAME, 1000)
    assert len(curves.rows(entry, "train/loss").step) == 8999
    with (run.path / COLUMNS_NAME).open("rb+") as file:
        file.write(b"\0" * 1000)
    assert len(looked_at(run)[0].rows(entry, "train/loss").step) == 8999


def test_a_long_run_without_columns_is_given_them_in_the_cache(run, looked_at, tmp_path, monkeypatch):
    monkeypatch.setattr("headway.dash.series._WORTH_A_SIDECAR", 200_000)
    fill(run, range(1, 9000))
    curves, entry = looked_at(run, tmp_path / "cache")
    assert len(curves.rows(entry, "train/loss").step) == 8999
    (made,) = (tmp_path / "cache").iterdir()
    first = made.stat().st_mtime_ns
    assert not (run.path / COLUMNS_NAME).exists()
    curves, entry = looked_at(run, tmp_path / "cache")
    assert len(curves.rows(entry, "train/loss").step) == 8999
    assert made.stat().st_mtime_ns == first
    made.write_bytes(b"nonsense")
    curves, entry = looked_at(run, tmp_path / "cache")
    assert len(curves.rows(entry, "train/loss").step) == 8999


def test_metrics_that_are_a_link_are_not_read(run, looked_at, tmp_path):
    (tmp_path / "secret").write_text('{"step": 1, "time": 1, "secret/key": 7}\n')
    run.metrics.symlink_to(tmp_path / "secret")
    curves, entry = looked_at(run)
    assert curves.names(entry) == []


def test_runs_that_were_looked_at_long_ago_are_closed(looked_at, tmp_path, monkeypatch):
    monkeypatch.setattr("headway.dash.series.OPEN_RUNS", 3)
    runs = [create_run(tmp_path, "x", name=f"run-{number}") for number in range(7)]
    for run in runs:
        run.recipe.write_text("name: x\n")
        fill(RunFolder(run.path), range(1, 5000), columns=True)
    table = Runs(tmp_path)
    curves, _ = looked_at(runs[0])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        for run in runs:
            assert len(curves.rows(table.find(run.id), "train/loss").step) == 4999
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
