"""The reader of W&B's files, held against files that W&B's own SDK wrote."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from headway.config.errors import UserError
from headway.wandb_file import LogFile, OfflineRun, read_offline_run, write_log

ROWS = 1009
"""Enough for several of the file's blocks of 32 KiB."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a run that the SDK wrote offline."""
    import wandb

    home = tmp_path_factory.mktemp("sdk")
    run = wandb.init(
        dir=str(home),
        id="abc",
        name="a name",
        project="school",
        group="lesson",
        job_type="fit",
        notes="why",
        tags=["first", "try"],
        config={"optim.lr": 0.1, "nested": {"inner": [1, 2]}},
        mode="offline",
        reinit="create_new",
        settings=wandb.Settings(silent=True, console="off", disable_git=True),
    )
    for step in range(ROWS):
        run.log({"train/loss": 1 / (step + 1), "deep": {"er": step}, "text": "x" * 101, "none": None})
    run.config.update({"late": True})
    run.summary.update({"best/loss": 0.5})
    run.finish()
    (folder,) = (home / "wandb").glob("offline-run-*")
    deadline = time.monotonic() + 30
    while not read_offline_run(folder).complete and time.monotonic() < deadline:
        time.sleep(0.05)
    return folder


@pytest.fixture
def whole(written: Path) -> OfflineRun:
    return read_offline_run(written)


def test_who_a_run_is(whole: OfflineRun) -> None:
    assert (whole.id, whole.name, whole.project, whole.group) == ("abc", "a name", "school", "lesson")
    assert (whole.job_type, whole.notes, whole.tags) == ("fit", "why", ["first", "try"])
    assert abs(whole.started - time.time()) < 3600
    assert (whole.exit_code, whole.complete, whole.torn_at) == (0, True, None)


def test_config_and_summary_are_what_was_set_last(whole: OfflineRun) -> None:
    assert whole.config == {"optim.lr": 0.1, "nested": {"inner": [1, 2]}, "late": True}
    assert whole.summary["best/loss"] == 0.5
    assert whole.summary["train/loss"] == pytest.approx(1 / ROWS)


def test_every_row_is_there_in_order(whole: OfflineRun) -> None:
    assert [row["_step"] for row in whole.rows] == list(range(ROWS))
    assert [row["deep.er"] for row in whole.rows] == list(range(ROWS))
    assert whole.rows[6]["train/loss"] == pytest.approx(1 / 7)
    assert whole.rows[6]["none"] is None
    assert all("_timestamp" in row for row in whole.rows + whole.system)


@pytest.mark.parametrize("cut", [1, 6, 101, 32768, 32771, 40009])
def test_a_torn_end_costs_what_it_tore_alone(written: Path, whole: OfflineRun, tmp_path: Path, cut: int) -> None:
    torn = tmp_path / "run-abc.wandb"
    data = next(written.glob("*.wandb")).read_bytes()
    torn.write_bytes(data[:-cut])
    run = read_offline_run(torn)
    assert not run.complete
    assert run.rows == whole.rows[: len(run.rows)]
    assert len(run.rows) >= len(whole.rows) - 2 - cut // 100


def test_a_damaged_byte_ends_the_reading_there(written: Path, whole: OfflineRun, tmp_path: Path) -> None:
    damaged = tmp_path / "run-abc.wandb"
    data = bytearray(next(written.glob("*.wandb")).read_bytes())
    data[50021] ^= 1
    damaged.write_bytes(data)
    run = read_offline_run(tmp_path)
    assert run.torn_at is not None
    assert 50021 - 700 < run.torn_at <= 50021
    assert 0 < len(run.rows) < len(whole.rows)
    assert run.rows == whole.rows[: len(run.rows)]


def test_a_file_with_nothing_in_it_yet_is_a_run_that_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "run-abc.wandb").touch()
    assert read_offline_run(tmp_path) == OfflineRun(torn_at=0)


def test_a_foreign_file_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run-abc.wandb").write_text("not a log of anything")
    with pytest.raises(UserError, match="not a run of W&B's"):
        read_offline_run(tmp_path)
    with pytest.raises(UserError, match="no run of W&B's is here"):
        read_offline_run(tmp_path / "elsewhere")


def test_values_are_read_in_each_form_that_the_format_has(tmp_path: Path) -> None:
    from google.protobuf.struct_pb2 import NULL_VALUE
    from wandb.proto.wandb_internal_pb2 import HistoryItem, HistoryRecord, Record

    from headway.wandb_file import _take

    items = [
        HistoryItem(key="whole", integer=3),
        HistoryItem(nested_key=["part", "ial"], number=0.5),
        HistoryItem(key="said", text="hi"),
        HistoryItem(key="true", boolean=True),
        HistoryItem(key="any", json='{"a": [1]}'),
        HistoryItem(key="nothing", none=NULL_VALUE),
        HistoryItem(key="older", value_json="7"),
    ]
    run = OfflineRun()
    _take(run, Record(history=HistoryRecord(item=items)))
    assert run.rows == [
        {"whole": 3, "part.ial": 0.5, "said": "hi", "true": True, "any": {"a": [1]}, "nothing": None, "older": 7}
    ]


def test_reading_imports_no_torch(written: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headway.wandb_file import read_offline_run; "
        f"run = read_offline_run(Path({str(written)!r})); print(len(run.rows), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == [str(ROWS), "False"]


def test_a_log_says_where_it_was_torn_only_once_it_was_read(written: Path) -> None:
    log = LogFile(next(written.glob("*.wandb")))
    assert log.torn_at is None
    assert sum(1 for _ in log.records()) > ROWS
    assert log.torn_at is None


def test_what_is_written_again_is_the_same_file(written: Path, tmp_path: Path) -> None:
    original = next(written.glob("*.wandb"))
    copy = tmp_path / "run-abc.wandb"
    num_records = write_log(copy, LogFile(original).records())
    assert num_records == sum(1 for _ in LogFile(original).records())
    assert read_offline_run(copy) == read_offline_run(original)
    assert abs(copy.stat().st_size - original.stat().st_size) < 101
