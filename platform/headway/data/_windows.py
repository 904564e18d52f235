"""A stream of tokens, cut into windows of T + 1: the input is the first T, the target the last T.

Training cuts at an offset that an epoch draws, so that over epochs every token is seen at every
position. Validation and test cut at 0 and score every token but the first, which nothing
precedes, exactly once.

Shapes: N windows of a batch, T tokens of a sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headway.config.contracts import Batch
from headway.config.keys import derive

IGNORED = -100
"""Target that torch's losses leave out."""

_LOW_16_BITS = 0xFFFF


class TrainWindows:
    """The training part: windows that do not overlap, cut elsewhere in each epoch.

    Args:
        tokens: the stream, int32, or uint16 seen as int16 (`TokenStream`).
        length: T.
        seed: of the offsets.
    """

    in_memory = True

    def __init__(self, tokens: TokenStream, *, length: int, seed: int) -> None:
        assert len(tokens) > length, "one window is needed"
        self.tokens = tokens
        self.length = length
        self.seed = seed
        # The last window must fit at the largest offset, so that epochs are equally long.
        self._num_windows = max(1, len(tokens) // length - 1)
        self._num_offsets = min(length, len(tokens) - self._num_windows * length)

    def __len__(self) -> int:
        """Returns the number of windows, the same in every epoch."""
        return self._num_windows

    def offset(self, epoch: int) -> int:
        """Returns the place in the stream where an epoch's first window starts, below T."""
        return derive(self.seed, "windows", epoch) % self._num_offsets

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns int64 `input` and `target`, (N, T) both."""
        window_NT1 = self.tokens.windows(index_N * self.length + self.offset(epoch), self.length + 1)
        return {"input": window_NT1[:, :-1].contiguous(), "target": window_NT1[:, 1:].contiguous()}

    def to(self, device: torch.device, dtype: torch.dtype) -> TrainWindows:
        """Returns the split with its tokens on a device."""
        del dtype
        return TrainWindows(self.tokens.to(device), length=self.length, seed=self.seed)


class ScoredWindows:
    """A held-out part: windows in order that score every token but the first once.

    Args:
        tokens: the stream.
        length: T; the last window is padded with target -100 and input 0.
    """

    in_memory = True

    def __init__(self, tokens: TokenStream, *, length: int) -> None:
        assert len(tokens) > 1, "one token is needed, and one before it"
        self.tokens = tokens
        self.length = length

    def __len__(self) -> int:
        """Returns the number of windows, the padded one included."""
        return -(-(len(self.tokens) - 1) // self.length)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns int64 `input` and `target`, (N, T) both, the same in every epoch."""
        del epoch
        start_N = index_N.to(self.tokens.device) * self.length
        window_NT1 = self.tokens.windows(start_N, self.length + 1)
        position_NT = start_N[:, None] + torch.arange(1, self.length + 1, device=start_N.device)
        beyond_NT = position_NT >= len(self.tokens)
        return {
            "input": window_NT1[:, :-1].masked_fill(beyond_NT, 0),
            "target": window_NT1[:, 1:].masked_fill(beyond_NT, IGNORED),
        }

    def to(self, device: torch.device, dtype: torch.dtype) -> ScoredWindows:
        """Returns the split with its tokens on a device."""
        del dtype
        return ScoredWindows(self.tokens.to(device), length=self.length)


class TokenStream:
    """Tokens in two bytes each where the vocabulary allows it, four where not.

    Args:
        stored: int32, or the int16 of the same bits as uint16, which torch can index on every device.
    """

    def __init__(self, stored: Tensor) -> None:
        self._stored = stored

    def __len__(self) -> int:
        """Returns the number of tokens."""
        return len(self._stored)

    @property
    def device(self) -> torch.device:
        """Where the tokens are."""
        return self._stored.device

    def windows(self, start_N: Tensor, length: int) -> Tensor:
        """Returns int64 (N, length) from these places on; past the end the last token repeats itself."""
        place_N = start_N.to(self.device)
        place_NL = place_N[:, None] + torch.arange(length, device=self.device)
        found_NL = self._stored[place_NL.clamp_(max=len(self) - 1)].long()
        return found_NL & _LOW_16_BITS if self._stored.dtype == torch.int16 else found_NL

    def to(self, device: torch.device) -> TokenStream:
        """Returns the stream on a device."""
        return TokenStream(self._stored.to(device))
