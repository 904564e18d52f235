"""What W&B's files lack of a run besides rows: code, checkpoints and media.

An online run's file has no word of its artifacts, nor of the tables that are artifacts, too: where their upload did not
come to its end, nobody could upload them from it. What lies in the run folder is then given to the SDK again, offline,
and what it makes of that goes up with the rest; W&B knows an artifact that it has by its content.

Imports no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headway.run import RunFolder
from headway.track.artifacts import Checkpoint, log_checkpoints, log_code_in, newest_checkpoints
from headway.track.fragments import Fragment, list_fragments, once_written
from headway.track.media import give_media, read_index
from headway.track.wandb_server import quiet_wandb
from headway.wandb_file import LogFile, offline_file

Row = dict[str, Any]


@dataclass
class LeftOver:
    """What W&B's files lack of a run."""

    code: list[Path] = field(default_factory=list)
    """Folders of code and recipe."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    media: list[Row] = field(default_factory=list)
    """Rows of the index."""

    def __bool__(self) -> bool:
        """Returns whether there is anything."""
        return bool(self.code or self.checkpoints or self.media)


def left_over(run: RunFolder, waiting: Collection[Fragment], *, checkpoints: bool) -> LeftOver:
    """Returns what W&B's files lack.

    Args:
        run: the run.
        waiting: those of its starts that are not uploaded.
        checkpoints: whether W&B is to have its checkpoints.
    """
    found = LeftOver()
    media: Counter[str] = Counter()
    logged: list[Checkpoint] = []
    for fragment in list_fragments(run.path / "wandb"):
        artifacts: list[Any] = []
        if fragment.offline or fragment not in waiting:
            for record in LogFile(fragment.file).records():
                artifacts += [made] if (made := artifact_of(record)) is not None else []
                media.update({name_of(item) for item in media_in(record)})
        has_code = any(made.type == "code" for made in artifacts)
        if fragment in waiting and (fragment.folder / "code").is_dir() and not has_code:
            found.code.append(fragment.folder / "code")
        logged += [_as_checkpoint(made) for made in artifacts if made.type == "model"]
    if checkpoints:
        found.checkpoints = [checkpoint for checkpoint in newest_checkpoints(run) if checkpoint not in logged]
    for row in reversed(read_index(run)):
        # A picture of the same step that was made again is one row here, and may be two there.
        key = f"media/{row['name']}"
        media[key] -= 1
        if media[key] < 0 and (run.path / row["path"]).is_file():
            found.media.insert(0, row)
    return found


def artifact_of(record: Any) -> Any:
    """Returns the artifact that a record gives W&B; None for any other record."""
    kind = record.WhichOneof("record_type")
    if kind == "artifact":
        return record.artifact
    if kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
        return record.request.log_artifact.artifact
    return None


@dataclass(frozen=True)
class MadeAgain:
    """What the SDK makes of what its files lack."""

    records: list[Any]
    """Artifacts, and which files to upload."""
    media: list[Any]
    """Entries of a row of history."""
    files: Path
    """The folder of those files."""


def made_again(run: RunFolder, lacking: LeftOver, into: Path) -> MadeAgain:
    """Gives the SDK what its files lack, offline, and returns what it makes of that.

    Args:
        run: the run.
        lacking: what is missing.
        into: an empty folder.
    """
    wandb = quiet_wandb()
    into.mkdir(parents=True)
    settings = wandb.Settings(
        silent=True, console="off", disable_git=True, x_save_requirements=False, save_code=False,
        x_disable_meta=True, x_disable_stats=True,
    )  # fmt: skip
    made = wandb.init(
        dir=str(into), id=run.id, project="headway", mode="offline", reinit="create_new", settings=settings
    )
    fragment = Path(made.dir).parent
    for folder in lacking.code:
        log_code_in(made, run, folder)
    log_checkpoints(made, run, lacking.checkpoints)
    give_media(made, run, lacking.media, staged_in=into)
    made.finish()
    once_written(fragment)
    again = MadeAgain([], [], fragment / "files")
    for record in LogFile(offline_file(fragment)).records():
        again.media.extend(media_in(record))
        if artifact_of(record) is not None or record.WhichOneof("record_type") == "files":
            again.records.append(record)
    return again


def media_in(record: Any) -> Iterator[Any]:
    """Yields the entries of a row of history that are media."""
    if record.WhichOneof("record_type") == "history":
        yield from (item for item in record.history.item if name_of(item).startswith("media/"))


def name_of(item: Any) -> str:
    """Returns what the value is called of which an entry of a row is all, or a part."""
    return str(item.key or item.nested_key[0])


def _as_checkpoint(artifact: Any) -> Checkpoint:
    metadata = json.loads(artifact.metadata or "{}")
    return Checkpoint(
        int(metadata.get("step", -1)), tuple(name for name in ("best", "latest") if name in artifact.aliases)
    )
