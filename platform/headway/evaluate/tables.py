"""What a person sees of predictions and scores."""

from __future__ import annotations

from collections.abc import Sequence

from headway.evaluate.prediction import Prediction
from headway.evaluate.scoring import Score
from headway.terminal import print_table

_SHOWN_CLASSES = 5


def print_predictions(rows: Sequence[Prediction]) -> None:
    """Prints the likeliest classes of one input, the likeliest of each of several, or the values of all."""
    first = rows[0]
    if first.values:
        found = [[row.input, *(f"{value:.6g}" for value in row.values.values())] for row in rows]
        print_table(["input", *first.values], found)
    elif len(rows) == 1:
        likeliest = list(first.probabilities.items())[:_SHOWN_CLASSES]
        print_table([first.input, "probability"], [[name, f"{value:.4g}"] for name, value in likeliest])
    else:
        best = [(row.input, *next(iter(row.probabilities.items()))) for row in rows]
        print_table(["input", "class", "probability"], [[label, name, f"{value:.4g}"] for label, name, value in best])


def print_score(found: Score) -> None:
    """Prints a text's tokens and what they add up to."""
    first = f"after {found.given!r}" if found.given else "its first token, which nothing precedes, is not scored"
    print_table(
        ["token", "log p", "cumulative"],
        [
            [
                repr(row.token),
                "" if row.log_probability is None else f"{row.log_probability:.4f}",
                f"{row.cumulative:.4f}",
            ]
            for row in found.tokens
        ],
    )
    print_table(
        [repr(found.text), first],
        [
            ["log-probability", f"{found.nats:.4f} nats, {found.bits:.4f} bits"],
            ["perplexity", f"{found.perplexity:.4g} a token"],
            ["bits a character", f"{found.bits_per_character:.4f}"],
        ],
    )
    if found.next is not None:
        rows = [[repr(token), f"{probability:.4g}"] for token, probability in found.next.likeliest]
        print_table(["next", "probability"], [*rows, ["all others", f"{found.next.others:.4g}"]])


def print_ranking(scores: Sequence[Score]) -> None:
    """Prints texts in the order of their probability."""
    ranked = sorted(scores, key=lambda found: -found.nats)
    print_table(
        ["text, the most probable first", "nats", "perplexity"],
        [[repr(found.text), f"{found.nats:.4f}", f"{found.perplexity:.4g}"] for found in ranked],
    )
