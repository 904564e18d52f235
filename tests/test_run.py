"""The run folder: made once, written by one, never half-written, read back after any crash."""

import json
import os
import threading
from pathlib import Path

import pytest

from headway.config.errors import UserError
from headway.run import (
    MetricsFile,
    RunFolder,
    check_run_name,
    create_run,
    find_run,
    list_runs,
    read_metrics,
    replace_file,
)

pytestmark = pytest.mark.quick


# ---- the folder and its name ---------------------------------------------------------------------


def test_a_new_run_has_its_folders(tmp_path):
    run = create_run(tmp_path / "deep" / "runs", "mlp")
    assert run.id.startswith("mlp-2")
    assert (run.path / "logs").is_dir()
    assert run.checkpoints.is_dir()
    assert run.log(3) == run.path / "logs" / "rank-3.log"


def test_names_that_are_made_up_differ(tmp_path):
    made = {create_run(tmp_path, "mlp").id for _ in range(23)}
    assert len(made) == 23


def test_a_run_can_be_named(tmp_path):
    assert create_run(tmp_path, "mlp", name="first_try-2.0").path == tmp_path / "first_try-2.0"


def test_a_name_that_is_taken_is_refused_and_left_alone(tmp_path):
    run = create_run(tmp_path, "mlp", name="mine")
    run.recipe.write_text("kept")
    with pytest.raises(UserError, match=r"^--name: .*mine exists already; choose another, or --resume mine$"):
        create_run(tmp_path, "mlp", name="mine")
    assert run.recipe.read_text() == "kept"


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".", ".hidden", "-x", "a b", "a\nb", "\u00fc", "x" * 121, "---", "a\x00", "a:b"]
)
def test_a_name_that_is_no_plain_folder_name_is_refused(name, tmp_path):
    with pytest.raises(UserError, match=r"^--name: .* should be of letters, digits, dots, dashes and underscores$"):
        check_run_name(name)
    with pytest.raises(UserError):
        create_run(tmp_path / "runs", "mlp", name=name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_runs_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^--runs: .*file cannot be written \(Not a directory\)"):
        create_run(tmp_path / "file", "mlp")


# ---- finding and listing -------------------------------------------------------------------------


def make(folder: Path, name: str, age: int = 0) -> RunFolder:
    run = create_run(folder, "mlp", name=name)
    run.recipe.write_text("")
    os.utime(run.recipe, (1_000_000 - age, 1_000_000 - age))
    return run


def test_a_run_is_found_by_id_and_by_path(tmp_path):
    run = make(tmp_path, "mine")
    assert find_run(tmp_path, "mine").path == run.path
    assert find_run(tmp_path / "elsewhere", str(run.path)).path == run.path
    with pytest.raises(UserError, match=r"^other: no run of that name in .*; `headway runs` lists them$"):
        find_run(tmp_path, "other")


def test_runs_are_listed_newest_first(tmp_path):
    for name, age in (("old", 20), ("new", 0), ("middle", 10)):
        make(tmp_path, name, age)
    assert [run.id for run in list_runs(tmp_path)] == ["new", "middle", "old"]


def test_what_is_no_run_is_passed_over(tmp_path):
    make(tmp_path, "mine")
    (tmp_path / "a-file").write_text("x")
    (tmp_path / "an-empty-folder").mkdir()
    (tmp_path / "a-folder" / "recipe.yaml").mkdir(parents=True)
    (tmp_path / "a-dangling-link").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden").mkdir()
    create_run(tmp_path, "mlp", name="without-a-recipe")
    assert [run.id for run in list_runs(tmp_path)] == ["mine"]
    assert list_runs(tmp_path / "nowhere") == []
    assert list_runs(tmp_path / "a-file") == []


# ---- the status ----------------------------------------------------------------------------------


def test_the_status_is_merged_and_none_removes(tmp_path):
    run = RunFolder(tmp_path)
    assert run.status() == {}
    run.update_status(state="running", step=3, reason="x")
    run.update_status(step=5, reason=None)
    status = run.status()
    assert status.pop("updated") > 0
    assert status == {"state": "running", "step": 5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["status.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"3", b"\xff\xfe", b"null"])
def test_a_status_that_cannot_be_read_is_none(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    assert RunFolder(tmp_path).status() == {}


def test_a_reader_never_sees_a_part_of_the_status(tmp_path):
    run = RunFolder(tmp_path)
    run.update_status(filler="a" * 100_003, step=0)
    seen, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            seen.append(json.loads((tmp_path / "status.json").read_text())["step"])

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 30):
        run.update_status(step=step)
    stop.set()
    reader.join()
    assert seen == sorted(seen)
    assert len(seen) > 5


@pytest.mark.parametrize("stage", ["os.fsync", "pathlib.Path.replace"])
def test_a_file_that_could_not_be_replaced_is_the_old_one(tmp_path, monkeypatch, stage):
    path = tmp_path / "status.json"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    assert path.read_text() == "old"


# ---- the metrics ---------------------------------------------------------------------------------


def rows_of(path):
    return [{key: value for key, value in row.items() if key != "time"} for row in read_metrics(path)]


def write(path, rows, **settings):
    metrics = MetricsFile(path, **settings)
    metrics.write(rows)
    metrics.close()


def row(step):
    return {"step": step, "train/loss": 1 / (step + 1), "note": "\u00fc"}


def test_rows_come_back_with_their_time(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1), row(2)])
    write(path, [row(3)])
    assert rows_of(path) == [row(1), row(2), row(3)]
    assert all(found["time"] > 1.7e9 for found in read_metrics(path))
    assert read_metrics(tmp_path / "none") == []


def test_a_row_can_be_read_as_soon_as_it_is_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsFile(path)
    metrics.write([row(1)])
    assert rows_of(path) == [row(1)]
    metrics.close()


def test_a_torn_last_row_is_passed_over_and_the_next_stands_on_its_own(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1), row(2), row(3)])
    whole = path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for cut in range(last, len(whole)):
        path.write_bytes(whole[:cut])
        # Without its line's end the row is whole; anything less is none.
        survivors = [row(1), row(2)] + ([row(3)] if cut == len(whole) - 1 else [])
        assert rows_of(path) == survivors, cut
        write(path, [row(4)])
        assert rows_of(path) == [*survivors, row(4)], cut
        assert path.read_bytes().endswith(b"\n")


def test_a_torn_row_is_gone_after_a_resume_from_an_earlier_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1), row(2), row(3)])
    path.write_bytes(path.read_bytes()[:-11])
    write(path, [row(2)], keep_through=1)
    assert rows_of(path) == [row(1), row(2)]
    assert len(path.read_bytes().splitlines()) == 2


def test_a_resume_drops_the_rows_of_later_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1), row(2), row(3), row(5)])
    write(path, [row(4)], keep_through=3)
    assert rows_of(path) == [row(1), row(2), row(3), row(4)]
    write(path, [], keep_through=0)
    assert rows_of(path) == []


def test_a_resume_that_cannot_rewrite_the_rows_leaves_them(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, [row(1), row(2)])
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        MetricsFile(path, keep_through=1)
    assert rows_of(path) == [row(1), row(2)]


@pytest.mark.parametrize(
    "foreign", [b"\xff\xfe\n", b"[1]\n", b"3\n", b"\n\n", b"null\n", b"{]\n", b'"text"\n', b"\x00\x00\n"]
)
def test_lines_that_are_no_rows_are_passed_over(tmp_path, foreign):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(foreign)
    write(path, [row(1)])
    assert rows_of(path) == [row(1)]
