"""Reads the file that W&B's SDK keeps of a run: what an offline run holds, from this project or any other.

`run-<id>.wandb` is a log in LevelDB's framing: blocks of 32 KiB, in them parts of records, each with a checksum; a
record is one of W&B's own protobuf messages. A run that is being written, or was killed, ends in a torn record: what
is before it is read. W&B's SDK has no reader of its own that a program could call.

Source: https://github.com/google/leveldb/blob/main/doc/log_format.md

Imports no torch: a dashboard reads runs with it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.config.errors import UserError

_IDENTITY = struct.Struct("<4sHB")
_MAGIC = (b":W&B", 0xBEE1, 0)
_PART = struct.Struct("<IHB")
_BLOCK_BYTES = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """What one file of W&B's holds of a run. A run that was resumed has several such files."""

    id: str = ""
    name: str = ""
    project: str = ""
    entity: str = ""
    group: str = ""
    job_type: str = ""
    notes: str = ""
    host: str = ""
    sweep: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    """By dotted name where the writer's names were dotted; sections stay nested where they were nested."""
    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What was logged, in order, with W&B's own `_step`, `_runtime` and `_timestamp`; nested names are dotted."""
    system: list[dict[str, Any]] = field(default_factory=list)
    """Rows of W&B's system monitor, each with `_timestamp`."""
    started: float = 0.0
    """Seconds since 1970."""
    exit_code: int | None = None
    """None where the run has not ended, or was killed."""
    complete: bool = False
    """Whether the run has ended and its file is whole."""
    torn_at: int | None = None
    """The byte at which the file stops making sense; None where it is whole."""


def offline_file(path: Path) -> Path:
    """Returns the file of a run, given it or the folder it lies in.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("run-*.wandb"))
    if not found:
        raise UserError(f"{path}: no run of W&B's is here; expected a folder with a file run-<id>.wandb")
    return found[0]


def read_offline_run(path: Path) -> OfflineRun:
    """Returns what a run's file holds, up to a torn end.

    Args:
        path: a `run-<id>.wandb`, or the `offline-run-*` or `run-*` folder that it lies in.

    Raises:
        UserError: there is no such file, it cannot be read, or it is no file of W&B's.
    """
    log = LogFile(offline_file(path))
    run = OfflineRun()
    for record in log.records():
        _take(run, record)
    run.torn_at = log.torn_at
    run.complete = run.exit_code is not None and log.torn_at is None
    return run


@dataclass(frozen=True)
class Glance:
    """How far a run's file goes."""

    num_rows: int = 0
    last_step: int = -1
    """W&B's own `_step` of the newest row; -1 where there is none."""
    ended: bool = False
    """Whether the run's end is in it."""


def glance(path: Path) -> Glance:
    """Returns how far a run's file goes, without keeping what is in it.

    Raises:
        UserError: there is no such file, it cannot be read, or it is no file of W&B's.
    """
    num_rows, ended, newest = 0, False, None
    for record in LogFile(offline_file(path)).records():
        kind = record.WhichOneof("record_type")
        if kind == "history":
            num_rows, newest = num_rows + 1, record.history
        ended = ended or kind == "exit"
    return Glance(num_rows, -1 if newest is None else step_of(newest), ended)


def step_of(history: Any) -> int:
    """Returns W&B's own step of a row; -1 where it has none."""
    for item in history.item:
        if _name(item) == "_step":
            return int(_value(item))
    return int(history.step.num) if history.HasField("step") else -1


