"""Samples for BERT, cut from a stream of tokens: two segments between special tokens, some of the tokens hidden.

Source: Devlin et al. 2018, sections 3.1 and A.1. A sample is `[CLS] A [SEP] B [SEP]`. In half of them B is what
follows A in the text, in the others it is from elsewhere. Of the tokens of A and B a fixed share is to be
named; of these 80% are hidden behind [MASK], 10% replaced by a random token and 10% left as they are.

What is drawn is a function of (seed, epoch, place of the sample), so a sample is the same in every batch,
on every rank and after a resume. Every sample is full, and hides equally many tokens.

Shapes: N samples of a batch, T tokens of a sample, L of them text, M of those to be named.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headway.config.contracts import Batch
from headway.config.keys import derive
from headway.data._vocabulary import SpecialTokens
from headway.data._windows import IGNORED, TokenStream, TrainWindows
from headway.nn.draws import Draws

_CUT, _FOLLOWS, _ELSEWHERE, _CHOOSE, _REPLACE, _TOKEN = range(6)
"""Streams of draws."""
HIDDEN_SHARE, RANDOM_SHARE = 0.8, 0.1


class MaskedWindows:
    """One part of a text: stretches that do not overlap, cut and hidden otherwise in each epoch unless it is held out.

    Args:
        tokens: the stream, twice as long as a sample at least.
        length: T.
        special: the special tokens.
        vocab_size: number of tokens to replace one by.
        share: M / L.
        pairs: whether there are two segments; else a sample is `[CLS] A [SEP]`.
        seed: of what is drawn.
        held_out: whether every epoch is the same.
    """

    in_memory = True

    def __init__(
        self,
        tokens: TokenStream,
        *,
        length: int,
        special: SpecialTokens,
        vocab_size: int,
        share: float,
        pairs: bool,
        seed: int,
        held_out: bool,
    ) -> None:
        assert len(tokens) >= 2 * length, "two samples are needed, to take a segment from elsewhere"
        self.tokens = tokens
        self.length = length
        self.settings = {
            "special": special, "vocab_size": vocab_size, "share": share, "pairs": pairs, "seed": seed,
            "held_out": held_out,
        }  # fmt: skip
        self.special, self.vocab_size, self.pairs = special, vocab_size, pairs
        self.seed, self.held_out = seed, held_out
        self.text_length = length - (3 if pairs else 2)
        self.num_hidden = max(1, round(share * self.text_length))
        self._windows = TrainWindows(tokens, length=self.text_length, seed=seed)

    def __len__(self) -> int:
        """Returns the number of stretches, the same in every epoch."""
        return len(self._windows)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns int64 `input`, `target` (-100 where nothing is asked), `segment` (N, T), and `is_next` (N,)."""
        epoch = 0 if self.held_out else epoch
        device = self.tokens.device
        draws = Draws.of_rows(derive(self.seed, "hide"), epoch, index_N, device=device)
        start_N = (index_N * self.text_length + self._windows.offset(epoch)).to(device)
        if self.pairs:
            token_NT, is_text_NT, segment_NT, follows_N = self._pair(start_N, draws)
            extra = {"segment": segment_NT, "is_next": follows_N}
        else:
            token_NT = self.tokens.windows(start_N - 1, self.length)
            place_T = torch.arange(self.length, device=device)
            token_NT[:, 0], token_NT[:, -1] = self.special.first, self.special.end
            is_text_NT = ((place_T > 0) & (place_T < self.length - 1)).expand_as(token_NT)
            extra = {}
        input_NT, target_NT = self._hide(token_NT, is_text_NT, draws)
        return {"input": input_NT, "target": target_NT, **extra}

    def to(self, device: torch.device, dtype: torch.dtype) -> MaskedWindows:
        """Returns the split with its tokens on a device."""
        del dtype
        return MaskedWindows(self.tokens.to(device), length=self.length, **self.settings)  # type: ignore[arg-type]

    def _pair(self, start_N: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns the tokens, which of them are text, the segment of each (N, T), and whether B follows A (N,)."""
        L = self.text_length
        # The cut is in the middle half, so that neither segment is too short to be known.
        cut_N = L // 4 + draws.bits(_CUT, ()) % (L - 2 * (L // 4) + 1)
        follows_N = draws.bits(_FOLLOWS, ()) % 2 == 0
        next_N = start_N + cut_N
        num_starts = len(self.tokens) - L
        # One to num_starts - 1 places further, around the end of the text: never the place that follows.
        elsewhere_N = (next_N + 1 + draws.bits(_ELSEWHERE, ()) % (num_starts - 1)) % num_starts
        second_N = torch.where(follows_N, next_N, elsewhere_N)
        place_T = torch.arange(self.length, device=start_N.device)
        end_N1 = cut_N[:, None] + 1
        token_NT = torch.where(
            place_T < end_N1,
            self.tokens.windows(start_N - 1, self.length),
            self.tokens.windows(second_N - cut_N - 2, self.length),
        )
        is_end_NT = (place_T == end_N1) | (place_T == self.length - 1)
        token_NT = token_NT.masked_fill(is_end_NT, self.special.end)
        token_NT[:, 0] = self.special.first
        return token_NT, ~is_end_NT & (place_T > 0), (place_T > end_N1).long(), follows_N

    def _hide(self, token_NT: Tensor, is_text_NT: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Returns the input, M of its tokens hidden or replaced, and the target."""
        row = (self.length,)
        order_NT = draws.bits(_CHOOSE, row).masked_fill(~is_text_NT, torch.iinfo(torch.int32).max)
        chosen_NM = order_NT.argsort(dim=1, stable=True)[:, : self.num_hidden]
        asked_NT = torch.zeros_like(is_text_NT).scatter(1, chosen_NM, True)
        how_NT = draws.uniform(_REPLACE, row)
        hidden_NT = asked_NT & (how_NT < HIDDEN_SHARE)
        random_NT = asked_NT & (how_NT >= HIDDEN_SHARE) & (how_NT < HIDDEN_SHARE + RANDOM_SHARE)
        # Any token but padding, which nobody would look at.
        other_NT = 1 + draws.bits(_TOKEN, row).long() % (self.vocab_size - 1)
        input_NT = torch.where(random_NT, other_NT, token_NT.masked_fill(hidden_NT, self.special.hidden))
        return input_NT, token_NT.masked_fill(~asked_NT, IGNORED)
