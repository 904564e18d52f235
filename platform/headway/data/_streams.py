"""Text cut into as many streams as a batch has rows: each row of a batch goes on where it ended in the batch before.

So a net may carry its state from batch to batch, and sees the whole text though it trains on short windows
(truncated back-propagation through time; Williams and Peng 1990). A batch of B windows of T tokens is

    row 0   tokens [0, T)       [T, 2T)       ...       of stream 0, which is the text's first B-th
    row 1   tokens [S, S + T)   [S + T, ...)  ...       of stream 1, which starts at S
    ...

Shapes: N windows of a batch, T tokens of a window, B streams.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headway.config.contracts import Batch
from headway.config.errors import UserError
from headway.config.keys import derive
from headway.data._windows import TokenStream


class CarriedWindows:
    """The training part for nets that carry their state; window `k * B + b` is the k-th of stream b.

    Every batch is full; what is left of the text at its end is as long as a batch at most, and where the first
    stream starts is drawn anew in each epoch, so that over epochs all of it is seen.

    Args:
        tokens: the text.
        length: T.
        seed: of the starts.
        num_streams: B; `lay_out` sets it.
    """

    in_memory = True
    ordered = True

    def __init__(self, tokens: TokenStream, *, length: int, seed: int, num_streams: int = 1) -> None:
        self.tokens = tokens
        self.length = length
        self.seed = seed
        self.num_streams = num_streams
        # One token more than is read: the last one's target.
        self._windows_per_stream = (len(tokens) - 1) // (num_streams * length)

    def lay_out(self, batch_size: int) -> CarriedWindows:
        """Returns the split as batches of so many rows want it.

        Raises:
            UserError: the text is too short for that.
        """
        laid_out = CarriedWindows(self.tokens, length=self.length, seed=self.seed, num_streams=batch_size)
        if len(laid_out) == 0:
            raise UserError(
                f"trainer.batch_size: {batch_size} rows of {self.length} tokens with data.carry need "
                f"{batch_size * self.length + 1:,} tokens, and the training part has {len(self.tokens):,}; "
                "make it or data.sequence_length smaller"
            )
        return laid_out

    def __len__(self) -> int:
        """Returns the number of windows, the same in every epoch."""
        return self._windows_per_stream * self.num_streams

    def offset(self, epoch: int) -> int:
        """Returns the place in the text where an epoch's first stream starts."""
        return derive(self.seed, "streams", epoch) % (len(self.tokens) - len(self) * self.length)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns int64 `input` and `target`, (N, T) both, and bool `fresh`, (N,): where a row starts anew."""
        window_N, stream_N = index_N // self.num_streams, index_N % self.num_streams
        place_N = stream_N * self._windows_per_stream + window_N
        window_NT1 = self.tokens.windows(place_N * self.length + self.offset(epoch), self.length + 1)
        return {
            "input": window_NT1[:, :-1].contiguous(),
            "target": window_NT1[:, 1:].contiguous(),
            "fresh": (window_N == 0).to(self.tokens.device),
        }

    def to(self, device: torch.device, dtype: torch.dtype) -> CarriedWindows:
        """Returns the split with its tokens on a device."""
        del dtype
        return CarriedWindows(self.tokens.to(device), length=self.length, seed=self.seed, num_streams=self.num_streams)
