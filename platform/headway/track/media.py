"""Images, tables and texts of a run: plain files in `media/`, told of in `media.jsonl`, and from there in W&B.

    media.jsonl        a row each: {"step": 40, "name": "misclassified", "kind": "image", "path": "media/..."}
    media/<name>-<step>.png    an image
    media/<name>-<step>.json   a table: {"columns": [...], "data": [[...], ...]}
    media/<name>-<step>.txt    a text

Imports no torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headway.run import MetricsFile, RunFolder, read_metrics

if TYPE_CHECKING:
    from PIL.Image import Image

INDEX = "media.jsonl"
Kind = Literal["image", "table", "text"]
_SUFFIXES: dict[Kind, str] = {"image": "png", "table": "json", "text": "txt"}


class Media:
    """The images, tables and texts of one run.

    Args:
        run: whose.
    """

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.added: list[dict[str, Any]] = []
        """What was added through this object, as rows of the index."""

    def image(self, name: str, image: Image, *, step: int) -> None:
        """Adds a picture."""
        image.save(self._new(name, "image", step))

    def table(self, name: str, columns: Sequence[str], data: Sequence[Sequence[Any]], *, step: int) -> None:
        """Adds a table."""
        table = {"columns": list(columns), "data": [list(row) for row in data]}
        self._new(name, "table", step).write_text(json.dumps(table) + "\n")

    def text(self, name: str, text: str, *, step: int) -> None:
        """Adds a text."""
        self._new(name, "text", step).write_text(text)

    def _new(self, name: str, kind: Kind, step: int) -> Path:
        """Returns where a medium's file goes, and tells of it in the index."""
        path = Path("media") / f"{name}-{step:08d}.{_SUFFIXES[kind]}"
        (self.run.path / "media").mkdir(exist_ok=True)
        row = {"step": step, "name": name, "kind": kind, "path": path.as_posix()}
        index = MetricsFile(self.run.path / INDEX)
        index.write([row])
        index.close()
        self.added.append(row)
        return self.run.path / path


def read_index(run: RunFolder) -> list[dict[str, Any]]:
    """Returns the rows of a run's media; of a medium that was made again, the newest."""
    rows = {row["path"]: row for row in read_metrics(run.path / INDEX) if isinstance(row.get("path"), str)}
    return list(rows.values())


def give_media(
    wandb_run: Any, run: RunFolder, rows: Sequence[dict[str, Any]], *, staged_in: Path | None = None
) -> None:
    """Logs media to W&B; each as it is in the run folder.

    Args:
        wandb_run: the SDK's run.
        run: whose media.
        rows: of their index.
        staged_in: where W&B keeps what an offline run's tables are uploaded from; the run's `wandb/` when absent.
    """
    import wandb

    with _staged_in(staged_in or run.path / "wandb"):
        for row in rows:
            file, name = run.path / row["path"], f"media/{row['name']}"
            value: Any
            if row["kind"] == "image":
                value = wandb.Image(str(file))
            elif row["kind"] == "table":
                table = json.loads(file.read_text())
                value = wandb.Table(columns=table["columns"], data=table["data"], allow_mixed_types=True)
            else:
                value = wandb.Table(columns=["text"], data=[[file.read_text()]])
            # Beside the newest row, whose own `step` stays what it is.
            wandb_run.log({name: value}, step=max(int(row["step"]), wandb_run.step))


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Has W&B keep what an offline run's tables are uploaded from with the run, not in the user's home."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["WANDB_DATA_DIR"]
        else:
            os.environ["WANDB_DATA_DIR"] = before