class LogFile:
    """The records of one file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn_at: int | None = None
        """Where reading stopped before the end; known once the records were read."""

    def records(self) -> Iterator[Any]:
        """Yields W&B's records in order, and stops where the file is torn.

        Raises:
            UserError: the file cannot be read, or is none of W&B's.
        """
        from google.protobuf.message import DecodeError
        from wandb.proto import wandb_internal_pb2

        for position, data in self._whole():
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made when it is imported
            try:
                record.ParseFromString(data)
            except DecodeError:
                self.torn_at = position
                return
            yield record

    def _whole(self) -> Iterator[tuple[int, bytes]]:
        """Yields where each record begins, and its bytes, put together from its parts."""
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        if len(data) < _IDENTITY.size:
            self.torn_at = 0
            return
        if _IDENTITY.unpack_from(data) != _MAGIC:
            raise UserError(f"{self.path}: not a run of W&B's, or of a version that is not known here")
        position, begun = _IDENTITY.size, 0
        parts: list[bytes] = []
        while position < len(data):
            left = _BLOCK_BYTES - position % _BLOCK_BYTES
            if left < _PART.size:  # too little for a part: zeros up to the next block
                position += left
                continue
            part = _part(data, position)
            if part is None:
                self.torn_at = position
                return
            kind, content = part
            if kind in (_FULL, _FIRST):
                begun, parts = position, []
            parts.append(content)
            if kind in (_FULL, _LAST):
                yield begun, b"".join(parts)
                parts = []
            position += _PART.size + len(content)
        if parts:
            self.torn_at = begun


def _part(data: bytes, position: int) -> tuple[int, bytes] | None:
    """Returns a part's kind and content; None where it is torn."""
    if position + _PART.size > len(data):
        return None
    checksum, length, kind = _PART.unpack_from(data, position)
    start = position + _PART.size
    content = data[start : start + length]
    if len(content) < length or not _FULL <= kind <= _LAST or zlib.crc32(bytes([kind]) + content) != checksum:
        return None
    return kind, content


def _take(run: OfflineRun, record: Any) -> None:
    """Adds one record to what is known of a run."""
    kind = record.WhichOneof("record_type")
    if kind == "run":
        _take_run(run, record.run)
    elif kind == "config":
        _update(run.config, record.config)
    elif kind == "history":
        run.rows.append({_name(item): _value(item) for item in record.history.item})
    elif kind == "summary":
        _update(run.summary, record.summary)
    elif kind == "stats":
        stamp = record.stats.timestamp
        row = {item.key: _value(item) for item in record.stats.item}
        run.system.append({"_timestamp": stamp.seconds + stamp.nanos / 1e9, **row})
    elif kind == "exit":
        run.exit_code = record.exit.exit_code


def _take_run(run: OfflineRun, record: Any) -> None:
    run.id, run.project, run.entity = record.run_id, record.project, record.entity
    run.name = record.display_name or record.run_id
    run.group, run.job_type, run.notes = record.run_group, record.job_type, record.notes
    run.host, run.sweep, run.tags = record.host, record.sweep_id, list(record.tags)
    run.started = record.start_time.seconds + record.start_time.nanos / 1e9
    _update(run.config, record.config)
    _update(run.summary, record.summary)


def _update(values: dict[str, Any], change: Any) -> None:
    """Sets and removes names as a record says; W&B's own bookkeeping is left out."""
    for item in change.update:
        name = _name(item)
        if name != "_wandb" and not name.startswith("_wandb."):
            values[name] = _value(item)
    for item in change.remove:
        values.pop(_name(item), None)


def _name(item: Any) -> str:
    return item.key or ".".join(item.nested_key)


def _value(item: Any) -> Any:
    """Returns an item's value: as JSON, or in the typed fields that the format has, too."""
    if item.value_json:
        try:
            return json.loads(item.value_json)
        except ValueError:
            return item.value_json
    if "value" not in item.DESCRIPTOR.oneofs_by_name:
        return None
    form = item.WhichOneof("value")
    if form in (None, "none"):
        return None
    value = getattr(item, form)
    return json.loads(value) if form == "json" else value


def write_log(path: Path, records: Iterable[Any]) -> int:
    """Writes records of W&B's as a file that its SDK and `wandb sync` read; returns how many."""
    num_records = 0
    with path.open("wb") as file:
        file.write(_IDENTITY.pack(*_MAGIC))
        position = _IDENTITY.size
        for record in records:
            for part in _parts(record.SerializeToString(), position):
                file.write(part)
                position += len(part)
            num_records += 1
    return num_records


def _parts(data: bytes, position: int) -> Iterator[bytes]:
    """Yields a record cut at the ends of blocks, each part behind its header."""
    first = True
    while True:
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _PART.size:
            yield bytes(left)
            position += left
            left = _BLOCK_BYTES
        content, data = data[: left - _PART.size], data[left - _PART.size :]
        kind = (_FULL if first else _LAST) if not data else (_FIRST if first else _MIDDLE)
        yield _PART.pack(zlib.crc32(bytes([kind]) + content), len(content), kind) + content
        position += _PART.size + len(content)
        first = False
        if not data:
            return
