"""The run folder: what fit and sweep write, and everything else reads.

    runs/<id>/
      recipe.yaml         the resolved recipe: fitting this file repeats the run
      manifest.json       code, packages, hardware, data, command line, start and end
      status.json         state, step, best and final metrics; replaced whole, so never half-written
      metrics.jsonl       one JSON object a row, appended; a crash tears at most the last line
      metrics.columns     the same numbers by column, of a run of many rows: for charts (columns.py)
      logs/rank-<n>.log   what each rank printed
      checkpoints/<step>/ weights, optimizer and position, with a checksummed manifest
      media/, media.jsonl images, tables and texts, and a row for each: step, name, kind, path
      alerts.jsonl        what somebody should know of: step, kind, level, title, text
      system/node-<n>.jsonl   what each node is busy with
      wandb/              Weights & Biases' own files
      lock                held by the one process that writes here

Metric names: `train/*`, `val/*`, `test/*`, `perf/*` and `health/<layer>/*`. Each row has `step`, the
number of optimizer steps made, and `time`, seconds since 1970.

Imports neither torch nor anything that does: a dashboard or a job launcher reads runs with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from headway.config.errors import UserError

if TYPE_CHECKING:
    from headway.columns import ColumnWriter

State = Literal["created", "running", "done", "failed", "stopped"]
JOB_VARIABLE = "HEADWAY_JOB_ID"
"""Environment variable: the job that a run is part of; the same on every node and after a requeue."""
JOB_FOLDER_VARIABLE = "HEADWAY_JOB_DIR"
"""Environment variable: the folder in which that job finds what was shipped with it."""
COLUMNS_NAME = "metrics.columns"
ID_CHARACTERS = "letters, digits, dots, dashes and underscores"


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path
    flush: bool = True
    """Whether what is written is on the disk before it is gone on from; else the operating system has it."""

    @property
    def id(self) -> str:
        """Returns the run's id: the folder's name."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """Returns where the resolved recipe is."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """Returns where the metrics are."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Returns where the checkpoints are."""
        return self.path / "checkpoints"

    def log(self, rank: int) -> Path:
        """Returns where a rank's output goes."""
        return self.path / "logs" / f"rank-{rank}.log"

    def read_json(self, name: str) -> dict[str, Any]:
        """Returns a JSON file's object; {} where there is none or it cannot be read."""
        try:
            value = json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replaces a JSON file whole."""
        replace_file(self.path / name, json.dumps(value, indent=2, default=str) + "\n", flush=self.flush)

    def status(self) -> dict[str, Any]:
        """Returns status.json."""
        return self.read_json("status.json")

    def update_status(self, **changes: Any) -> None:
        """Sets some fields of status.json; None removes one."""
        merged = {**self.status(), **changes, "updated": time.time()}
        self.write_json("status.json", {key: value for key, value in merged.items() if value is not None})

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Holds the run's lock.

        Raises:
            UserError: another process writes this run.
        """
        with (self.path / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UserError(f"{self.path}: another process is writing this run; wait for it or stop it") from None
            yield

    def wait_until_free(self, timeout_s: float) -> None:
        """Waits while another process holds the lock: one that is killed may take a moment to be gone.

        Raises:
            UserError: it still does after `timeout_s`.
        """
        until = time.monotonic() + timeout_s
        while True:
            try:
                with self.owned():
                    return
            except UserError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


def create_run(runs: Path, recipe_name: str, *, name: str | None = None) -> RunFolder:
    """Makes a new run folder.

    Raises:
        UserError: the name is taken or unfit, or the folder cannot be written.
    """
    if name is not None:
        check_run_name(name)
    run_id = name or f"{recipe_name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    path = runs / run_id
    try:
        path.mkdir(parents=True, exist_ok=False)
        (path / "logs").mkdir()
        (path / "checkpoints").mkdir()
    except FileExistsError:
        raise UserError(f"--name: {path} exists already; choose another, or --resume {run_id}") from None
    except OSError as error:
        raise UserError(f"--runs: {runs} cannot be written ({error.strerror}); choose another folder") from None
    return RunFolder(path)


def make_run_folder(path: Path) -> RunFolder:
    """Returns a run folder, made where it is not there: what a crash left half-made is used."""
    for part in ("logs", "checkpoints"):
        (path / part).mkdir(parents=True, exist_ok=True)
    return RunFolder(path)


def check_run_name(name: str) -> None:
    """Raises a UserError for a name that is no plain folder name."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum()) or name.startswith((".", "-")) or len(name) > 120:
        raise UserError(f"--name: {name!r} should be of {ID_CHARACTERS}")


def find_run(runs: Path, id_or_path: str) -> RunFolder:
    """Returns an existing run.

    Raises:
        UserError: there is none.
    """
    for path in (Path(id_or_path), runs / id_or_path):
        if (path / "recipe.yaml").is_file():
            return RunFolder(path.resolve())
    raise UserError(f"{id_or_path}: no run of that name in {runs}/; `headway runs` lists them")


def list_runs(runs: Path) -> list[RunFolder]:
    """Returns every run in a folder, newest first; what is no run is passed over."""
    if not runs.is_dir():
        return []
    found = [RunFolder(path) for path in runs.iterdir() if (path / "recipe.yaml").is_file()]
    return sorted(found, key=lambda run: run.recipe.stat().st_mtime, reverse=True)


def replace_file(path: Path, text: str, *, flush: bool = True) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)


class MetricsFile:
    """Appends rows to metrics.jsonl, and to its columns once there are thousands.

    Args:
        path: the file.
        keep_through: on a resume, rows of later steps are dropped: they are about to be made again.
        columns: whether its columns are kept beside it.
    """

    def __init__(self, path: Path, *, keep_through: int | None = None, columns: bool = False) -> None:
        self._path = path
        if keep_through is not None and path.exists():
            _drop_later_rows(path, keep_through)
        _close_torn_line(path)
        self._file: IO[bytes] = path.open("ab")
        self._keeps_columns = columns
        self._columns: ColumnWriter | None = None
        self._written = path.stat().st_size

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends rows in one write and hands them to the operating system."""
        now = round(time.time(), 3)
        rows = [{"time": now, **row} for row in rows]
        lines = [_json_line(row).encode() for row in rows]
        self._file.write(b"".join(lines))
        self._file.flush()
        if self._keeps_columns:
            self._add_to_columns(rows, lines)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add_to_columns(self, rows: list[dict[str, Any]], lines: list[bytes]) -> None:
        if self._columns is None:
            from headway.columns import ColumnWriter

            self._columns = ColumnWriter(self._path.with_name(COLUMNS_NAME), self._written)
        try:
            self._columns.add(rows, lines)
        except OSError as error:
            # They can be made again from the rows at any time, so they are not worth a run.
            self._keeps_columns = False
            print(f"headway: {self._columns.path.name} is not kept any more ({error.strerror})", file=sys.stderr)  # noqa: T201


def _drop_later_rows(path: Path, keep_through: int) -> None:
    """Drops the rows of later steps, from the file and from its columns."""
    rows = read_metrics(path)
    kept = [row for row in rows if row.get("step", 0) <= keep_through]
    lines = [json.dumps(row).encode() + b"\n" for row in kept]
    content = b"".join(lines)
    if content == path.read_bytes():
        return
    columns = path.with_name(COLUMNS_NAME)
    had_columns = columns.exists()
    columns.unlink(missing_ok=True)
    replace_file(path, content.decode())
    if had_columns:
        from headway.columns import ColumnWriter

        ColumnWriter(columns, 0).add_many(kept, lines)


_JSON = json.JSONEncoder(allow_nan=False)
"""Made once: `json.dumps` makes one a row."""


def _json_line(row: dict[str, Any]) -> str:
    """Returns a row as one line; a number that JSON has not (nan, inf) is null."""
    try:
        return _JSON.encode(row) + "\n"
    except ValueError:
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
        }
        return json.dumps(finite) + "\n"


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a torn line is passed over. [] where there is none."""
    rows = []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return []
    for line in lines:
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict):
                rows.append(row)
    return rows


def _close_torn_line(path: Path) -> None:
    """Ends a line that a crash tore, so that the next row starts on its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
