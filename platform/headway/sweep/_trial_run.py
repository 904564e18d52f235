"""A trial as a run: its recipe, its folder, its reports, and what its status says of its end."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from ray.tune.result import RESULT_DUPLICATE

from headway.checkpoint import store
from headway.config.errors import HeadwayError, Stopped
from headway.config.overrides import override
from headway.config.reading import Tree
from headway.config.space import POPULATIONS, SweepSection
from headway.recipe import Recipe, load_recipe
from headway.run import MetricsFile, RunFolder, make_run_folder, read_metrics
from headway.sweep.folder import values_at
from headway.sweep.ledger import trial_run_id
from headway.track.recorder import OnReport

Metrics = dict[str, float]
SAVE_EVERY_S = 5.0
"""Seconds of training that a trial may lose when it is killed."""
_FREE_WITHIN_S = 30.0
LENDER = "lender.json"
"""What says whose copy a folder is; written last."""


@dataclass(frozen=True)
class TrialJob:
    """What the trials of a sweep have in common."""

    tree: Tree
    fixed: dict[str, Any]
    search: SweepSection
    runs: str
    sweep_id: str
    trust: tuple[str, ...]
    folder: str
    """Where the sweep was started: relative paths in the recipe start there."""
    ranks: int = 1
    """Processes of a trial."""
    on_gpu: bool = False


class TrialRun:
    """One trial.

    Args:
        job: what the trials have in common.
        number: which this is.
        sample: its changes to the recipe.
    """

    def __init__(self, job: TrialJob, number: int, sample: dict[str, Any]) -> None:
        self.job = job
        self.number = number
        # Tune's own entries, and what a condition of the space excludes, are none of the recipe's.
        self.sample = job.search.active(sample)
        self.run = RunFolder(Path(job.runs) / trial_run_id(job.sweep_id, number))
        self.argv = ["headway", "sweep", self.run.id]
        self._last: Metrics | None = None
        self._reached = 0

    # ---- before it trains ------------------------------------------------------------------------

    def begin(self) -> Recipe:
        """Returns the sweep's recipe with the sample, and leaves a folder that a fit can use, new or not.

        Raises:
            UserError: the sample goes against the recipe, or another process still trains this trial.
        """
        recipe = self.recipe()
        make_run_folder(self.run.path)
        self.run.wait_until_free(_FREE_WITHIN_S)
        if self._is_anothers(recipe):
            # Never gone on from, and never lost: an ordinary run of another name.
            self.run.path.rename(self.run.path.with_name(f"{self.run.id}-aside-{secrets.token_hex(2)}"))
            make_run_folder(self.run.path)
        return recipe

    def _is_anothers(self, recipe: Recipe) -> bool:
        """Returns whether the folder has a trial of this number that tried something else.

        A journal that was damaged knows less than its trials' folders; a searcher that learns then proposes others.
        """
        if self.job.search.scheduler.kind in POPULATIONS or not self.run.recipe.is_file():
            return False
        try:
            before = yaml.safe_load(self.run.recipe.read_text())
        except yaml.YAMLError:
            return False
        now = yaml.safe_load(recipe.yaml())
        return any(list(values_at(before, path)) != list(values_at(now, path)) for path in self.job.search.space)

    def lend(self, folder: Path) -> None:
        """Copies the newest and the best checkpoint, for whoever goes on from them.

        Without a population that is this trial alone, whose run folder has them.
        """
        if self.job.search.scheduler.kind in POPULATIONS:
            shutil.copytree(self.run.checkpoints, folder / "checkpoints", ignore=shutil.ignore_patterns(".*"))
        (folder / LENDER).write_text(json.dumps({"from": self.run.id, "copy": secrets.token_hex(4)}))

    def adopt(self, folder: Path) -> None:
        """Goes on from what a trial lent: its weights, optimizer and position; the settings are this trial's own.

        Its best checkpoint is the better of both trials' up to there. `lineage.jsonl` tells of it. What it went on from
        before, it has: Ray hands that out again where the trial's process dies.
        """
        lender = json.loads((folder / LENDER).read_text())
        lineage = self.run.path / "lineage.jsonl"
        if lender["from"] == self.run.id or lender["copy"] in [row.get("copy") for row in read_metrics(lineage)]:
            return
        lent, _ = store.load_newest(folder / "checkpoints")
        if lent is None:
            return
        make_run_folder(self.run.path)
        own, _ = store.load_newest(self.run.checkpoints)
        best, source = lent.position["best"], folder / "checkpoints"
        mine = own.position["best"] if own else None
        if mine and mine["step"] <= lent.step and _is_better(mine, best, self.recipe().trainer.monitor_mode):
            best, source = mine, self.run.checkpoints
        if best is not None:
            store.save(self.run.checkpoints, store.load(source / f"{best['step']:08d}"))
        store.save(self.run.checkpoints, replace(lent, position={**lent.position, "best": best, "stalled": 0}))
        # One of a later step would be gone on from instead.
        store.prune(self.run.checkpoints, {lent.step} | ({best["step"]} if best else set()))
        told = MetricsFile(lineage)
        told.write([{"step": lent.step, **lender, "config": self.sample}])
        told.close()

    def recipe(self) -> Recipe:
        """Returns the sweep's recipe with the sample.

        Raises:
            UserError: the sample goes against it.
        """
        # Of hundreds of trials nobody wants to hear, or look at pictures.
        quiet = {"track.code": False, "track.media": False, "track.alerts": []}
        named = {"track.group": self.job.sweep_id, "track.job_type": "trial"}
        changes = {**named, **quiet, **self.job.fixed, **self.sample}
        return load_recipe(self.job.tree, changes, trust=self.job.trust)

    # ---- while it trains -------------------------------------------------------------------------

    def reporter(self, recipe: Recipe, ask: Callable[[Metrics], bool]) -> OnReport:
        """Returns what the run calls with each validation.

        Args:
            recipe: the trial's.
            ask: hands on a report and returns whether to go on.
        """

        def on_report(metrics: Metrics) -> bool:
            self._reached = int(metrics["step"])
            batches_per_epoch = round(metrics["step"] / metrics["epoch"])
            # Tune keeps what it is told, and has no use for the rest.
            told = {name: metrics[name] for name in ("step", self.job.search.metric) if name in metrics}
            if self._reached >= recipe.trainer.total_steps(batches_per_epoch):
                # There is nothing left to stop; reported once the run is tested and closed.
                self._last = told
                return True
            if ask(told):
                return True
            message = f"stopped by {self.job.search.scheduler.kind} at step {self._reached}"
            raise Stopped(message, signal_number=signal.SIGTERM)

        return on_report

    # ---- at its end ------------------------------------------------------------------------------

    def last_report(self) -> dict[str, Any]:
        """Returns the report at the end of the trial.

        Where there is nothing new to report, Ray takes the last one as the end, as it does for its functions.
        """
        if self._last is None and self.run.status().get("state") == "done":
            # It had ended before it was gone on with, and nobody had heard.
            rows = [row for row in read_metrics(self.run.metrics) if "val/loss" in row]
            self._last = {name: value for name, value in rows[-1].items() if value is not None} if rows else None
        return {**self._last, "done": True} if self._last else {RESULT_DUPLICATE: True}

    def record(self, error: HeadwayError) -> None:
        """Adds to the run's status what only the trial knows; a trial that was refused gets a run that says why."""
        run = self.run
        if not run.recipe.is_file():
            make_run_folder(run.path)
            with contextlib.suppress(HeadwayError):
                run.recipe.write_text(yaml.safe_dump(override(self.job.tree, self.sample), sort_keys=False))
            run.update_status(state="failed", reason=str(error))
        elif isinstance(error, Stopped):
            # A checkpoint may be newer than the last report.
            run.update_status(step=max(self._reached, int(run.status().get("checkpoint", 0))))
        elif run.status().get("state") != "failed":
            run.update_status(state="failed", reason=str(error))


def _is_better(one: dict[str, Any], other: dict[str, Any] | None, mode: str) -> bool:
    """Returns whether one checkpoint's metric is better than another's."""
    if other is None:
        return True
    sign = 1.0 if mode == "min" else -1.0
    return bool(sign * one["value"] < sign * other["value"])
