"""Makes of a run's W&B files what a server still lacks, as files that W&B's own `wandb sync` uploads.

`wandb sync` sends all rows of a file behind those that the server has: a second time, after an interruption, or from a
copy of the folder, a run would have them twice. So it gets copies without the rows that are there. W&B's own step,
which only grows, says which; it is the optimizer step, so that rows which a resumed run made again go up once. Rows
that never reached W&B's file (its process was killed, the disk was full) are taken from metrics.jsonl.

Imports no torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headway.config.overrides import flatten
from headway.run import RunFolder, read_metrics
from headway.track.fragments import Fragment
from headway.track.wandb_server import Held
from headway.wandb_file import LogFile, step_of, write_log

SPARSE = ("val/", "test/", "health/")
"""Rows that W&B always gets: there are few of them."""
_NOT_ENDED = 255
Row = dict[str, Any]


@dataclass
class Copies:
    """What of one run is to be uploaded."""

    folders: list[Path] = field(default_factory=list)
    last_step: int = -1
    """W&B's newest step, once all is there."""
    num_rows: int = 0
    """Rows that the server lacks."""
    notes: list[str] = field(default_factory=list)
    """What cannot be uploaded, and why."""


def make_copies(run: RunFolder, fragments: list[Fragment], held: Held | None, into: Path) -> Copies:
    """Writes copies of a run's fragments without what the server has.

    Args:
        run: the run.
        fragments: those of its starts that are not uploaded, oldest first.
        held: what the server has; None for nothing.
        into: an empty folder for the copies.
    """
    copies = Copies(last_step=held.last_step if held else -1)
    if not fragments:
        folder = into / f"run-{time.strftime('%Y%m%d_%H%M%S')}-{run.id}"
        folder.mkdir(parents=True)
        write_log(folder / f"run-{run.id}.wandb", _Copy(run, _made_up(run), copies, held, last=True).records())
        copies.folders.append(folder)
    for index, fragment in enumerate(fragments):
        folder = into / fragment.folder.name
        folder.mkdir(parents=True)
        if (fragment.folder / "files").is_dir():
            (folder / "files").symlink_to((fragment.folder / "files").resolve())
        last = index == len(fragments) - 1
        records = LogFile(fragment.file).records()
        write_log(folder / fragment.file.name, _Copy(run, records, copies, held, last=last).records())
        copies.folders.append(folder)
    return copies


class _Copy:
    """One fragment's records, those that go up.

    Args:
        run: the run.
        original: the records of one of its starts.
        copies: told of each row.
        held: what the server has of the run.
        last: whether it is the newest start, whose end is the run's.
    """

    def __init__(
        self, run: RunFolder, original: Iterable[Any], copies: Copies, held: Held | None, *, last: bool
    ) -> None:
        self.run = run
        self.original = original
        self.copies = copies
        self.last_event = held.last_event if held else 0.0
        self.known = held is not None
        self.last = last

    def records(self) -> Iterator[Any]:
        """Yields what goes up, with an end: a killed run's file has none."""
        messages = _messages()
        ending, started = None, 0.0
        for record in self.original:
            kind = record.WhichOneof("record_type")
            if kind == "exit":
                ending = record
                continue
            if kind == "run":
                started = record.run.start_time.seconds + record.run.start_time.nanos / 1e9
            if self._goes_up(kind, record):
                yield record
        if self.last:
            yield from self._refilled(started)
        if ending is None:
            ending = messages.Record()
            ending.exit.exit_code = _NOT_ENDED if self.last else 0
        yield ending

    def _goes_up(self, kind: str, record: Any) -> bool:
        """Returns whether the server lacks a record."""
        if kind == "history":
            step = step_of(record.history)
            if step <= self.copies.last_step:
                return False
            self.copies.last_step = step
            self.copies.num_rows += 1
        elif kind == "stats":
            return bool(record.stats.timestamp.seconds + record.stats.timestamp.nanos / 1e9 > self.last_event)
        elif kind == "alert":
            # Of a run that is being uploaded again, it was told before.
            return not self.known
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            return self._has_files(record.request.log_artifact.artifact)
        elif kind == "artifact":
            return self._has_files(record.artifact)
        return True

    def _has_files(self, artifact: Any) -> bool:
        """Returns whether an artifact's files are here, where this run folder is now."""
        for entry in artifact.manifest.contents:
            if entry.local_path:
                entry.local_path = str(self._here(Path(entry.local_path)))
                if not Path(entry.local_path).is_file():
                    self.copies.notes.append(f"{artifact.name} is not here any more ({entry.path})")
                    return False
        return True

    def _here(self, path: Path) -> Path:
        """Returns where a file of the run folder is, which may have been copied from another machine."""
        if path.is_file() or self.run.id not in path.parts:
            return path
        below = path.parts[len(path.parts) - path.parts[::-1].index(self.run.id) :]
        return self.run.path.joinpath(*below)

    def _refilled(self, started: float) -> Iterator[Any]:
        """Yields rows of metrics.jsonl that are in none of W&B's files."""
        messages = _messages()
        newest: Row = {}
        for row in missing_rows(self.run, after=self.copies.last_step):
            record = messages.Record()
            stamp = row.pop("time", started)
            row |= {"_step": row["step"], "_timestamp": stamp, "_runtime": max(0.0, stamp - started)}
            _fill(record.history.item, row)
            self.copies.last_step = int(row["step"])
            self.copies.num_rows += 1
            newest |= row
            yield record
        if newest:
            record = messages.Record()
            _fill(record.summary.update, newest)
            yield record


