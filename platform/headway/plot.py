"""`headway plot`: curves of runs as a paper wants them: a vector file, sensible sizes, colours that all can tell apart.

    find runs -> read their metrics -> group -> reduce and smooth -> draw

Colours: Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from headway.config.errors import UserError, suggestion
from headway.config.reading import read_text
from headway.run import RunFolder, find_run, read_metrics
from headway.sweep.folder import SweepFolder, is_sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Axis = Literal["step", "time", "samples", "tokens"]
Band = Literal["spread", "range", "none"]
Values = NDArray[np.float64]
ENDINGS = ("pdf", "png", "svg")
LONGEST_CURVE = 2000
"""Points of a curve; a longer one is drawn as the mean and the range of so many pieces."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_DASHES = ("-", "--", ":", "-.")
_LOOK: Any = {
    "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8, "legend.fontsize": 7,
    "xtick.labelsize": 7, "ytick.labelsize": 7,
    "axes.linewidth": 0.6, "lines.linewidth": 1.2, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "axes.grid": True, "grid.linewidth": 0.4, "grid.alpha": 0.35, "axes.axisbelow": True,
    # Fonts as fonts: text can be searched and edited, and journals take no Type 3.
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """What to draw."""

    metrics: Sequence[str]
    x: Axis = "step"
    log: str = ""
    """Axes with a logarithmic scale: x, y or xy."""
    smooth: float = 0.0
    """How much of the curve before goes into a point: 0 is as measured."""
    group_by: str | None = None
    """Setting of the recipe; runs that have the same value of it are one curve."""
    band: Band = "spread"
    together: bool = False
    """All metrics in one panel."""
    labels: Sequence[str] = ()
    title: str = ""
    size: tuple[float, float] | None = None
    """Width and height in inches; what fits a paper's column or page when absent."""


@dataclass(frozen=True)
class Curve:
    """One metric of one run, or of several runs of a kind."""

    x: Values
    y: Values
    low: Values | None = None
    high: Values | None = None
    runs: int = 1


@dataclass
class Source:
    """A run's rows and recipe."""

    run: RunFolder
    rows: list[dict[str, Any]] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)

    @property
    def metrics(self) -> set[str]:
        """Returns the names that have a number in some row."""
        return {
            name
            for row in self.rows
            for name, value in row.items()
            if "/" in name and isinstance(value, int | float) and value is not None
        }


@dataclass(frozen=True)
class Drawn:
    """What came into a file."""

    curves: int
    lacking: Mapping[str, Sequence[str]]
    """Metrics that some runs do not have, with the labels of these: they are not in the picture."""


def write_plot(names: Sequence[str], plot: Plot, out: Path, *, runs: Path) -> Drawn:
    """Draws runs into a file, and returns what is in it.

    Args:
        names: runs, by id or path; of a sweep its trials, of an array its seeds.
        plot: what to draw of them.
        out: the file; its ending says of what kind.
        runs: the folder of run folders.

    Raises:
        UserError: one line with what cannot be drawn, and what could.
    """
    _check(plot, out)
    found = {run.path: run for name in names for run in find_runs(runs, name)}
    sources = [read_source(run) for run in found.values()]
    known: set[str] = set().union(*(source.metrics for source in sources))
    for metric in plot.metrics:
        if metric not in known:
            raise UserError(f"--metric: {metric} is in none of these runs{suggestion(metric, known)}")
    groups = group(sources, plot.group_by)
    if plot.labels and len(plot.labels) != len(groups):
        raise UserError(f"--label: {len(plot.labels)} given for {len(groups)} curves; name each, in their order")
    if plot.labels:
        groups = dict(zip(plot.labels, groups.values(), strict=True))
    curves = {
        (label, metric): curve
        for label, members in groups.items()
        for metric in plot.metrics
        if (curve := make_curve(members, metric, plot)) is not None
    }
    if "y" in plot.log and any((curve.y <= 0).any() for curve in curves.values()):
        raise UserError("--log: y needs values above zero, and there are others; leave it out")
    _draw(curves, list(groups), plot, out)
    lacking = {metric: [label for label in groups if (label, metric) not in curves] for metric in plot.metrics}
    return Drawn(len(curves), {metric: labels for metric, labels in lacking.items() if labels})


def _check(plot: Plot, out: Path) -> None:
    ending = out.suffix.lower().removeprefix(".")
    if ending not in ENDINGS:
        raise UserError(f"--out: {out} should end in .png, .svg or .pdf{suggestion(ending, ENDINGS) if ending else ''}")
    if out.parent != Path() and not out.parent.is_dir():
        raise UserError(f"--out: there is no folder {out.parent}; make it first")
    if not 0 <= plot.smooth < 1:
        raise UserError(f"--smooth: {plot.smooth} should be at least 0 and less than 1")
    if not set(plot.log) <= {"x", "y"}:
        raise UserError(f"--log: {plot.log} should be x, y or xy")


