"""The columns of metrics.jsonl beside it, so that a chart of a million rows needs no million lines parsed.

    runs/<id>/metrics.columns   blocks, only ever appended

    block   8 bytes  magic
            4 bytes  length of the header, little-endian
            4 bytes  CRC-32 of the header
            8 bytes  length of the values
            header   JSON: rows, from and to (the bytes of metrics.jsonl that it stands for), last (offset and CRC-32 of
                     the last of those lines), columns: [[name, count, is_sparse, CRC-32 of the values], ...]
            values   for each column: with is_sparse the rows that have it (uint32), then its values (float64)

A block is written every few thousand rows, from rows that are in memory anyway. What no block stands for (the newest
rows, those around a resume, the whole of a short run) is parsed from metrics.jsonl itself, which stays the one truth:
a block is used only where the last line that it stands for is still there. A block that a crash tore is
not used, nor is what follows it. Nothing here is a pickle, and everything can be deleted at any time.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
BLOCK_ROWS = 4096
BLOCK_VALUES = 32_768
_MAGIC = b"HWCOLS1\n"
_HEAD = struct.Struct("<8sIIQ")
_MAX_HEADER = 16 << 20
_PIECE = 4 << 20
_MAX_LINE = 64 << 20


class Series(NamedTuple):
    """One metric."""

    step: Array
    time: Array
    """Seconds since 1970."""
    value: Array
    """nan where the row has null: a number that JSON has not."""


class _Column(NamedTuple):
    places: NDArray[np.uint32] | None
    """The rows that have a value; None where all have."""
    values: Array


class _Place(NamedTuple):
    """Where a column lies in the sidecar."""

    offset: int
    num_values: int
    is_sparse: bool
    crc: int

    @property
    def nbytes(self) -> int:
        return self.num_values * (12 if self.is_sparse else 8)


@dataclass(frozen=True)
class _Block:
    num_rows: int
    begin: int
    end: int
    last: tuple[int, int]
    columns: Mapping[str, _Column | _Place]


class Damaged(Exception):
    """A sidecar that is not what it was when it was opened: read without it."""


# ---- writing -------------------------------------------------------------------------------------


class ColumnWriter:
    """Appends a block now and then to the columns of a metrics file.

    Args:
        path: the sidecar.
        position: bytes in metrics.jsonl before the first row that is added.
    """

    def __init__(self, path: Path, position: int) -> None:
        self.path = path
        self._begin = self._end = position
        self._rows: list[Mapping[str, Any]] = []
        self._num_values = 0
        self._last = (position, 0)

    def add(self, rows: Sequence[Mapping[str, Any]], lines: Sequence[bytes]) -> None:
        """Takes rows that were appended to metrics.jsonl, with their lines there."""
        for row, line in zip(rows, lines, strict=True):
            self._rows.append(row)
            self._num_values += len(row)
            self._end += len(line)
        if len(self._rows) >= BLOCK_ROWS or self._num_values >= BLOCK_VALUES:
            last = lines[-1]
            self._last = (self._end - len(last), zlib.crc32(last))
            self._write()

    def add_many(self, rows: Sequence[Mapping[str, Any]], lines: Sequence[bytes]) -> None:
        """Takes any number of rows: a block is of a few thousand all the same."""
        for begin in range(0, len(rows), BLOCK_ROWS):
            self.add(rows[begin : begin + BLOCK_ROWS], lines[begin : begin + BLOCK_ROWS])

    def _write(self) -> None:
        block = _encode(_columns_of(self._rows), len(self._rows), self._begin, self._end, self._last)
        self._rows, self._num_values, self._begin = [], 0, self._end
        # One write to the end: a reader sees all of it, or a part that its checksum gives away.
        with self.path.open("ab", buffering=0) as file:
            file.write(block)


def rewrite_columns(metrics: BinaryIO, sidecar: Path) -> None:
    """Writes the columns of a metrics file anew, in one pass; at most a block's worth of rows is left to be parsed."""
    beside = sidecar.with_name(f".{sidecar.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    writer = ColumnWriter(beside, 0)
    for _, lines in _pieces(metrics, 0):
        # A line that cannot be read is a row without values.
        writer.add_many([_parse(line) for line in lines], [line + b"\n" for line in lines])
    if beside.exists():
        beside.replace(sidecar)
    else:
        sidecar.unlink(missing_ok=True)


def _columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, _Column]:
    """Returns the numbers of rows, column by column."""
    values: dict[str, list[float]] = {}
    places: dict[str, list[int]] = {}
    count = 0
    for place, row in enumerate(rows):
        count += 1
        for name, value in row.items():
            kind = type(value)
            if kind is not float and kind is not int and value is not None and not isinstance(value, int | float):
                continue
            if name not in values:
                values[name], places[name] = [], []
            values[name].append(value)
            places[name].append(place)
    return {
        name: _Column(
            None if len(found) == count else np.array(places[name], dtype=np.uint32), _as_floats(found)
        )
        for name, found in values.items()
    }  # fmt: skip


