"""Pairs of sentences as tokens of one shared vocabulary.

Source: Vaswani et al. 2017, section 5.1: byte-pair encoding (Sennrich, Haddow and Birch 2016) shared by both languages.
A sentence ends with <eos>; the decoder reads the target behind <bos> and is to say each next token.

Shapes: N pairs of a batch, S tokens of the longest source in it, T of the longest target.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.config.contracts import Batch
from headway.data._vocabulary import BytePairVocabulary, vocabulary_from_json
from headway.data._windows import IGNORED
from headway.nn.beam_search import BEGIN, END, PADDING

NUM_SPECIAL = 3


class PairVocabulary:
    """<pad>, <bos>, <eos>, then byte pairs: every sentence of either language has tokens and comes back whole.

    Args:
        byte_pairs: whose tokens come after the three.
    """

    def __init__(self, byte_pairs: BytePairVocabulary) -> None:
        self._byte_pairs = byte_pairs

    @classmethod
    def of(cls, sentences: Sequence[str], *, size: int) -> PairVocabulary:
        """Returns a vocabulary trained on sentences: at most `size` tokens."""
        return cls(BytePairVocabulary.of("\n".join(sentences), size=size - NUM_SPECIAL))

    @classmethod
    def from_json(cls, text: str) -> PairVocabulary:
        """Returns the vocabulary that `to_json` wrote."""
        byte_pairs = vocabulary_from_json(json.loads(text)["byte_pairs"])
        assert isinstance(byte_pairs, BytePairVocabulary)
        return cls(byte_pairs)

    @property
    def size(self) -> int:
        """Number of distinct tokens."""
        return NUM_SPECIAL + self._byte_pairs.size

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the tokens of a sentence, <eos> the last of them."""
        return np.append(self._byte_pairs.encode(text) + NUM_SPECIAL, np.int32(END))

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens; <pad>, <bos>, <eos> and targets that are ignored have none."""
        return self._byte_pairs.decode([token - NUM_SPECIAL for token in tokens if token >= NUM_SPECIAL])

    def to_json(self) -> str:
        """Returns what `from_json` reads back to an equal one."""
        return json.dumps({"vocabulary": "pairs", "byte_pairs": self._byte_pairs.to_json()})


class Sentences:
    """Sentences of unequal length, one after the other in memory.

    Args:
        token: int32, of all sentences.
        start_N: where each begins, and last where the end is.
    """

    def __init__(self, token: Tensor, start_N: Tensor) -> None:
        self._token = token
        # On the CPU: how long a batch's longest sentence is must not wait for a device.
        self._start_N = start_N

    @classmethod
    def of(cls, encoded: Sequence[NDArray[np.int32]]) -> Sentences:
        """Returns these sentences."""
        start_N = np.concatenate([[0], np.cumsum([len(sentence) for sentence in encoded])])
        return cls(torch.from_numpy(np.concatenate(encoded)), torch.from_numpy(start_N))

    def __len__(self) -> int:
        """Returns the number of sentences."""
        return len(self._start_N) - 1

    def gather(self, index_N: Tensor, *, filled_with: int) -> Tensor:
        """Returns int64 (N, S) for S the tokens of the longest of these sentences."""
        start_N = self._start_N[index_N]
        length_N = self._start_N[index_N + 1] - start_N
        column_S = torch.arange(int(length_N.max()))
        beyond_NS = column_S >= length_N[:, None]
        place_NS = (start_N[:, None] + column_S).clamp_(max=len(self._token) - 1)
        device = self._token.device
        return self._token[place_NS.to(device)].long().masked_fill_(beyond_NS.to(device), filled_with)

    def to(self, device: torch.device) -> Sentences:
        """Returns the sentences on a device."""
        return Sentences(self._token.to(device), self._start_N)


class PairSplit:
    """One part of the pairs.

    Args:
        source: sentences to read.
        target: sentences to write, in the same order.
    """

    in_memory = True

    def __init__(self, source: Sentences, target: Sentences) -> None:
        assert len(source) == len(target), "a pair has two sentences"
        self.source = source
        self.target = target

    def __len__(self) -> int:
        """Returns the number of pairs."""
        return len(self.source)

    def gather(self, index_N: Tensor, *, epoch: int) -> Batch:
        """Returns `input` (N, S), and `decoder_input` and `target` (N, T), no longer than the batch's longest."""
        del epoch
        target_NT = self.target.gather(index_N, filled_with=IGNORED)
        before_NT = torch.roll(target_NT, 1, dims=1)
        before_NT[:, 0] = BEGIN
        return {
            "input": self.source.gather(index_N, filled_with=PADDING),
            "decoder_input": before_NT.masked_fill_(target_NT == IGNORED, PADDING),
            "target": target_NT,
        }

    def to(self, device: torch.device, dtype: torch.dtype) -> PairSplit:
        """Returns the split with its tokens on a device."""
        del dtype
        return PairSplit(self.source.to(device), self.target.to(device))