def find_runs(runs: Path, name: str) -> list[RunFolder]:
    """Returns the runs that a name means: one, the trials of a sweep, or the seeds of an array.

    Raises:
        UserError: there are none.
    """
    for path in (Path(name), runs / name):
        if is_sweep(path):
            return list(SweepFolder(path.resolve()).run_folders().values())
    try:
        return [find_run(runs, name)]
    except UserError:
        array = runs / name  # a path that is whole by itself stays as it is
        seeds = [
            path for path in array.parent.glob(f"{_escaped(array.name)}-seed*") if (path / "recipe.yaml").is_file()
        ]
        if not seeds:
            raise
    return [RunFolder(path) for path in sorted(seeds)]


def _escaped(name: str) -> str:
    import glob

    return glob.escape(name)


def read_source(run: RunFolder) -> Source:
    """Returns a run's rows and recipe.

    Raises:
        UserError: it has no rows, or its recipe cannot be read.
    """
    rows = read_metrics(run.metrics)
    if not rows:
        raise UserError(f"{run.id}: has no rows in metrics.jsonl yet; leave it out")
    try:
        tree = read_text(run.recipe.read_text(), source=str(run.recipe))
    except OSError as error:
        raise UserError(f"{run.recipe}: cannot be read ({error.strerror})") from None
    return Source(run, rows, tree)


def group(sources: Sequence[Source], path: str | None) -> dict[str, list[Source]]:
    """Returns the runs under the names of their curves: a run a curve, or those with the same value of a setting.

    Raises:
        UserError: a run whose recipe has no such setting.
    """
    if path is None:
        return {label: [source] for label, source in zip(_names(sources), sources, strict=True)}
    groups: dict[str, list[Source]] = {}
    for source in sources:
        value: Any = source.recipe
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                known = sorted(map(str, value)) if isinstance(value, Mapping) else []
                raise UserError(f"--group-by: {path} is not in the recipe of {source.run.id}{suggestion(part, known)}")
            value = value[part]
        label = str(value) if path == "name" else f"{path.rpartition('.')[2]} = {value}"
        groups.setdefault(label, []).append(source)
    return groups


def _names(sources: Sequence[Source]) -> list[str]:
    """Returns the runs' names, with as many of the folders above as tell those of one name apart."""
    paths = [source.run.path.resolve() for source in sources]

    def ending(path: Path, length: int) -> str:
        return str(Path(*path.parts[-length:]))

    def name(path: Path) -> str:
        lengths = range(1, len(path.parts) + 1)
        alone = (n for n in lengths if [ending(other, n) for other in paths].count(ending(path, n)) == 1)
        return ending(path, next(alone, len(path.parts)))

    return [name(path) for path in paths]


def make_curve(sources: Sequence[Source], metric: str, plot: Plot) -> Curve | None:
    """Returns a metric's curve over runs of a kind; None where none of them has it.

    Of several runs it is their mean, where all of them have values, with the band around it.
    """
    lines = [line for source in sources if len((line := _line(source, metric, plot.x))[0])]
    if not lines:
        return None
    if len(lines) == 1:
        x, y = lines[0]
        if len(x) > LONGEST_CURVE:
            return _pieces(x, y, plot)
        faint = plot.smooth > 0 and plot.band != "none"
        return Curve(x, smoothed(y, plot.smooth), *((y, y) if faint else (None, None)))
    start, end = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    grid = np.unique(np.concatenate([x[(x >= start) & (x <= end)] for x, _ in lines]))
    if not len(grid):
        raise UserError(f"--group-by: the runs of one curve have no {plot.x} of {metric} in common; plot them apart")
    if len(grid) > LONGEST_CURVE:
        grid = np.linspace(start, end, LONGEST_CURVE)
    values = np.stack([np.interp(grid, x, smoothed(y, plot.smooth)) for x, y in lines])
    mean = values.mean(axis=0)
    if plot.band == "none":
        return Curve(grid, mean, runs=len(lines))
    if plot.band == "range":
        return Curve(grid, mean, values.min(axis=0), values.max(axis=0), len(lines))
    spread = values.std(axis=0, ddof=1)
    low = mean - spread
    if "y" in plot.log:
        # A mean less its deviation may fall below zero, where a logarithm has no place for it.
        low = np.maximum(low, values.min(axis=0))
    return Curve(grid, mean, low, mean + spread, len(lines))


