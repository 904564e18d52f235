"""Draws the metric over each hyperparameter: a point a trial, into the sweep's `plots/`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.sweep.importance import Scale, scale_of, usable_trials, varies
from headway.sweep.result import Trial, best_trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from headway.sweep.folder import SweepFolder

# Beyond, a trial that exploded would press the others into one line.
LARGEST_LINEAR_RATIO = 30.0
# What is beyond is drawn there: an axis has margins and ticks outside of what it shows, which are numbers too.
_LARGEST_DRAWN = 1e150


def write_plots(sweep: SweepFolder) -> list[Path]:
    """Writes a PNG for each hyperparameter of which two values or more were tried, and returns where.

    Raises:
        OSError: a file cannot be written.
    """
    result, space = sweep.result(), sweep.section().space
    written = []
    for path, drawn in space.items():
        trials = [trial for trial in usable_trials(result.trials) if path in trial.config]
        if varies(trials, path):
            file = sweep.path / "plots" / f"{path.replace('/', '-')}.png"
            file.parent.mkdir(exist_ok=True)
            _draw(file, trials, path, scale_of(drawn), metric=result.metric, mode=result.mode)
            written.append(file)
    return written


def _draw(file: Path, trials: list[Trial], path: str, scale: Scale, *, metric: str, mode: str) -> None:
    # Not pyplot: that would choose a backend for the whole process. A figure alone is drawn by Agg.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    places = _places(axes, [trial.config[path] for trial in trials], scale)
    values = [_drawable(trial.value or 0.0) for trial in trials]
    for status, mark in (("done", "o"), ("stopped", "x")):
        chosen = [index for index, trial in enumerate(trials) if trial.status == status]
        if chosen:
            at = [places[index] for index in chosen], [values[index] for index in chosen]
            axes.scatter(*at, marker=mark, s=24, alpha=0.7, label=status)
    best = best_trial(trials, mode)
    if best is not None:
        index = trials.index(best)
        axes.scatter([places[index]], [values[index]], s=110, facecolors="none", edgecolors="black", label="best")
    if min(values) > 0 and max(values) / min(values) > LARGEST_LINEAR_RATIO:
        axes.set_yscale("log")
    axes.set(xlabel=path, ylabel=metric)
    axes.legend()
    figure.savefig(file)


def _places(axes: Axes, values: Sequence[Any], scale: Scale) -> list[float]:
    """Returns where values stand on the horizontal axis, which is made fit for them."""
    if scale != "choice":
        if scale == "log":
            axes.set_xscale("log")
        return [_drawable(float(value)) for value in values]
    names = [value if isinstance(value, str) else json.dumps(value) for value in values]
    known = sorted(set(names))
    axes.set_xticks(range(len(known)), known, rotation=30 if len(known) > 4 else 0)
    return [float(known.index(name)) for name in names]


def _drawable(value: float) -> float:
    """Returns the nearest number of which an axis knows what is a little more and a little less."""
    size = min(max(abs(value), 1 / _LARGEST_DRAWN), _LARGEST_DRAWN) if value else 0.0
    return math.copysign(size, value)