def _as_floats(values: list[Any]) -> Array:
    try:
        return np.array(values, dtype=np.float64)  # None becomes nan
    except OverflowError:
        return np.array([_as_float(value) for value in values], dtype=np.float64)


def _as_float(value: Any) -> float:
    try:
        return float("nan") if value is None else float(value)
    except OverflowError:
        return float("inf")


def _encode(columns: Mapping[str, _Column], num_rows: int, begin: int, end: int, last: tuple[int, int]) -> bytes:
    described, parts = [], []
    for name, column in columns.items():
        part = column.values.astype("<f8").tobytes()
        if column.places is not None:
            part = column.places.astype("<u4").tobytes() + part
        described.append([name, len(column.values), column.places is not None, zlib.crc32(part)])
        parts.append(part)
    header = json.dumps({"rows": num_rows, "from": begin, "to": end, "last": last, "columns": described}).encode()
    body = b"".join(parts)
    return _HEAD.pack(_MAGIC, len(header), zlib.crc32(header), len(body)) + header + body


# ---- reading -------------------------------------------------------------------------------------


class Columns:
    """The metrics of a run, column by column.

    Args:
        sidecar: where the values of stored blocks are; kept open.

    Attributes:
        size: bytes of metrics.jsonl that it stands for.
        torn: lines that could not be read, apart from one that is being written.
        parsed_bytes: how much of metrics.jsonl had to be parsed.
    """

    def __init__(self, sidecar: BinaryIO | None) -> None:
        self._blocks: list[_Block] = []
        self._sidecar = sidecar
        self.size = 0
        self.torn = 0
        self.parsed_bytes = 0

    @classmethod
    def read(cls, metrics: BinaryIO, sidecar: BinaryIO | None = None) -> Columns:
        """Returns the columns of a metrics file.

        Args:
            metrics: metrics.jsonl, open for reading.
            sidecar: metrics.columns likewise, where there is one; it is kept open.
        """
        total = os.fstat(metrics.fileno()).st_size
        known = [] if sidecar is None else _stored(sidecar, metrics, total)
        found = cls(sidecar)
        for block in [*known, None]:
            found._parse(metrics, total if block is None else block.begin)
            if block is not None and block.begin == found.size:
                found._blocks.append(block)
                found.size = block.end
        return found

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Columns:
        """Returns the columns of rows that are in memory."""
        found = cls(None)
        found._blocks.append(_Block(len(rows), 0, 0, (0, 0), _columns_of(rows)))
        return found

    @staticmethod
    def covered(metrics: BinaryIO, sidecar: BinaryIO) -> int:
        """Returns how many bytes of a metrics file a sidecar stands for."""
        blocks = _stored(sidecar, metrics, os.fstat(metrics.fileno()).st_size)
        return sum(block.end - block.begin for block in blocks)

    def extend(self, metrics: BinaryIO) -> bool:
        """Takes in what was appended since; returns whether there was any."""
        before = self.size
        self._parse(metrics, os.fstat(metrics.fileno()).st_size)
        return self.size > before

    def _parse(self, metrics: BinaryIO, end: int) -> None:
        """Takes in the lines up to `end`; a last one without its line break is left for later."""
        if end <= self.size:
            return
        for position, lines in _pieces(metrics, self.size, end):
            rows = [_parse(line) for line in lines]
            self.torn += sum(not row and bool(line.strip()) for row, line in zip(rows, lines, strict=True))
            size = sum(map(len, lines)) + len(lines)
            block = _Block(len(rows), position, position + size, (0, 0), _columns_of(rows))
            self._blocks.append(block)
            self.size = block.end
            self.parsed_bytes += size

    @property
    def num_rows(self) -> int:
        """Returns the number of rows."""
        return sum(block.num_rows for block in self._blocks)

    def close(self) -> None:
        """Closes the sidecar."""
        if self._sidecar is not None:
            self._sidecar.close()

    def names(self) -> list[str]:
        """Returns the names of the columns, in the order in which they came."""
        return list(dict.fromkeys(name for block in self._blocks for name in block.columns))

    def series(self, name: str) -> Series:
        """Returns a metric's rows; empty where no row has it.

        Raises:
            Damaged: the sidecar has changed under it.
        """
        steps, times, values = [], [], []
        for block in self._blocks:
            column = self._column(block, name)
            if column is None or not len(column.values):
                continue
            steps.append(self._along(block, "step", column))
            times.append(self._along(block, "time", column))
            values.append(column.values)
        if not values:
            return Series(np.empty(0), np.empty(0), np.empty(0))
        return Series(np.concatenate(steps), np.concatenate(times), np.concatenate(values))

    def first_time(self) -> float | None:
        """Returns the time of the first row that has one.

        Raises:
            Damaged: the sidecar has changed under it.
        """
        for block in self._blocks:
            column = self._column(block, "time")
            if column is not None and len(column.values):
                return float(column.values[0])
        return None

    def _along(self, block: _Block, axis: str, column: _Column) -> Array:
        """Returns the step or the time of the rows that have a column's values; nan where a row has none."""
        found = self._column(block, axis)
        if found is None:
            return np.full(len(column.values), np.nan)
        if found.places is None:
            return found.values if column.places is None else found.values[column.places]
        whole = np.full(block.num_rows, np.nan)
        whole[found.places] = found.values
        return whole if column.places is None else whole[column.places]

    def _column(self, block: _Block, name: str) -> _Column | None:
        found = block.columns.get(name)
        if not isinstance(found, _Place):
            return found
        assert self._sidecar is not None
        content = os.pread(self._sidecar.fileno(), found.nbytes, found.offset)
        if len(content) < found.nbytes or zlib.crc32(content) != found.crc:
            raise Damaged
        if not found.is_sparse:
            return _Column(None, np.frombuffer(content, "<f8"))
        index = np.frombuffer(content, "<u4", found.num_values)
        if len(index) and int(index.max()) >= block.num_rows:
            raise Damaged
        return _Column(index, np.frombuffer(content, "<f8", found.num_values, 4 * found.num_values))


