"""BLEU of two short texts, counted by hand."""

import importlib.util
import math

import pytest

from headway.evaluate.translation import bleu

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(importlib.util.find_spec("sacrebleu") is None, reason="sacrebleu is not installed here"),
]

SHORT, LONG = "the cat sat on the mat", "the cat sat on the mat today"


def test_words_that_the_reference_lacks_cost_precision():
    # Of runs of 1 to 4 words, 6 of 7, 5 of 6, 4 of 5 and 3 of 4 are in the reference.
    assert bleu([LONG], [SHORT]) == pytest.approx(100 * (6 / 7 * 5 / 6 * 4 / 5 * 3 / 4) ** 0.25)


def test_a_translation_that_is_too_short_is_penalized():
    assert bleu([SHORT], [LONG]) == pytest.approx(100 * math.exp(1 - 7 / 6))


def test_runs_are_counted_over_the_whole_text():
    hits, runs = (6 + 1, 5, 4, 3), (7 + 1, 6, 5, 4)
    expected = math.prod(hit / run for hit, run in zip(hits, runs, strict=True)) ** 0.25
    assert bleu([LONG, "yes"], [SHORT, "yes"]) == pytest.approx(100 * expected)