def _line(source: Source, metric: str, axis: Axis) -> tuple[Values, Values]:
    """Returns one run's values of a metric and where they stand on the horizontal axis."""
    scale, name = _scale(source, axis)
    first = float(source.rows[0].get("time", 0.0)) if axis == "time" else 0.0
    pairs = [
        (row[name] - first, row[metric])
        for row in source.rows
        if isinstance(row.get(metric), int | float) and isinstance(row.get(name), int | float)
    ]
    table = np.array(pairs, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    x, last = np.unique(table[::-1, 0], return_index=True)
    return x * scale, table[::-1, 1][last]  # of two rows at one place, what was written last


def _scale(source: Source, axis: Axis) -> tuple[float, str]:
    """Returns what turns a row's step (or time) into the axis, and which of both it is.

    Raises:
        UserError: tokens of a run that reads none.
    """
    if axis == "time":
        return 1.0, "time"
    if axis == "step":
        return 1.0, "step"
    samples = float(source.recipe.get("trainer", {}).get("batch_size", 1))
    if axis == "samples":
        return samples, "step"
    for row in source.rows:
        rate, tokens = row.get("perf/samples_per_s"), row.get("perf/tokens_per_s")
        if rate and tokens:
            return samples * round(tokens / rate), "step"
    raise UserError(f"--x: tokens, but {source.run.id} counts none; use step or samples")


def smoothed(values: Values, share: float) -> Values:
    """Returns a running mean in which each older value counts `share` of the next, without a pull towards zero."""
    if share == 0 or not len(values):
        return values
    made, weighted, weight = np.empty_like(values), 0.0, 0.0
    for index, value in enumerate(values):
        weighted = share * weighted + (1 - share) * value
        weight = share * weight + (1 - share)
        made[index] = weighted / weight
    return made


def _pieces(x: Values, y: Values, plot: Plot) -> Curve:
    """Returns a long curve as the mean and the range of pieces, so that a file stays small and no peak is lost."""
    calm = smoothed(y, plot.smooth)
    starts = np.linspace(0, len(x), LONGEST_CURVE, endpoint=False).astype(int)
    counts = np.diff(np.append(starts, len(x)))
    means = np.add.reduceat(calm, starts) / counts
    middle = np.add.reduceat(x, starts) / counts
    if plot.band == "none":
        return Curve(middle, means)
    return Curve(middle, means, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts))


def _draw(curves: Mapping[tuple[str, str], Curve], labels: Sequence[str], plot: Plot, out: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    panels = 1 if plot.together else len(plot.metrics)
    with matplotlib.rc_context(_LOOK):
        # Not pyplot: that would choose a backend for the whole process.
        figure = Figure(figsize=plot.size or ((3.4, 2.4) if panels == 1 else (6.9, 2.4)), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        unit, divisor = _time_unit(curves.values()) if plot.x == "time" else ("", 1.0)
        for number, metric in enumerate(plot.metrics):
            panel = axes[0 if plot.together else number]
            for index, label in enumerate(labels):
                curve = curves.get((label, metric))
                if curve is not None:
                    dash = _DASHES[number % len(_DASHES)] if plot.together else "-"
                    name = f"{label}, {metric}" if plot.together and len(plot.metrics) > 1 else label
                    _draw_curve(panel, curve, name, _colour(index, len(labels)), dash, divisor)
            panel.set_ylabel("" if plot.together and len(plot.metrics) > 1 else metric)
        for panel in axes:
            _dress(panel, plot, unit)
        if len(labels) > 1 or (plot.together and len(plot.metrics) > 1):
            # A long name lies over the edge rather than leave no room for the curves.
            axes[0].legend().set_in_layout(False)
        if plot.title:
            figure.suptitle(plot.title)
        try:
            figure.savefig(out, dpi=300)
        except OSError as error:
            raise UserError(f"--out: {out} cannot be written ({error.strerror})") from None


def _draw_curve(panel: Axes, curve: Curve, label: str, colour: Any, dash: str, divisor: float) -> None:
    x = curve.x / divisor
    if curve.low is not None and curve.high is not None:
        if curve.low is curve.high:
            panel.plot(x, curve.low, color=colour, alpha=0.25, linewidth=0.6)  # as measured, behind the smooth one
        else:
            panel.fill_between(x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    mark = "o" if len(x) == 1 else ""
    panel.plot(x, curve.y, color=colour, linestyle=dash, label=label, marker=mark, markersize=3)


def _colour(index: int, count: int) -> Any:
    if count <= len(_COLOURS):
        return _COLOURS[index]
    from matplotlib import colormaps

    return colormaps["viridis"](index / (count - 1))


def _dress(panel: Axes, plot: Plot, unit: str) -> None:
    from matplotlib.ticker import EngFormatter

    if "x" in plot.log:
        panel.set_xscale("log")
    elif plot.x != "time":
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if "y" in plot.log:
        panel.set_yscale("log")
    panel.set_xlabel(f"time ({unit})" if unit else plot.x)


def _time_unit(curves: Any) -> tuple[str, float]:
    """Returns the unit in which the longest curve's time reads well, and its seconds."""
    longest = max((float(curve.x[-1]) for curve in curves), default=0.0)
    return ("h", 3600.0) if longest >= 7200 else ("min", 60.0) if longest >= 120 else ("s", 1.0)
