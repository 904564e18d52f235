"""The columns beside metrics.jsonl: they say what the lines say, or are not used."""

import json
import os

import numpy as np
import pytest

from headway.columns import BLOCK_ROWS, Columns, ColumnWriter, Damaged, rewrite_columns
from headway.run import COLUMNS_NAME, MetricsFile, read_metrics

pytestmark = pytest.mark.quick


def rows_of(count, *, begin=1):
    """Rows where some metrics are seldom, one comes late, and one is null now and then."""
    for step in range(begin, begin + count):
        row = {"step": step, "train/loss": 1.0 / step, "epoch": step // 7}
        if step % 13 == 0:
            row["val/loss"] = None if step % 39 == 0 else 2.0 / step
        if step > 5000:
            row["late/one"] = float(step)
        yield row


def written(folder, count=2 * BLOCK_ROWS + 17, **how):
    file = MetricsFile(folder / "metrics.jsonl", columns=True, **how)
    for row in rows_of(count):
        file.write([row])
    file.close()
    return folder / "metrics.jsonl", folder / COLUMNS_NAME


def opened(metrics, sidecar=None):
    with metrics.open("rb") as file:
        return Columns.read(file, sidecar.open("rb") if sidecar is not None and sidecar.exists() else None)


def assert_same(columns, metrics):
    """Every series is what the lines say."""
    rows = read_metrics(metrics)
    names = {name for row in rows for name in row}
    assert set(columns.names()) == names
    assert columns.num_rows == len(rows)
    for name in names - {"step", "time"}:
        having = [row for row in rows if name in row]
        found = columns.series(name)
        np.testing.assert_array_equal(found.step, [row["step"] for row in having])
        np.testing.assert_array_equal(found.time, [row["time"] for row in having])
        np.testing.assert_array_equal(found.value, [np.nan if row[name] is None else row[name] for row in having])
    columns.close()


def test_the_columns_say_what_the_lines_say(tmp_path):
    metrics, sidecar = written(tmp_path)
    columns = opened(metrics, sidecar)
    assert columns.parsed_bytes < metrics.stat().st_size / 50
    assert_same(columns, metrics)


def test_a_short_run_has_none_and_is_read_all_the_same(tmp_path):
    metrics, sidecar = written(tmp_path, 101)
    assert not sidecar.exists()
    assert_same(opened(metrics, sidecar), metrics)


def test_rows_that_were_appended_since_are_taken_in(tmp_path):
    metrics, sidecar = written(tmp_path, BLOCK_ROWS + 1)
    columns = opened(metrics, sidecar)
    with metrics.open("a") as file:
        file.write('{"step": 9001, "time": 5.0, "train/loss": 0.5}\n{"step": 9002, "train/')
    with metrics.open("rb") as file:
        assert columns.extend(file)
        assert not columns.extend(file)
    found = columns.series("train/loss")
    assert (found.step[-1], found.time[-1], found.value[-1]) == (9001, 5.0, 0.5)
    assert columns.torn == 0
    columns.close()


def test_many_rows_in_one_write_make_blocks_too(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl", columns=True)
    file.write(list(rows_of(3 * BLOCK_ROWS + 5)))
    file.close()
    assert_same(opened(tmp_path / "metrics.jsonl", tmp_path / COLUMNS_NAME), tmp_path / "metrics.jsonl")


def test_a_resume_leaves_a_gap_that_is_read_from_the_lines(tmp_path):
    metrics, sidecar = written(tmp_path)
    file = MetricsFile(metrics, columns=True)
    for row in rows_of(BLOCK_ROWS + 3, begin=20_000):
        file.write([row])
    file.close()
    columns = opened(metrics, sidecar)
    assert 0 < columns.parsed_bytes < metrics.stat().st_size / 50
    assert_same(columns, metrics)


@pytest.mark.parametrize("keep", [0, 11, BLOCK_ROWS + 5, 10**6])
def test_rows_that_a_resume_drops_are_dropped_from_the_columns(tmp_path, keep):
    metrics, sidecar = written(tmp_path)
    MetricsFile(metrics, keep_through=keep, columns=True).close()
    columns = opened(metrics, sidecar)
    assert columns.series("train/loss").step.tolist() == list(range(1, min(keep, 2 * BLOCK_ROWS + 17) + 1))
    assert_same(columns, metrics)


def test_rows_that_somebody_else_dropped_are_not_shown_from_the_columns(tmp_path):
    # An older headway, or an editor, knows nothing of the columns.
    metrics, sidecar = written(tmp_path)
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:300]) + "".join(line.replace("1", "7") for line in lines[300:]))
    assert_same(opened(metrics, sidecar), metrics)


