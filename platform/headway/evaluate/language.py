"""Text to tokens for a run that predicts the next one, and how it judges them.

Shapes: B sequences, T tokens, V vocabulary, W windows, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from headway.data._reading import vocabulary_of
from headway.data._vocabulary import CharacterVocabulary, Vocabulary
from headway.evaluate.loading import LoadedRun

_WINDOWS = 64
"""Windows that go through the net at once."""


class Encoded(NamedTuple):
    """A text as tokens."""

    tokens: list[int]
    unknown: str
    """Characters that the vocabulary has not; <unk> stands for them."""


def language(run: LoadedRun, verb: str) -> Vocabulary:
    """Returns the vocabulary of a run that predicts the next token.

    Raises:
        UserError: it does something else.
    """
    run.selection.refuse_unless_language(verb)
    return vocabulary_of(run.reading)


def encode(vocabulary: Vocabulary, text: str) -> Encoded:
    """Returns a text's tokens."""
    tokens: list[int] = vocabulary.encode(text).tolist()
    unknown = ""
    if isinstance(vocabulary, CharacterVocabulary):
        unknown = "".join(sorted(set(text) - set(vocabulary.characters)))
    return Encoded(tokens, unknown)


def whole_characters(tokens: Iterator[int], vocabulary: Vocabulary) -> Iterator[str]:
    """Yields the text of tokens piece by piece, a character cut in two only when it is whole."""
    pending: list[int] = []
    shown = 0
    for token in tokens:
        pending.append(token)
        text = vocabulary.decode(pending)
        # The replacement character at the end may be the beginning of one that the next token completes.
        end = len(text) - text.endswith("\ufffd")
        if end > shown:
            yield text[shown:end]
            shown = end
        if end == len(text):
            pending, shown = [], 0
    if pending:
        yield vocabulary.decode(pending)[shown:]


def next_log_probabilities(net: nn.Module, tokens: Sequence[int]) -> Tensor:
    """Returns the distribution of the token after these, as float64 log-probabilities (V,)."""
    positions = getattr(net, "max_positions", None)
    read = list(tokens) if positions is None else list(tokens)[-positions:]
    return _log_probabilities(net, torch.tensor([read]))[0, -1]


def log_probabilities(net: nn.Module, tokens: Sequence[int]) -> Tensor:
    """Returns the log-probability of each token but the first, given those before it, float64 (T - 1,).

    A net with P positions sees the last P of those before; one with a recurrent state sees them all.
    """
    token_T = torch.tensor(tokens)
    context_T, target_T = token_T[:-1], token_T[1:]
    if not len(context_T):
        return torch.empty(0, dtype=torch.float64)
    positions = min(len(context_T), getattr(net, "max_positions", None) or len(context_T))
    first_1PV = _log_probabilities(net, context_T[None, :positions])
    found = [first_1PV[0].gather(1, target_T[:positions, None])[:, 0]]
    # Beyond the positions each token has a window of its own, whose last output is about it.
    window_WP = context_T.unfold(0, positions, 1)[1:]
    target_W = target_T[positions:]
    for windows, targets in zip(torch.split(window_WP, _WINDOWS), torch.split(target_W, _WINDOWS), strict=True):
        found.append(_log_probabilities(net, windows)[:, -1].gather(1, targets[:, None])[:, 0])
    return torch.cat(found)


@torch.no_grad()
def _log_probabilities(net: nn.Module, token_BT: Tensor) -> Tensor:
    """Returns (B, T, V)."""
    logits_BTV: Tensor = net(token_BT.to(next(net.parameters()).device))
    return logits_BTV.cpu().double().log_softmax(-1)