def _stored(sidecar: BinaryIO, metrics: BinaryIO, total: int) -> list[_Block]:
    """Returns the sidecar's blocks that still stand for what is in metrics.jsonl."""
    size = os.fstat(sidecar.fileno()).st_size
    found: list[_Block] = []
    offset = reached = 0
    while (decoded := _decode(sidecar, offset, size)) is not None:
        offset, block = decoded
        if block.begin < reached or block.end > total or not _stands(metrics, block):
            break
        reached = block.end
        found.append(block)
    return found


def _decode(sidecar: BinaryIO, offset: int, size: int) -> tuple[int, _Block] | None:
    """Returns a block and where the next begins; None where there is no whole one."""
    head = os.pread(sidecar.fileno(), _HEAD.size, offset)
    if len(head) < _HEAD.size:
        return None
    magic, header_length, crc, body_length = _HEAD.unpack(head)
    begin = offset + _HEAD.size
    end = begin + header_length + body_length
    if magic != _MAGIC or header_length > _MAX_HEADER or end > size:
        return None
    header = os.pread(sidecar.fileno(), header_length, begin)
    if zlib.crc32(header) != crc:
        return None
    try:
        told = json.loads(header)
        columns: dict[str, _Column | _Place] = {}
        place = begin + header_length
        for name, count, is_sparse, crc in told["columns"]:
            column = _Place(place, int(count), bool(is_sparse), int(crc))
            columns[sys.intern(str(name))] = column
            place += column.nbytes
            if column.num_values < 0 or column.num_values > told["rows"]:
                return None
        last = told["last"]
        block = _Block(int(told["rows"]), int(told["from"]), int(told["to"]), (int(last[0]), int(last[1])), columns)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    # With is_sparse false a column has every row: readers lean on it.
    dense = all(
        column.is_sparse or column.num_values == block.num_rows
        for column in columns.values()
        if isinstance(column, _Place)
    )
    return (end, block) if place == end and dense else None


def _stands(metrics: BinaryIO, block: _Block) -> bool:
    """Returns whether the last line that a block stands for is where it was."""
    offset, crc = block.last
    length = block.end - offset
    return 0 < length <= _PIECE and zlib.crc32(os.pread(metrics.fileno(), length, offset)) == crc


def _pieces(file: BinaryIO, begin: int, end: int | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """Yields whole lines in pieces of a few megabytes, each with where it begins."""
    position, rest = begin, b""
    while end is None or position + len(rest) < end:
        length = _PIECE if end is None else min(_PIECE, end - position - len(rest))
        more = os.pread(file.fileno(), length, position + len(rest))
        if not more:
            return
        lines = (rest + more).split(b"\n")
        rest = lines.pop()
        if len(rest) > _MAX_LINE:
            return
        if lines:
            yield position, lines
            position += sum(map(len, lines)) + len(lines)


def _parse(line: bytes) -> dict[str, Any]:
    """Returns a row; {} for a line that is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
