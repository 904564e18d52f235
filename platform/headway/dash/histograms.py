"""How values were spread, step by step: histograms as Weights & Biases' SDK logs them, brought onto common bins.

Each histogram has edges of its own, which follow its values. To be drawn one beside the other, those of all steps are
counted anew over bins that all share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headway.columns import Array
from headway.dash.series import as_list

TYPE = "histogram"
"""What W&B says that such a value is, under `<name>._type`."""
FIELDS = ("values", "bins")
MAX_BINS = 100


@dataclass(frozen=True)
class Histogram:
    """How many values fell between each two edges, at one step.

    Attributes:
        step: when.
        edges: B + 1 of them, ascending.
        counts: B of them.
    """

    step: int
    edges: Array
    counts: Array


def histogram_of(row: dict[str, Any], name: str, *, step: int) -> Histogram | None:
    """Returns a histogram that a row of W&B's holds; None where its numbers make none, or count nothing.

    Args:
        row: has `<name>.values`, the counts, and `<name>.bins`, the edges.
        name: the histogram's.
        step: the row's.
    """
    try:
        counts, edges = (np.asarray(row.get(f"{name}.{field}"), dtype=np.float64) for field in FIELDS)
    except (TypeError, ValueError):
        return None
    if counts.ndim != 1 or edges.shape != (len(counts) + 1,):
        return None
    whole = np.isfinite(counts).all() and np.isfinite(edges).all() and (counts >= 0).all() and counts.sum() > 0
    ascends = bool((np.diff(edges) >= 0).all()) and edges[-1] > edges[0]
    return Histogram(step, edges, counts) if whole and ascends else None


def spread(found: Iterable[Histogram], *, points: int) -> dict[str, Any]:
    """Returns {steps, edges, shares}: for each step the share of its values in each bin.

    Args:
        found: histograms of one name, in the order of their rows; of two at a step the later counts.
        points: at most so many steps; of more, as many evenly spaced ones.
    """
    by_step = {histogram.step: histogram for histogram in found}
    steps = sorted(by_step)
    if len(steps) > points:
        steps = [steps[at] for at in np.unique(np.linspace(0, len(steps) - 1, points).round().astype(int))]
    shown = [by_step[step] for step in steps]
    if not shown:
        return {"steps": [], "edges": [], "shares": []}
    edges = _common_edges(shown)
    shares = [_counted(one, edges) / one.counts.sum() for one in shown]
    return {"steps": steps, "edges": as_list(edges), "shares": [as_list(row) for row in shares]}


def _common_edges(shown: Sequence[Histogram]) -> Array:
    """Returns the edges that all have or, where they differ, equally wide bins from the least to the greatest."""
    first = shown[0].edges
    if all(np.array_equal(one.edges, first) for one in shown):
        return first
    num_bins = min(MAX_BINS, max(len(one.counts) for one in shown))
    least, greatest = min(one.edges[0] for one in shown), max(one.edges[-1] for one in shown)
    edges: Array = np.linspace(least, greatest, num_bins + 1)
    return edges


def _counted(one: Histogram, edges: Array) -> Array:
    """Returns a histogram's counts over other bins, its values taken as evenly spread within each of its own."""
    if np.array_equal(one.edges, edges):
        return one.counts
    below = np.concatenate([[0.0], np.cumsum(one.counts)])
    counts: Array = np.diff(np.interp(edges, one.edges, below))
    return counts
