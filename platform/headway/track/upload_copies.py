"""Makes of a run's W&B files what a server still lacks, as files that W&B's own `wandb sync` uploads.

`wandb sync` sends all rows of a file behind those that the server has: a second time, after an interruption, or from a
copy of the folder, a run would have them twice. So it gets copies without the rows that are there. W&B's own step,
which only grows, says which; it is the optimizer step, so that rows which a resumed run made again go up once. Rows
that never reached W&B's file (its process was killed, the disk was full) are taken from metrics.jsonl.

Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headway.config.overrides import flatten
from headway.run import RunFolder, read_metrics
from headway.track.artifacts import best_of
from headway.track.fragments import Fragment
from headway.track.left_over import MadeAgain, artifact_of, left_over, made_again, media_in
from headway.track.wandb_server import Held, known_project
from headway.wandb_file import LogFile, step_of, write_log

SPARSE = ("val/", "test/", "health/")
"""Rows that W&B always gets: there are few of them."""
_NOT_ENDED = 255
_EXIT_CODES = {"done": 0, "stopped": 0, "failed": 1}
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
    lacking = left_over(run, fragments, checkpoints=bool(track_section(run).get("checkpoints")))
    again = made_again(run, lacking, into / "again") if lacking else None
    if not fragments:
        folder = into / f"run-{time.strftime('%Y%m%d_%H%M%S')}-{run.id}"
        folder.mkdir(parents=True)
        if again:
            (folder / "files").symlink_to(again.files)
        copy = _Copy(run, _made_up(run), copies, held, last=True, strip=False, again=again)
        write_log(folder / f"run-{run.id}.wandb", copy.records())
        copies.folders.append(folder)
    for index, fragment in enumerate(fragments):
        folder = into / fragment.folder.name
        folder.mkdir(parents=True)
        last = index == len(fragments) - 1
        for files in (fragment.folder / "files", *([again.files] if last and again else [])):
            if files.is_dir():
                shutil.copytree(files.resolve(), folder / "files", copy_function=_link, dirs_exist_ok=True)
        records = LogFile(fragment.file).records()
        copy = _Copy(run, records, copies, held, last=last, strip=not fragment.offline, again=again if last else None)
        write_log(folder / fragment.file.name, copy.records())
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
        strip: whether media are left out, which are among what was made again.
        again: what the fragments lack besides rows.
    """

    def __init__(
        self,
        run: RunFolder,
        original: Iterable[Any],
        copies: Copies,
        held: Held | None,
        *,
        last: bool,
        strip: bool,
        again: MadeAgain | None,
    ) -> None:
        self.run = run
        self.original = original
        self.copies = copies
        self.last_event = held.last_event if held else 0.0
        self.known = held is not None
        self.last = last
        self.strip = strip
        self.again = again

    def records(self) -> Iterator[Any]:
        """Yields what goes up, with an end: a killed run's file has none."""
        ending, started, newest_row = None, 0.0, None
        for record in self.original:
            kind = record.WhichOneof("record_type")
            if kind == "exit":
                ending = record
                continue
            if kind == "run":
                started = record.run.start_time.seconds + record.run.start_time.nanos / 1e9
            if self.strip:
                _strip(record)
            if self._goes_up(kind, record):
                # Held back, for media that belong to it.
                if kind == "history":
                    record, newest_row = newest_row, record
                if record is not None:
                    yield record
        for record in self._refilled(started) if self.last else ():
            if record.WhichOneof("record_type") == "history":
                record, newest_row = newest_row, record
            if record is not None:
                yield record
        if self.again is not None:
            newest_row = self._with_media(newest_row, self.again.media)
            yield from self.again.records
            yield from self._media_summary()
        if newest_row is not None:
            yield newest_row
        yield from self._end(ending)

    def _with_media(self, row: Any, media: Sequence[Any]) -> Any:
        """Returns the newest row with media; where the server has that already, a row that follows it."""
        if not media:
            return row
        if row is None:
            row = _messages().Record()
            self.copies.last_step += 1
            self.copies.num_rows += 1
            _fill(row.history.item, {"_step": self.copies.last_step, "_timestamp": time.time()})
        row.history.item.extend(media)
        return row

    def _end(self, ending: Any) -> Iterator[Any]:
        """Yields the end of a start; of the newest, the one that the run folder tells of.

        A start that was killed has none, and one whose process was ended may have that process's own.
        """
        record = _messages().Record()
        record.exit.exit_code = ending.exit.exit_code if ending is not None else _NOT_ENDED if self.last else 0
        state = self.run.status().get("state")
        if self.last and state in _EXIT_CODES:
            record.exit.exit_code = _EXIT_CODES[state]
            yield _summary({"ended": state, **best_of(self.run)})
        yield record

    def _media_summary(self) -> Iterator[Any]:
        if self.again is None or not self.again.media:
            return  # W&B's process ends itself at a record that says nothing
        record = _messages().Record()
        for item in self.again.media:
            record.summary.update.add(nested_key=item.nested_key, value_json=item.value_json)
        yield record

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
        elif (artifact := artifact_of(record)) is not None:
            return self._has_files(artifact)
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
            yield _summary(newest)


def _link(source: str, target: str) -> None:
    # Media that were made again have the names that they had.
    with contextlib.suppress(FileExistsError):
        Path(target).symlink_to(source)


def _summary(values: Row) -> Any:
    record = _messages().Record()
    _fill(record.summary.update, values)
    return record


def _strip(record: Any) -> None:
    """Takes the media out of a row."""
    for item in list(media_in(record)):
        record.history.item.remove(item)


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
    described.project, described.entity = known_project(track.get("project")), track.get("entity") or ""
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
