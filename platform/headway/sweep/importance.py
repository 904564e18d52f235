"""Says which hyperparameter mattered: fANOVA over a sweep's trials, and a sketch of each one's effect.

A random forest learns the metric from the samples; a hyperparameter's importance is its part of what the forest's
answer varies by when only one is changed. Optuna makes the parts add up to 1, so they compare hyperparameters of one
sweep and no two sweeps. The forest learns ranks: of the values, one trial that exploded would be all the variance.

Source: Hutter et al. 2014, An Efficient Approach for Assessing Hyperparameter Importance; the computation is Optuna's.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from headway.config.space import Distribution
from headway.sweep.result import Trial, shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from rich.console import Console

Scale = Literal["choice", "linear", "log"]
MIN_TRIALS = 4
# The time grows with the square of them: 0.6 s for 64 trials, 11 s for 500.
MAX_TRIALS = 256
SEED = 0
NUM_BINS = 12
NUM_CHOICES_SHOWN = 6
BAR_WIDTH = 20
_BLOCKS = "▁▂▃▄▅▆▇█"
_EMPTY_BIN = "·"


@dataclass(frozen=True)
class Effect:
    """What one hyperparameter did to the metric."""

    path: str
    importance: float | None
    """Its part, 0 to 1; None where too few trials have it."""
    num_trials: int
    """How many trials have it, and a value."""
    scale: Scale
    """How its values lie."""
    sketch: str
    """The metric over its values, on one line."""


@dataclass(frozen=True)
class Importance:
    """What mattered in a sweep."""

    effects: list[Effect]
    """The most important first."""
    reason: str | None = None
    """Why nothing can be said; None where it can."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {"importance": {effect.path: effect.importance for effect in self.effects}, "reason": self.reason}

    def print_table(self, console: Console, *, metric: str) -> None:
        """Prints each hyperparameter with a bar and its sketch, or the reason why there is none."""
        from rich.table import Table
        from rich.text import Text

        if self.reason is not None:
            console.print(f"\nimportance: {self.reason}", highlight=False, soft_wrap=True)
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        choices = "; of choices the median (best)" if any(one.scale == "choice" for one in self.effects) else ""
        for column in ("hyperparameter", "importance", "", f"{metric} by its value{choices}"):
            table.add_column(Text(column), overflow="fold")
        for effect in self.effects:
            part = effect.importance
            number, bar = ("", f"in {effect.num_trials} trials") if part is None else (f"{part:.2f}", _bar(part))
            table.add_row(*(Text(cell) for cell in (effect.path, number, bar, effect.sketch)))
        console.print()
        console.print(table)


