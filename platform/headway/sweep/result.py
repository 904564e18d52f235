"""What a sweep comes to: its trials, the best of them, and the command that trains the best again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headway.config.errors import UserError
from headway.config.reading import read_text
from headway.config.space import POPULATIONS

if TYPE_CHECKING:
    from headway.config.space import SweepSection
    from headway.run import RunFolder
    from headway.sweep.importance import Importance

Status = Literal["pending", "running", "done", "stopped", "failed"]
ENDED: tuple[Status, ...] = ("done", "stopped", "failed")
SHOWN = 10


@dataclass(frozen=True)
class Trial:
    """One trial, which is an ordinary run."""

    run_id: str
    run_dir: str
    status: Status
    """done, stopped by the scheduler, or failed."""
    config: dict[str, Any]
    """What was sampled, by dotted path."""
    value: float | None
    """Best value of the sweep's metric; None where none was reported."""
    step: int | None
    """Optimizer steps at that value."""
    reason: str | None = None
    """Why it was stopped or failed."""


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended."""

    sweep_id: str
    sweep_dir: str
    metric: str
    mode: str
    trials: list[Trial]
    """In the order they were proposed."""
    best: Trial | None
    """The trial with the best value among those that did not fail."""
    command: str | None
    """Trains the best trial again, to its end: exactly, or within rounding where it was a row of an array."""
    wall_s: float
    refit: dict[str, Any] | None = None
    """What the best of a narrow copy came to at full width."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {"status": "done", **asdict(self)}

    def importance(self) -> Importance:
        """Returns which hyperparameter mattered, or why nothing can be said of that."""
        from headway.sweep.folder import SweepFolder
        from headway.sweep.importance import Importance, measure_importance

        try:
            space = SweepFolder(Path(self.sweep_dir)).section().space
        except UserError as error:
            return Importance([], str(error))
        return measure_importance(self.trials, space, mode=self.mode)

    def print_table(self, *, num_shown: int | None = SHOWN, importance: Importance | None = None) -> None:
        """Prints the best trials, what mattered, and the command that trains the best again.

        Args:
            num_shown: at most so many trials; all when None.
            importance: what mattered; worked out when None.
        """
        from rich.console import Console
        from rich.table import Table

        console = Console(width=None if sys.stdout.isatty() else 200)
        table = Table(box=None, pad_edge=False, header_style="bold")
        paths = list(dict.fromkeys(path for trial in self.trials for path in trial.config))
        for column in ("trial", self.metric, "step", "status", *paths):
            table.add_column(column, overflow="fold")
        for trial in ranked(self.trials, self.mode)[:num_shown]:
            cells = [shown(trial.config[path]) if path in trial.config else "" for path in paths]
            table.add_row(trial.run_id, shown(trial.value), shown(trial.step), trial.status, *cells)
        console.print(table)
        if num_shown is not None and len(self.trials) > num_shown:
            more = f"and {len(self.trials) - num_shown} more; `headway sweeps show {self.sweep_id}` lists them"
            console.print(more, highlight=False, soft_wrap=True)
        for trial in [trial for trial in self.trials if trial.status == "failed"][:3]:
            console.print(f"{trial.run_id} failed: {trial.reason}", highlight=False, soft_wrap=True, markup=False)
        (importance or self.importance()).print_table(console, metric=self.metric)
        if self.refit is not None:
            metrics = "  ".join(f"{name} {shown(value)}" for name, value in self.refit["metrics"].items())
            console.print(f"\nat full width {self.refit['run_id']}: {metrics}", highlight=False, soft_wrap=True)
        if self.command is not None:
            console.print(f"\n{self.command}", highlight=False, soft_wrap=True, markup=False)


def outcome_of(run: RunFolder) -> tuple[Status | None, str | None]:
    """Returns how a run says that it ended, and why; None where it does not."""
    status = run.status()
    state: Status | None = status["state"] if status.get("state") in ENDED else None
    return state, status.get("reason")


def ranked(trials: list[Trial], mode: str) -> list[Trial]:
    """Returns the trials, best first; what failed or reported nothing comes last."""
    sign = 1.0 if mode == "min" else -1.0

    def place(trial: Trial) -> tuple[bool, float]:
        usable = trial.value is not None and trial.value == trial.value  # not NaN
        return (trial.status == "failed" or not usable, sign * trial.value if usable and trial.value else 0.0)

    return sorted(trials, key=place)


def best_trial(trials: list[Trial], mode: str) -> Trial | None:
    """Returns the best trial; None where every one failed or reported nothing."""
    first = ranked(trials, mode)[:1]
    return first[0] if first and first[0].status != "failed" and first[0].value is not None else None


def refit_command(base: tuple[str, ...], trial: Trial, fixed: Mapping[str, Any]) -> str:
    """Returns the command line that trains a trial again: the user's own, with the trial's changes.

    Args:
        base: `headway fit RECIPE` and the user's changes; empty where the recipe is no file.
        trial: the trial.
        fixed: what all trials had in common.
    """
    if not base:
        return shlex.join(["headway", "fit", f"{trial.run_dir}/recipe.yaml"])
    changes = {**fixed, **trial.config}
    own = [assignment(path, changes[path]) for path in [*trial.config, *(set(fixed) - set(trial.config))]]
    return shlex.join([*base, *own])


def command_again(search: SweepSection, base: tuple[str, ...], best: Trial, fixed: Mapping[str, Any]) -> str:
    """Returns the command that trains the best trial again, or that looks at it where none would."""
    if search.scheduler.kind in POPULATIONS:
        # Its settings changed on the way, and its weights were another trial's; lineage.jsonl has both.
        return shlex.join(["headway", "eval", best.run_dir])
    return refit_command(base, best, fixed)


def assignment(path: str, value: Any) -> str:
    """Returns `optim.lr=0.1`, which a command line reads back to the very same value."""
    if isinstance(value, str):
        try:
            if read_text(value, source=path) == value:
                return f"{path}={value}"
        except UserError:
            pass
    return f"{path}={json.dumps(value)}"


def shown(value: Any) -> str:
    """Returns a value as a table shows it."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
