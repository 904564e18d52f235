"""A translation from an encoder-decoder: the likeliest token at each step, or the best of several continuations.

Beam search keeps the K likeliest beginnings of each source. One that ends takes up its place at that step alone, and
the search of a source stops when no beginning that goes on can do better than the best that ended. What ended is
compared by its log-probability over the length penalty ((5 + tokens) / 6)^a, its <eos> counted.
Source: Wu et al. 2016, section 7; K = 4, a = 0.6 and at most 50 tokens more than the source are from Vaswani et
al. 2017, section 6.1.

The net has `encode(source_BS)` and `decode(target_BT, memory_BSD, source_BS, None, state, carry=True)`, which goes on
from what it has read and returns logits and a state with the row as first axis. <pad> and <bos> are never drawn.

Shapes: B sources, S tokens of a source, T tokens of a target, D width, V vocabulary, K beginnings of a source, N = B K.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from headway.config.contracts import State
from headway.config.errors import UserError

PADDING, BEGIN, END = 0, 1, 2
"""The tokens that a vocabulary of pairs starts with: <pad>, <bos> and <eos>."""
LENGTH_PENALTY = 0.6
_LONGER = 50


class Found(NamedTuple):
    """One translation."""

    tokens: list[int]
    """With <eos> at the end, unless it was cut off at the longest allowed length."""
    score: float
    """Log-probability over the length penalty, in nats."""


class SentenceVocabulary(Protocol):
    """What `translate` asks of a vocabulary."""

    def encode(self, text: str) -> Any:
        """Returns the tokens of a sentence, <eos> the last of them."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens without <pad>, <bos> and <eos>."""


def translate(
    net: nn.Module,
    vocabulary: SentenceVocabulary,
    sentences: Sequence[str],
    *,
    beam: int = 4,
    length_penalty: float = LENGTH_PENALTY,
    batch_size: int = 64,
) -> list[str]:
    """Returns the translation of each sentence by an encoder-decoder in evaluation mode.

    Args:
        net: see above.
        vocabulary: of both languages.
        sentences: of the language that the net was trained to read.
        beam: K; 1 takes the likeliest token at each step.
        length_penalty: a; 0 compares log-probabilities as they are.
        batch_size: sentences that are searched at once; those of a like length go together.
    """
    device = next(net.parameters()).device
    encoded = [torch.as_tensor(vocabulary.encode(sentence), dtype=torch.int64) for sentence in sentences]
    order = sorted(range(len(encoded)), key=lambda place: len(encoded[place]))
    translations = [""] * len(encoded)
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        source_BS = pad_sequence([encoded[place] for place in places], True, PADDING).to(device)
        for place, found in zip(
            places, beam_search(net, source_BS, beam=beam, length_penalty=length_penalty), strict=True
        ):
            translations[place] = vocabulary.decode(found.tokens)
    return translations


@torch.no_grad()
def greedy_search(net: Any, source_BS: Tensor, *, max_length: int | None = None) -> list[list[int]]:
    """Returns the tokens of a translation for each source, the likeliest at each step, <eos> included.

    Args:
        net: see above.
        source_BS: padded at its end.
        max_length: most tokens of a translation; 50 more than the source has when absent.
    """
    limits = _limit(source_BS, max_length).tolist()
    memory_BSD, state = net.encode(source_BS), None
    token_B1 = torch.full((len(source_BS), 1), BEGIN, device=source_BS.device)
    found: list[list[int]] = [[] for _ in limits]
    open_rows = set(range(len(limits)))
    while open_rows:
        logits_B1V, state = net.decode(token_B1, memory_BSD, source_BS, None, state, carry=True)
        token_B1 = _log_probability(logits_B1V[:, -1]).argmax(1, keepdim=True)
        tokens = token_B1[:, 0].tolist()
        for row in list(open_rows):
            found[row].append(tokens[row])
            if tokens[row] == END or len(found[row]) == limits[row]:
                open_rows.remove(row)
    return found


@torch.no_grad()
def beam_search(
    net: Any,
    source_BS: Tensor,
    *,
    beam: int = 4,
    length_penalty: float = LENGTH_PENALTY,
    max_length: int | None = None,
) -> list[Found]:
    """Returns the best translation found for each source.

    Args:
        net: see above.
        source_BS: padded at its end.
        beam: K.
        length_penalty: a, at least 0.
        max_length: most tokens of a translation; 50 more than the source has when absent.

    Raises:
        UserError: the net has diverged.
    """
    found: list[Found | None] = [None] * len(source_BS)
    search = _Search(net, source_BS, beam, length_penalty, _limit(source_BS, max_length), found)
    for length in itertools.count(1):
        if not search.extend(length):
            break
    best = [translation for translation in found if translation is not None]
    if len(best) < len(found):
        raise UserError(
            "the net's outputs are no numbers, so there is no likeliest token; choose an earlier checkpoint"
        )
    return best


