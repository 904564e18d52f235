"""The copying problem: a few symbols, a long blank, and then the same symbols again from memory.

Source: Hochreiter and Schmidhuber 1997; in the form of Arjovsky, Shah and Bengio 2016, section 5.1. With 3 symbols
and 5 blanks it reads, `_` for the blank and `:` for the sign to begin:

    input     c a b _ _ _ _ _ : _ _ _
    target                      c a b        at those three steps alone

A net without a memory guesses: its loss is the logarithm of the alphabet's size.

Shapes: N sequences, T = length + 2 * num_symbols + 1 steps, S symbols.
"""

from __future__ import annotations

import dataclasses
import string

import numpy as np
import torch
from pydantic import Field, PositiveInt

from headway.config.contracts import Data, DataSpec
from headway.config.keys import derive
from headway.data._splits import SplitFractions, fingerprint_arrays, pooled
from headway.data._windows import IGNORED


class Config(SplitFractions):
    """Configures the sequences, which are drawn from `seed`."""

    num_samples: PositiveInt = 10_000
    """Sequences over all parts."""
    length: int = Field(default=50, ge=1, le=100_000)
    """Blanks between the symbols and the sign to repeat them: how long a net has to remember."""
    num_symbols: PositiveInt = 10
    """Symbols to repeat."""
    alphabet: int = Field(default=8, ge=2, le=26)
    """Number of different symbols."""

    def load(self) -> Data:
        """Returns the sequences in three parts: int64 `input` and `target`, (N, T); -100 where nothing is asked."""
        generator = np.random.default_rng(derive(self.split_seed(), "copying"))
        count, blank, begin = self.num_samples, self.alphabet, self.alphabet + 1
        symbol_NS = generator.integers(0, self.alphabet, (count, self.num_symbols))
        input_NT = np.full((count, self.length + 2 * self.num_symbols + 1), blank)
        input_NT[:, : self.num_symbols] = symbol_NS
        input_NT[:, -self.num_symbols - 1] = begin
        target_NT = np.full_like(input_NT, IGNORED)
        target_NT[:, -self.num_symbols :] = symbol_NS
        tensors = {"input": torch.from_numpy(input_NT), "target": torch.from_numpy(target_NT)}
        letters = string.ascii_lowercase[: self.alphabet] + "_:"
        spec = DataSpec(input_kind="tokens", input_shape=input_NT.shape[1:], vocab_size=len(letters))
        data = pooled(spec, self.parts(count), tensors, fingerprint=fingerprint_arrays(*tensors.values()))
        return dataclasses.replace(data, decode=lambda tokens: "".join(letters[token] for token in tokens))
