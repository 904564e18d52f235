"""`fit_rows`: several recipes trained side by side, each with a run folder of its own. Needs no Ray."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headway.config.contracts import Batch, Data, Place, Split
from headway.config.errors import HeadwayError, UserError
from headway.fused.fusing import stack_key, why_not
from headway.fused.rows import Metrics, Row
from headway.fused.seating import Array
from headway.prepare import prepare
from headway.recipe import Recipe
from headway.run import RunFolder, make_run_folder
from headway.supervise.place import choose_device
from headway.training import Job, quiet_lightning, train

OnReport = Callable[[Metrics], bool]


class DataShelf:
    """Data that has been loaded: rows with the same `data` section share it, moved to their device once."""

    def __init__(self) -> None:
        self._loaded: dict[str, Data] = {}

    def prepare(self, recipe: Recipe, place: Place) -> Data:
        """Returns a recipe's data, checked against its other sections.

        Raises:
            UserError: one line for the first thing that does not fit.
        """
        key = recipe.data.model_dump_json()
        known = self._loaded.get(key)
        data = prepare(recipe, place, data=known)
        if known is None:
            data = self._loaded[key] = keep_splits(data)
        return data


def keep_splits(data: Data) -> Data:
    """Returns the data with splits that are moved to a device once, however many runs ask."""
    train, validation, test = map(_KeptSplit, (data.train, data.validation, data.test))
    return replace(data, train=train, validation=validation, test=test)


class _KeptSplit(Split):
    """A split that is moved to a device once."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self.in_memory = split.in_memory
        self._moved: dict[tuple[torch.device, torch.dtype], Split] = {}

    def __len__(self) -> int:
        return len(self.split)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns samples."""
        return self.split.gather(index_N, epoch=epoch)

    def to(self, device: torch.device, dtype: torch.dtype) -> Split:
        """Returns the same split for the same device and type."""
        key = device, dtype
        if key not in self._moved:
            self._moved[key] = self.split.to(device, dtype)
        return self._moved[key]


def make_row(
    run: RunFolder,
    begin: Callable[[], Recipe],
    *,
    shelf: DataShelf,
    reporter: Callable[[Recipe, OnReport], OnReport] | None = None,
    argv: Sequence[str] = (),
) -> Row:
    """Returns a row that trains a recipe into a run folder, from its newest checkpoint, and waits at each validation.

    Args:
        run: its folder, which need not be there.
        begin: returns what it trains; called in the row's thread.
        shelf: where data is kept.
        reporter: makes what the run calls with each validation, from the recipe and from what waits there.
        argv: the command line that the run's manifest has.
    """
    # A process that dies takes nothing with it that the operating system has.
    run = replace(run, flush=False)

    def work(row: Row) -> None:
        recipe = begin()
        place = Place(device=choose_device(recipe.trainer))
        data = shelf.prepare(recipe, place)
        reason = why_not(recipe, data)
        if reason is not None:
            raise UserError(f"sweep.fuse: on, but {reason}; set sweep.fuse=off")
        row.key = stack_key(recipe, data)
        make_run_folder(run.path)
        on_report = reporter(recipe, row.give_report) if reporter else row.give_report
        job = Job(
            recipe,
            run,
            place,
            list(argv),
            resume=True,
            on_report=on_report,
            progress=False,
            stepper=row,
        )
        try:
            train(job, data)
        except BaseException as error:
            _log(run, error)
            raise

    return Row(run.id, work)


def _log(run: RunFolder, error: BaseException) -> None:
    """Writes why a row ended into its run's log: rows share this process's output."""
    with run.log(0).open("a") as log:
        if isinstance(error, HeadwayError):
            log.write(f"headway: {error}\n")
        else:
            traceback.print_exception(error, file=log)


def fit_rows(recipes: Mapping[str, Recipe], *, runs: str | Path) -> dict[str, dict[str, Any]]:
    """Trains recipes side by side and returns the final metrics by name.

    Args:
        recipes: by the name of the run.
        runs: the folder of run folders.

    Raises:
        UserError: a recipe that cannot be a row.
        TrainingFailed: a row's loss is no number, after the others have ended.
    """
    shelf, array = DataShelf(), Array()

    def seat(name: str, recipe: Recipe) -> Row:
        return make_row(RunFolder(Path(runs) / name), lambda: recipe, shelf=shelf, argv=sys.argv)

    rows = [seat(name, recipe) for name, recipe in recipes.items()]
    with quiet_lightning():
        waiting = list(rows)
        while waiting:
            array.advance(waiting)
            for row in waiting:
                row.take_report()
            waiting = [row for row in waiting if not row.ended]
    for row in rows:
        if row.error is not None:
            raise row.error
    return {row.name: RunFolder(Path(runs) / row.name).status()["final"] for row in rows}
