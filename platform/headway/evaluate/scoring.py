"""How probable a text is to a run's net, by the chain rule: log p(text) = sum of log p(token | tokens before it).

The first token has nothing before it. By default it is conditioned on a line break, as if the text began a line;
`given` puts other text there, and with nothing there it is not scored.

Source: Bengio et al. 2003, equation 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from headway.config.errors import UserError
from headway.data._vocabulary import Vocabulary
from headway.evaluate.language import encode, language, log_probabilities, next_log_probabilities
from headway.evaluate.loading import LoadedRun

_LINE_BREAK = "\n"


@dataclass(frozen=True)
class TokenScore:
    """A token and how probable it was."""

    token: str
    log_probability: float | None
    """In nats; None for a first token that nothing precedes."""
    cumulative: float
    """Sum of the log-probabilities so far."""


@dataclass(frozen=True)
class NextTokens:
    """The distribution of what comes after a text: the likeliest tokens, and all others together."""

    likeliest: list[tuple[str, float]]
    others: float


@dataclass(frozen=True)
class Score:
    """How probable a text is."""

    text: str
    given: str
    """What its first token is conditioned on; empty where that token is not scored."""
    unknown: str
    """Characters that the run never saw; <unk> stands for them."""
    tokens: list[TokenScore]
    nats: float
    """Log-probability of the text."""
    bits: float
    perplexity: float
    """The exponential of minus the mean log-probability of a scored token."""
    bits_per_character: float
    """Minus the bits, for each character that is scored."""
    next: NextTokens | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return asdict(self)


def score(run: LoadedRun, text: str, *, given: str | None = None, num_next: int = 0) -> Score:
    """Returns the log-probability of a text, token by token.

    Args:
        run: of a gpt, rnn, lstm, gru or ngram.
        text: what is scored.
        given: what comes before it; a line break where the vocabulary has one, else nothing, when absent.
        num_next: number of likeliest tokens after the text to list.

    Raises:
        UserError: the run predicts no text, or there is no token to score.
    """
    vocabulary = language(run, "score")
    if num_next < 0:
        raise UserError(f"--next: is {num_next}; it should be 0 or more")
    if given is None:
        given = "" if encode(vocabulary, _LINE_BREAK).unknown else _LINE_BREAK
    before, encoded = encode(vocabulary, given), encode(vocabulary, text)
    skipped = 0 if before.tokens else 1
    if len(encoded.tokens) <= skipped:
        reason = "is one token, and nothing precedes it" if encoded.tokens else "is empty"
        raise UserError(f"TEXT: {text!r} {reason}; give it more, or --given what comes before it")
    everything = before.tokens + encoded.tokens
    # The log-probabilities of what is given are left out.
    found: list[float] = log_probabilities(run.net, everything)[max(0, len(before.tokens) - 1) :].tolist()
    tokens = _table(encoded.tokens, [None] * skipped + found, vocabulary)
    total, unscored = sum(found), len(tokens[0].token) if skipped else 0
    return Score(
        text=text,
        given=given,
        unknown="".join(sorted(set(before.unknown + encoded.unknown))),
        tokens=tokens,
        nats=total,
        bits=total / math.log(2.0),
        perplexity=math.exp(-total / len(found)),
        bits_per_character=-total / math.log(2.0) / max(1, len(text) - unscored),
        next=_likeliest(run, everything, num_next, vocabulary) if num_next else None,
    )


def _table(tokens: list[int], found: list[float | None], vocabulary: Vocabulary) -> list[TokenScore]:
    rows, cumulative = [], 0.0
    for token, value in zip(tokens, found, strict=True):
        cumulative += value or 0.0
        rows.append(TokenScore(vocabulary.decode([token]), value, cumulative))
    return rows


def _likeliest(run: LoadedRun, tokens: list[int], count: int, vocabulary: Vocabulary) -> NextTokens:
    probability_V = next_log_probabilities(run.net, tokens).exp()
    top = probability_V.topk(min(count, len(probability_V)))
    chosen = [
        (vocabulary.decode([token]), probability)
        for token, probability in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    return NextTokens(chosen, max(0.0, 1.0 - sum(probability for _, probability in chosen)))
