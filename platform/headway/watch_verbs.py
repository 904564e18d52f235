"""`headway top` and `headway plot`: what goes on here, and curves of what came of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE, UserError
from headway.terminal import tell
from headway.verbs import Runs

_SIZES = {"column": (3.4, 2.4), "page": (6.9, 2.8)}


def add_watch_verbs(app: App) -> None:
    """Gives a command line the verbs of this file."""
    for verb in (top, plot):
        app.command(verb)


def top(
    *,
    runs: Runs = Path("runs"),
    every: float = 2.0,
    once: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Show runs, jobs and GPUs, live in the terminal; q ends.

    Parameters
    ----------
    every
        Seconds between two looks; launchers are asked every 10 s at most.
    once
        Print one frame and end, as happens where the output is no terminal.
    """
    from headway.top.screen import print_once, watch

    if not every > 0:
        raise UserError(f"--every: {every} should be seconds above 0")
    if once or not sys.stdout.isatty():
        print_once(runs)
    else:
        watch(runs, every_s=every)
    return EXIT_DONE


def plot(
    *names: Annotated[str, Parameter(name="RUN")],
    metric: Annotated[
        tuple[str, ...], Parameter(negative="", help="Metric to draw; more than one get panels of their own.")
    ] = ("val/loss",),
    out: Annotated[Path, Parameter(name=["--out", "-o"], help="The file: .png, .svg or .pdf.")],
    x: Literal["step", "time", "samples", "tokens"] = "step",
    log: str = "",
    smooth: float = 0.0,
    group_by: str | None = None,
    band: Literal["spread", "range", "none"] = "spread",
    together: Annotated[bool, Parameter(negative="")] = False,
    label: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    title: str = "",
    size: str | None = None,
    runs: Runs = Path("runs"),
) -> int:
    """Draw curves of runs for a paper: PNG, SVG or PDF.

    Parameters
    ----------
    names
        Runs, by id or path; the name of a sweep means its trials, that of an array its seeds.
    x
        The horizontal axis; time since the run's first row.
    log
        Axes with a logarithmic scale: x, y or xy.
    smooth
        Share of a running mean that the values before make up, such as 0.9; 0 draws what was measured.
    group_by
        Setting of the recipe, such as optim.lr or name: runs with the same value become one curve, their mean.
    band
        Around the mean of several runs: one standard deviation (spread), the lowest to the highest, or none.
    together
        All metrics in one panel.
    label
        Name of a curve, once for each in their order.
    title
        None when absent: a paper has captions.
    size
        column (3.4 inches wide), page (6.9), or WIDTHxHEIGHT in inches.
    """
    if not names:
        raise UserError("plot needs a RUN; `headway runs` lists them")
    shape = _size(size)
    from headway.plot import Plot, write_plot

    wanted = Plot(metric, x, log, smooth, group_by, band, together, label, title, shape)
    drawn = write_plot(names, wanted, out, runs=runs)
    for lacked, labels in drawn.lacking.items():
        tell(f"{lacked}: not in {', '.join(labels)}")
    tell(f"{out}: {drawn.curves} curve{'s' if drawn.curves != 1 else ''}")
    return EXIT_DONE


def _size(text: str | None) -> tuple[float, float] | None:
    if text is None or text in _SIZES:
        return None if text is None else _SIZES[text]
    width, _, height = text.partition("x")
    try:
        size = float(width), float(height)
    except ValueError:
        size = (0.0, 0.0)
    if not all(1 <= side <= 40 for side in size):
        raise UserError(f"--size: {text} should be column, page, or inches such as 6x4")
    return size