def usable_trials(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that ended with a value."""
    ended = [trial for trial in trials if trial.status in ("done", "stopped")]
    return [trial for trial in ended if trial.value is not None and math.isfinite(trial.value)]


def scale_of(drawn: Distribution) -> Scale:
    """Returns how a distribution's values lie: apart, on a line, or on the line of their logarithms."""
    if drawn.is_logarithmic:
        return "log"
    return "linear" if drawn.values is None else "choice"


def measure_importance(trials: Sequence[Trial], space: Mapping[str, Distribution], *, mode: str) -> Importance:
    """Returns what mattered. The same trials give the same answer each time.

    A path that only some trials have, since a condition took it out of the others, is measured in those that have it.

    Args:
        trials: the sweep's.
        space: what was searched.
        mode: min or max, which says what choice of several is named first.
    """
    found = usable_trials(trials)
    if len(found) < MIN_TRIALS:
        need = f"{MIN_TRIALS} are needed to tell what mattered"
        return Importance([], f"{len(found)} {'trial' if len(found) == 1 else 'trials'} ended with a value; {need}")
    if len({trial.value for trial in found}) == 1:
        return Importance([], f"all {len(found)} trials have the same value")
    effects = []
    for group in _groups(found, space).values():
        having = [trial for trial in found if group[0] in trial.config]
        parts = _parts(having, space)
        for path in group:
            scale = scale_of(space[path])
            sketch = _sketch(having, path, scale, mode=mode)
            effects.append(Effect(path, parts.get(path), len(having), scale, sketch))
    if not effects:
        return Importance([], "no hyperparameter took two values")
    return Importance(sorted(effects, key=lambda effect: (-(effect.importance or 0.0), effect.path)))


def _groups(trials: list[Trial], space: Mapping[str, Distribution]) -> dict[tuple[str, ...], list[str]]:
    """Returns the paths that took two values or more, by the trials that have them."""
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in space:
        having = [trial for trial in trials if path in trial.config]
        if varies(having, path):
            groups[tuple(trial.run_id for trial in having)].append(path)
    return groups


def varies(trials: Sequence[Trial], path: str) -> bool:
    """Returns whether a path took two values or more."""
    return len({json.dumps(trial.config.get(path)) for trial in trials}) > 1


def _parts(trials: list[Trial], space: Mapping[str, Distribution]) -> dict[str, float]:
    """Returns the importance of every path that all of some trials have; {} where these are too few."""
    trials = trials[:: -(-len(trials) // MAX_TRIALS)]
    paths = [path for path in space if all(path in trial.config for trial in trials) and varies(trials, path)]
    if len(trials) < MIN_TRIALS or len({trial.value for trial in trials}) == 1:
        return {}
    from optuna import create_study
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    columns = {path: _column([trial.config[path] for trial in trials], scale_of(space[path])) for path in paths}
    distributions = {path: distribution for path, (distribution, _) in columns.items()}
    with _quiet_optuna():
        study = create_study()
        for row, rank in enumerate(_ranks([trial.value or 0.0 for trial in trials])):
            params = {path: encoded[row] for path, (_, encoded) in columns.items()}
            study.add_trial(create_trial(params=params, distributions=distributions, value=rank))
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=SEED))
    return {path: float(part) for path, part in found.items()}


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keeps Optuna from telling that it made a study."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _column(values: list[Any], scale: Scale) -> tuple[BaseDistribution, list[Any]]:
    """Returns a hyperparameter's distribution as Optuna has it, and its values in that."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if scale == "choice":
        # Lists and sections may be chosen from too, and True is not 1.
        names = [json.dumps(value) for value in values]
        return CategoricalDistribution(sorted(set(names))), names
    # Optuna's fANOVA takes no logarithms: a rate's decades would weigh by their widths.
    numbers = [_place(value, scale) for value in values]
    return FloatDistribution(min(numbers), max(numbers)), numbers


def _place(value: Any, scale: Scale) -> float:
    return math.log10(value) if scale == "log" else float(value)


def _ranks(values: Sequence[float]) -> list[float]:
    """Returns each value's place among all; equal values share theirs."""
    order = sorted(values)
    ends = {value: place for place, value in enumerate(order)}
    return [(order.index(value) + ends[value]) / 2 for value in values]


# ---- on one line -----------------------------------------------------------------------------------


def _bar(part: float) -> str:
    """Returns a bar to an eighth of a character."""
    eighths = round(part * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _sketch(trials: list[Trial], path: str, scale: Scale, *, mode: str) -> str:
    if scale == "choice":
        return _choices(trials, path, mode=mode)
    values = [trial.config[path] for trial in trials]
    places = [_place(value, scale) for value in values]
    low, width = min(places), max(places) - min(places)
    bins: dict[int, list[float]] = defaultdict(list)
    for place, rank in zip(places, _ranks([trial.value or 0.0 for trial in trials]), strict=True):
        bins[min(NUM_BINS - 1, int((place - low) / width * NUM_BINS))].append(rank / (len(trials) - 1))
    blocks = (_block(median(bins[index])) if index in bins else _EMPTY_BIN for index in range(NUM_BINS))
    return f"{shown(min(values))} {''.join(blocks)} {shown(max(values))}"


def _block(height: float) -> str:
    return _BLOCKS[min(len(_BLOCKS) - 1, int(height * len(_BLOCKS)))]


def _choices(trials: list[Trial], path: str, *, mode: str) -> str:
    """Returns the median and the best of each choice, the best median first."""
    by_choice: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        by_choice[_plain(trial.config[path])].append(trial.value or 0.0)
    order = sorted(by_choice.items(), key=lambda choice: median(choice[1]), reverse=mode == "max")
    best = max if mode == "max" else min
    told = [
        f"{name} {shown(float(median(values)))} ({shown(best(values))})" for name, values in order[:NUM_CHOICES_SHOWN]
    ]
    more = [f"and {len(order) - len(told)} more"] if len(order) > len(told) else []
    return "  ".join([*told, *more])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