@pytest.mark.parametrize("cut", [1, 100, 30_000])
def test_a_torn_block_is_not_used(tmp_path, cut):
    metrics, sidecar = written(tmp_path)
    os.truncate(sidecar, sidecar.stat().st_size - cut)
    columns = opened(metrics, sidecar)
    assert columns.parsed_bytes > metrics.stat().st_size / 4
    assert_same(columns, metrics)


@pytest.mark.parametrize("content", [b"", b"x", b"HWCOLS1\n", os.urandom(100_003), b"HWCOLS1\n" + b"\xff" * 100])
def test_what_is_no_sidecar_is_not_used(tmp_path, content):
    metrics, sidecar = written(tmp_path, 53)
    sidecar.write_bytes(content)
    assert_same(opened(metrics, sidecar), metrics)


def test_a_header_that_lies_is_not_believed(tmp_path):
    import struct
    import zlib

    metrics, sidecar = written(tmp_path, 53)
    size = metrics.stat().st_size
    for columns in ([["train/loss", 10**9, False, 0]], [["x", -1, True, 0]], [["x"]], "x", [["x", 5, False, 0]]):
        header = json.dumps({"rows": 53, "from": 0, "to": size, "last": [0, 0], "columns": columns}).encode()
        sidecar.write_bytes(
            struct.pack("<8sIIQ", b"HWCOLS1\n", len(header), zlib.crc32(header), 40) + header + bytes(40)
        )
        assert_same(opened(metrics, sidecar), metrics)


def test_values_that_changed_on_the_disk_are_noticed(tmp_path):
    metrics, sidecar = written(tmp_path)
    columns = opened(metrics, sidecar)
    with sidecar.open("rb+") as file:
        file.seek(sidecar.stat().st_size - 9)
        file.write(b"\x55")
    with pytest.raises(Damaged):
        for name in columns.names():
            columns.series(name)
    os.truncate(sidecar, 100)
    with pytest.raises(Damaged):
        columns.series("train/loss")
    columns.close()


def test_a_run_without_columns_is_given_them_in_one_pass(tmp_path):
    metrics, _ = written(tmp_path)
    with metrics.open("a") as file:
        file.write("no json\n" + '{"step": 70000, "time": 1.0, "train/loss": 3.0}\n')
    other = tmp_path / "elsewhere.columns"
    with metrics.open("rb") as file:
        rewrite_columns(file, other)
    columns = opened(metrics, other)
    assert columns.parsed_bytes < metrics.stat().st_size / 2
    found = columns.series("train/loss")
    assert (found.step[-1], found.value[-1]) == (70000, 3.0)
    assert len(found.step) == len(read_metrics(metrics))
    columns.close()


def test_lines_that_are_no_rows_are_counted_and_passed_over(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(
        b'{"step": 1, "time": 1.0, "a/b": 1}\nnonsense\n[1, 2]\n\n"text"\n{"step": 2, "a/b": 1e400}\n'
        b'{"step": 3, "a/b": "words", "c/d": true, "e/f": [1]}\n' + b"[" * 100_000 + b"\n" + b'{"step": 4, "a/b": 7'
    )
    columns = opened(metrics)
    assert columns.torn == 4
    found = columns.series("a/b")
    assert found.step.tolist() == [1, 2]
    assert found.value.tolist() == [1.0, float("inf")]
    assert columns.series("c/d").value.tolist() == [1.0]
    assert columns.names() == ["step", "time", "a/b", "c/d"]


def test_whole_numbers_too_large_for_a_double_do_no_harm(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "a/b": 1' + "0" * 400 + '}\n{"step": 2, "a/b": 5}\n')
    assert opened(metrics).series("a/b").value.tolist() == [float("inf"), 5.0]


def test_a_full_disk_ends_the_columns_and_not_the_run(tmp_path, capsys):
    # A folder in its place: the sidecar cannot be opened for writing, whoever this is.
    (tmp_path / COLUMNS_NAME).mkdir()
    metrics, _ = written(tmp_path, BLOCK_ROWS + 7)
    assert len(read_metrics(metrics)) == BLOCK_ROWS + 7
    assert capsys.readouterr().err == "headway: metrics.columns is not kept any more (Is a directory)\n"


def test_a_block_holds_no_more_values_than_a_write_should(tmp_path):
    writer = ColumnWriter(tmp_path / COLUMNS_NAME, 0)
    wide = {f"health/{layer}/grad_norm": float(layer) for layer in range(997)}
    for step in range(40):
        writer.add([{"step": step, **wide}], [b"x" * 50])
    assert (tmp_path / COLUMNS_NAME).stat().st_size > 0