def missing_rows(run: RunFolder, *, after: int) -> list[Row]:
    """Returns what metrics.jsonl has for W&B after a step, the rows of one step as one."""
    every = int(track_section(run).get("wandb_every", 10))
    merged: dict[int, Row] = {}
    for row in read_metrics(run.metrics):
        step = row.get("step")
        if isinstance(step, int | float) and step > after and is_for_wandb(row, every):
            merged.setdefault(int(step), {}).update(row)
    return [merged[step] for step in sorted(merged)]


def is_for_wandb(row: Row, every: int) -> bool:
    """Returns whether W&B gets a row: validations, tests and every so many training rows."""
    return bool(row["step"] % every == 0) or any(name.startswith(SPARSE) for name in row)


def track_section(run: RunFolder) -> dict[str, Any]:
    """Returns a run's `track` section; {} where its recipe cannot be read."""
    section = recipe_tree(run).get("track")
    return section if isinstance(section, dict) else {}


def recipe_tree(run: RunFolder) -> dict[str, Any]:
    """Returns a run's recipe as plain values; {} where it cannot be read."""
    try:
        tree = yaml.safe_load(run.recipe.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _made_up(run: RunFolder) -> Iterator[Any]:
    """Yields the records that begin a run of which W&B has no file: it could not be begun."""
    track = track_section(run)
    record = _messages().Record()
    described = record.run
    described.run_id, described.display_name = run.id, run.id
    described.project, described.entity = track.get("project") or "headway", track.get("entity") or ""
    described.run_group, described.job_type = track.get("group") or "", track.get("job_type") or ""
    described.notes = track.get("notes") or ""
    described.tags.extend(track.get("tags") or [])
    described.start_time.FromMilliseconds(int(1000 * run.read_json("manifest.json").get("started", time.time())))
    for name, value in flatten(recipe_tree(run)):
        described.config.update.add(key=name, value_json=json.dumps(value))
    yield record


def _messages() -> Any:
    """Returns W&B's own protobuf messages, whose classes are made when they are imported."""
    from wandb.proto import wandb_internal_pb2

    return wandb_internal_pb2


def _fill(items: Any, row: Row) -> None:
    """Adds a row's entries to a list of W&B's."""
    for name, value in row.items():
        items.add(nested_key=[name], value_json=json.dumps(value))


def total_bytes(folders: Iterable[Path]) -> int:
    """Returns how much there is to upload, at most."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())
