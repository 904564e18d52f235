"""`headway plot`: the numbers behind the curves, and the files that come out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from headway.cli import run
from headway.plot import LONGEST_CURVE, Plot, find_runs, group, make_curve, read_source, smoothed
from headway.run import RunFolder, make_run_folder

HOUR_S = 3600.0


def write_run(runs: Path, name: str, *, lr: float = 0.1, shift: float = 0.0, last: int = 50) -> RunFolder:
    folder = make_run_folder(runs / name)
    folder.recipe.write_text(yaml.safe_dump({"name": "mlp", "optim": {"lr": lr}, "trainer": {"batch_size": 7}}))
    rows = [
        {
            "time": 1e9 + HOUR_S * step, "step": step, "val/loss": shift + 10 / step, "train/loss": 1 / step,
            "perf/samples_per_s": 3.0, "perf/tokens_per_s": 33.0,
        }
        for step in range(10, last + 1, 10)
    ]  # fmt: skip
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def curve(runs: Path, names: list[str], **settings):
    plot = Plot(**{"metrics": ["val/loss"], **settings})
    return make_curve([read_source(found) for name in names for found in find_runs(runs, name)], "val/loss", plot)


def test_several_runs_are_their_mean_with_the_spread_around_it(tmp_path) -> None:
    for seed, shift in ((1, -1.0), (2, 0.0), (3, 1.0)):
        write_run(tmp_path, f"many-seed{seed}", shift=shift)
    steps = np.arange(10, 51, 10)
    one = curve(tmp_path, ["many"])
    assert one.runs == 3
    np.testing.assert_allclose(one.x, steps)
    np.testing.assert_allclose(one.y, 10 / steps)
    np.testing.assert_allclose(one.high - one.y, 1.0)
    np.testing.assert_allclose(one.y - one.low, 1.0)
    whole = curve(tmp_path, ["many"], band="range")
    np.testing.assert_allclose((whole.low, whole.high), (10 / steps - 1, 10 / steps + 1))
    assert curve(tmp_path, ["many"], band="none").low is None
    logarithmic = curve(tmp_path, ["many-seed2", "many-seed3"], log="y")
    assert (logarithmic.low > 0).all()


def test_a_mean_ends_where_the_first_of_its_runs_does(tmp_path) -> None:
    write_run(tmp_path, "short", last=30)
    write_run(tmp_path, "long", last=50)
    assert curve(tmp_path, ["short", "long"]).x[-1] == 30


@pytest.mark.parametrize(
    ("axis", "last"), [("step", 50), ("samples", 350), ("tokens", 350 * 11), ("time", 40 * HOUR_S)]
)
def test_the_axis_counts_what_it_says(tmp_path, axis: str, last: float) -> None:
    write_run(tmp_path, "one")
    assert curve(tmp_path, ["one"], x=axis).x[-1] == pytest.approx(last)


def test_runs_are_grouped_by_a_setting_of_their_recipes(tmp_path) -> None:
    sources = [read_source(write_run(tmp_path, f"r{number}", lr=lr)) for number, lr in enumerate((0.1, 0.2, 0.1))]
    groups = group(sources, "optim.lr")
    assert {label: [one.run.id for one in members] for label, members in groups.items()} == {
        "lr = 0.1": ["r0", "r2"], "lr = 0.2": ["r1"],
    }  # fmt: skip
    assert list(group(sources, "name")) == ["mlp"]


def test_smoothing_keeps_a_constant_and_the_first_value() -> None:
    np.testing.assert_allclose(smoothed(np.full(7, 3.0), 0.9), 3.0)
    made = smoothed(np.array([2.0, 4.0]), 0.5)
    np.testing.assert_allclose(made, [2.0, (0.5 * 0.5 * 2 + 0.5 * 4) / 0.75])


def test_a_long_curve_is_drawn_in_pieces_that_keep_every_peak(tmp_path) -> None:
    folder = write_run(tmp_path, "long")
    values = np.random.default_rng(5).normal(size=30_011)
    values[17_389] = 99.0
    rows = (json.dumps({"step": step, "val/loss": value}) for step, value in enumerate(values))
    folder.metrics.write_text("\n".join(rows) + "\n")
    one = curve(tmp_path, ["long"])
    assert len(one.x) == LONGEST_CURVE
    assert one.high.max() == 99.0
    pieces = np.diff(np.append(np.linspace(0, len(values), LONGEST_CURVE, endpoint=False).astype(int), len(values)))
    assert np.average(one.y, weights=pieces) == pytest.approx(values.mean())


def test_rows_written_twice_count_once_and_what_is_no_number_is_passed_over(tmp_path) -> None:
    folder = write_run(tmp_path, "again", last=20)
    with folder.metrics.open("a") as file:
        file.write('{"step": 20, "val/loss": 5.0}\n{"step": 30, "val/loss": null}\n{"step": 40, "val/lo')
    np.testing.assert_allclose(curve(tmp_path, ["again"]).y, [1.0, 5.0])


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_file_of_each_kind_comes_out(tmp_path, capsys, ending: str) -> None:
    write_run(tmp_path, "one")
    write_run(tmp_path, "two", lr=0.2)
    out = tmp_path / f"curves.{ending}"
    line = ["plot", "one", "two", "--metric", "val/loss", "--metric", "train/loss", "-o", str(out), "--x", "time"]
    assert run([*line, "--log", "y", "--smooth", "0.5", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"{out}: 4 curves\n"
    content = out.read_bytes()
    if ending == "png":
        from PIL import Image

        with Image.open(out) as image:
            assert image.size == (2070, 720)  # 6.9 inches at 300 dots an inch
            colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
        assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
    elif ending == "svg":
        # Text stays text.
        assert b">val/loss</text>" in content
        assert b">time (h)</text>" in content
    else:
        assert content.startswith(b"%PDF")
        assert b"/Type3" not in content


def test_a_run_that_lacks_a_metric_is_named(tmp_path, capsys) -> None:
    write_run(tmp_path, "one")
    write_run(tmp_path, "two").metrics.write_text('{"step": 1, "train/loss": 1.0}\n')
    out = tmp_path / "c.svg"
    line = ["plot", "one", "two", "--metric", "val/loss", "--metric", "train/loss", "-o", str(out)]
    assert run([*line, "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().err == f"val/loss: not in two\n{out}: 3 curves\n"


def test_runs_of_one_name_in_two_folders_are_two_curves_and_one_that_is_named_twice_is_one(tmp_path, capsys) -> None:
    for folder in ("here", "there"):
        write_run(tmp_path / folder, "one")
    paths = [str(tmp_path / folder / "one") for folder in ("here", "there")]
    out = tmp_path / "c.svg"
    assert run(["plot", *paths, paths[0], "-o", str(out)]) == 0
    assert capsys.readouterr().err == f"{out}: 2 curves\n"
    assert all(f">{name}</text>" in out.read_text() for name in ("here/one", "there/one"))
    long = ["--label", "a" * 200, "--label", "b" * 200]
    assert run(["plot", *paths, *long, "-o", str(out)]) == 0
    assert capsys.readouterr().err == f"{out}: 2 curves\n"


def test_panels_titles_and_labels_are_as_asked_for(tmp_path) -> None:
    write_run(tmp_path, "one")
    out = tmp_path / "c.svg"
    plain = ["plot", "one", "-o", str(out), "--runs", str(tmp_path)]
    assert run(plain) == 0
    assert "<!-- one -->" not in out.read_text()  # one curve needs no legend
    assert run([*plain, "--metric", "val/loss", "--metric", "train/loss", "--together", "--title", "Both"]) == 0
    text = out.read_text()
    for part in ("one, val/loss", "one, train/loss", "Both"):
        assert f">{part}</text>" in text
    assert run([*plain, "--size", "6x4"]) == 0
    assert 'width="432pt" height="288pt"' in out.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one", "--metric", "val/los"], "--metric: val/los is in none of these runs; did you mean val/loss?"),
        (["nine"], "nine: no run of that name"),
        (["empty"], "empty: has no rows in metrics.jsonl yet"),
        (["one", "-o", "x.gif"], "x.gif should end in .png, .svg or .pdf"),
        (["one", "-o", "x"], "x should end in .png, .svg or .pdf"),
        (["one", "-o", "nowhere/x.png"], "there is no folder nowhere"),
        (["one", "--group-by", "optim.lrr"], "optim.lrr is not in the recipe of one; did you mean lr?"),
        (["one", "--smooth", "1"], "--smooth: 1.0 should be at least 0 and less than 1"),
        (["one", "--log", "z"], "--log: z should be x, y or xy"),
        (["below", "--log", "y"], "--log: y needs values above zero"),
        (["one", "--size", "huge"], "--size: huge should be column, page, or inches"),
        (["one", "--label", "a", "--label", "b"], "--label: 2 given for 1 curves"),
        (["silent", "--x", "tokens"], "--x: tokens, but silent counts none"),
        ([], "plot needs a RUN"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, monkeypatch, capsys, arguments, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    write_run(runs, "one")
    write_run(runs, "below", shift=-5.0)
    write_run(runs, "empty").metrics.write_text("")
    write_run(runs, "silent").metrics.write_text('{"step": 1, "val/loss": 1.0}\n')
    out = [] if "-o" in arguments else ["-o", "x.png"]
    assert run(["plot", *arguments, *out]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


def test_a_sweeps_name_means_its_trials(tmp_path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "sweep.yaml").write_text("name: x\n")
    for number in (0, 1):
        write_run(tmp_path, f"search-000{number}")
    assert [found.id for found in find_runs(tmp_path, "search")] == ["search-0000", "search-0001"]


def test_the_seeds_of_an_array_are_found_by_its_whole_path(tmp_path) -> None:
    for seed in (1, 2):
        write_run(tmp_path / "runs", f"many-seed{seed}")
    found = find_runs(tmp_path / "elsewhere", str(tmp_path / "runs" / "many"))
    assert [one.id for one in found] == ["many-seed1", "many-seed2"]


def test_curves_import_no_torch(tmp_path) -> None:
    write_run(tmp_path / "runs", "one")
    code = (
        "import sys; from headway.cli import run; assert run(['plot', 'one', '-o', 'x.png']) == 0; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=tmp_path)
