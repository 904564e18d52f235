"""Histograms on common bins: nothing is lost on the way, and what is none is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headway.dash.histograms import MAX_BINS, Histogram, histogram_of, spread

pytestmark = pytest.mark.quick


def of(step: int, values: list[float], num_bins: int) -> Histogram:
    counts, edges = np.histogram(values, bins=num_bins)
    return Histogram(step, edges, counts.astype(np.float64))


def test_histograms_of_other_ranges_are_counted_over_bins_that_all_share() -> None:
    found = spread([of(0, [0.0, 1.0], 2), of(7, [0.0, 3.0, 4.0, 4.0], 4)], points=5)
    assert found["steps"] == [0, 7]
    assert found["edges"] == [0, 1, 2, 3, 4]
    # All of the first lies between 0 and 1; the second has its own bins.
    assert found["shares"] == [[1, 0, 0, 0], [0.25, 0, 0, 0.75]]


def test_a_bin_that_is_cut_gives_each_part_by_its_width() -> None:
    wide, narrow = Histogram(1, np.array([0.0, 3.0]), np.array([6.0])), of(2, [0.0, 0.5, 1.0, 3.0], 3)
    found = spread([wide, narrow], points=5)
    assert found["shares"][0] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_no_value_is_lost_on_the_way_to_other_bins() -> None:
    draw = np.random.default_rng(0)
    found = spread([of(step, draw.normal(step, 1 + step, 103).tolist(), 64) for step in range(7)], points=5)
    assert len(found["steps"]) == 5
    assert (found["steps"][0], found["steps"][-1]) == (0, 6)
    assert [sum(row) for row in found["shares"]] == pytest.approx([1.0] * 5)
    assert len(found["edges"]) == 65


def test_edges_that_all_have_are_kept_as_they_are_whatever_their_width() -> None:
    edges = np.array([0.0, 1.0, 10.0, 1000.0])
    found = spread([Histogram(step, edges, np.array([1.0, 2.0, 5.0])) for step in (3, 5)], points=5)
    assert found["edges"] == [0, 1, 10, 1000]
    assert found["shares"] == [[0.125, 0.25, 0.625]] * 2


def test_bins_are_not_more_than_can_be_told_apart() -> None:
    found = spread([of(0, [0.0, 1.0], 512), of(1, [0.0, 2.0], 512)], points=5)
    assert len(found["edges"]) == MAX_BINS + 1


def test_of_two_at_a_step_the_later_counts() -> None:
    found = spread([of(3, [0.0, 1.0], 2), Histogram(3, np.array([0.0, 2.0]), np.array([5.0]))], points=5)
    assert found == {"steps": [3], "edges": [0, 2], "shares": [[1]]}


def test_nothing_gives_nothing() -> None:
    assert spread([], points=5) == {"steps": [], "edges": [], "shares": []}


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([1, 2], [0, 1]),
        ([1], [0, math.nan]),
        ([1], [0, math.inf]),
        ([0, 0], [0, 1, 2]),
        ([1, -1], [0, 1, 2]),
        ([1, 1], [0, 2, 1]),
        ([1], [3, 3]),
        ([], [0]),
        (["many"], [0, 1]),
        ([[1]], [0, 1]),
        (None, [0, 1]),
        ("text", "text"),
        ({"a": 1}, [0, 1]),
    ],
)
def test_numbers_that_make_no_histogram_are_none(values, bins) -> None:
    assert histogram_of({"w.values": values, "w.bins": bins}, "w", step=0) is None


def test_a_row_of_the_sdks_is_one() -> None:
    found = histogram_of({"w._type": "histogram", "w.values": [1, 3], "w.bins": [0, 0.5, 1]}, "w", step=5)
    assert found is not None
    assert (found.step, found.edges.tolist(), found.counts.tolist()) == (5, [0, 0.5, 1], [1, 3])