class _Search:
    """The beginnings of all sources whose search is open."""

    def __init__(
        self, net: Any, source_BS: Tensor, beam: int, penalty: float, limit_B: Tensor, found: list[Found | None]
    ) -> None:
        self.net, self.beam, self.penalty, self.found = net, beam, penalty, found
        B, device = len(source_BS), source_BS.device
        self.place_B = torch.arange(B, device=device)
        """Which source each open search belongs to."""
        self.limit_B = limit_B
        self.best_B = torch.full((B,), -torch.inf, device=device, dtype=torch.float64)
        self.source_NS = source_BS.repeat_interleave(beam, 0)
        self.memory_NSD = net.encode(source_BS).repeat_interleave(beam, 0)
        self.state: State | None = None
        self.token_BKT = torch.full((B, beam, 1), BEGIN, device=device)
        # One beginning to start with: the others would be its doubles.
        self.score_BK = torch.full((B, beam), -torch.inf, device=device, dtype=torch.float64)
        self.score_BK[:, 0] = 0.0

    def extend(self, length: int) -> bool:
        """Makes the beginnings longer by one token, up to `length`; returns whether any search is still open."""
        token_N1 = self.token_BKT[:, :, -1].reshape(-1, 1)
        logits_N1V, state = self.net.decode(token_N1, self.memory_NSD, self.source_NS, None, self.state, carry=True)
        log_probability_NV = _log_probability(logits_N1V[:, -1]).double()
        score_BE = (self.score_BK.reshape(-1, 1) + log_probability_NV).view(len(self.place_B), -1)
        self.score_BK, chosen_BK = score_BE.topk(self.beam, dim=1)
        V = log_probability_NV.shape[1]
        parent_BK, token_BK = chosen_BK // V, chosen_BK % V
        grown_BKT = self.token_BKT.gather(1, parent_BK[:, :, None].expand_as(self.token_BKT))
        self.token_BKT = torch.cat([grown_BKT, token_BK[:, :, None]], dim=2)

        ended_BK = token_BK == END
        self._keep_best(self.score_BK.masked_fill(~ended_BK, -torch.inf), length)
        self.score_BK = self.score_BK.masked_fill(ended_BK, -torch.inf)
        at_limit_B = length >= self.limit_B
        unfinished_B = at_limit_B & self.best_B.isneginf()
        self._keep_best(self.score_BK.masked_fill(~unfinished_B[:, None], -torch.inf), length)

        # A log-probability only falls and a penalty only grows: no longer continuation can be better than this.
        most_B = self.score_BK.amax(1) / self._penalty(self.limit_B)
        open_B = ~at_limit_B & (most_B > self.best_B)
        self._keep_open(open_B, parent_BK, state)
        return len(self.place_B) > 0

    def _keep_best(self, score_BK: Tensor, length: int) -> None:
        """Takes the best of these beginnings as a source's translation where it is better than what there is."""
        score_B, rank_B = (score_BK / self._penalty(torch.as_tensor(length))).max(1)
        for row in (score_B > self.best_B).nonzero()[:, 0].tolist():
            tokens = self.token_BKT[row, rank_B[row], 1:].tolist()
            self.found[int(self.place_B[row])] = Found(tokens, float(score_B[row]))
        self.best_B = torch.maximum(self.best_B, score_B)

    def _keep_open(self, open_B: Tensor, parent_BK: Tensor, state: State) -> None:
        """Drops the searches that are over, and lets each beginning have the state of the one it came from."""
        row_N = (parent_BK + torch.arange(len(open_B), device=open_B.device)[:, None] * self.beam)[open_B].flatten()
        self.state = {name: value.index_select(0, row_N) for name, value in state.items()}
        if not bool(open_B.all()):
            self.memory_NSD, self.source_NS = self.memory_NSD[row_N], self.source_NS[row_N]
            self.place_B, self.limit_B, self.best_B = self.place_B[open_B], self.limit_B[open_B], self.best_B[open_B]
            self.token_BKT, self.score_BK = self.token_BKT[open_B], self.score_BK[open_B]

    def _penalty(self, length: Tensor) -> Tensor:
        return ((5.0 + length.double()) / 6.0) ** self.penalty


def _log_probability(logits_NV: Tensor) -> Tensor:
    """Returns the log-probabilities, with -inf for what is never drawn."""
    exact = torch.promote_types(logits_NV.dtype, torch.float32)
    log_probability_NV = torch.log_softmax(logits_NV.to(exact), dim=1)
    log_probability_NV[:, [PADDING, BEGIN]] = -torch.inf
    return log_probability_NV


def _limit(source_BS: Tensor, max_length: int | None) -> Tensor:
    """Returns the most tokens of each source's translation."""
    length_B = (source_BS != PADDING).sum(1)
    return length_B + _LONGER if max_length is None else torch.full_like(length_B, max_length)
