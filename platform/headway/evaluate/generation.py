"""Text that a run's net goes on with, as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from headway.config.errors import UserError
from headway.evaluate.language import encode, language, whole_characters
from headway.evaluate.loading import LoadedRun
from headway.nn.decoding import sample_tokens


class Continuation(NamedTuple):
    """What comes after a prompt."""

    pieces: Iterator[str]
    """Made as they are asked for."""
    unknown: str
    """Characters of the prompt that the run never saw."""


def generate(
    run: LoadedRun,
    prompt: str,
    *,
    num_tokens: int = 200,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
) -> Continuation:
    """Returns the text that follows a prompt, in pieces of whole characters.

    Args:
        run: of a gpt, rnn, lstm, gru or ngram.
        prompt: what the text starts with.
        num_tokens: how many to draw.
        temperature: less than 1 keeps to the likely tokens, 0 to the likeliest.
        top_k: number of likeliest tokens to draw from.
        top_p: probability that the tokens to draw from hold together.
        seed: of the draws; another text each time when absent.

    Raises:
        UserError: the run predicts no text, or a setting is out of range.
    """
    vocabulary = language(run, "generate")
    encoded = encode(vocabulary, prompt)
    if not encoded.tokens:
        raise UserError("--prompt: is empty; the net needs one character at least to go on from")
    if num_tokens < 1:
        raise UserError(f"--tokens: is {num_tokens}; it should be 1 or more")
    generator = torch.Generator()
    generator.seed() if seed is None else generator.manual_seed(seed)
    drawn = sample_tokens(
        run.net, encoded.tokens, num_tokens, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator
    )
    return Continuation(whole_characters(drawn, vocabulary), encoded.unknown)
