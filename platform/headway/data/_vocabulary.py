"""Text to tokens and back: a token a character, or byte-pair encoding.

Source of the latter: Sennrich, Haddow and Birch 2016; over bytes as in Radford et al. 2019.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNKNOWN = 0
_UNKNOWN_TEXT = "\ufffd"
_CHUNK_CHARACTERS = 1 << 16


class Vocabulary(Protocol):
    """The tokens of a text."""

    @property
    def size(self) -> int:
        """Number of distinct tokens."""

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the tokens of a text, (tokens,)."""

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens."""

    def to_json(self) -> str:
        """Returns what `vocabulary_from_json` reads back to an equal one."""


class CharacterVocabulary:
    """A token for each character that was seen, and token 0, <unk>, for all others.

    Args:
        characters: distinct, in the order of their tokens from 1 on.
    """

    def __init__(self, characters: str) -> None:
        self.characters = characters
        code_points = np.array([ord(character) for character in characters], dtype=np.int64)
        self._token_of = np.full(0x110000, _UNKNOWN, np.int32)
        self._token_of[code_points] = np.arange(1, len(characters) + 1)

    @classmethod
    def of(cls, text: str) -> CharacterVocabulary:
        """Returns the vocabulary of a text, its characters in the order of their code points."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        """Number of distinct tokens, <unk> included."""
        return 1 + len(self.characters)

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the tokens of a text, (characters,)."""
        # surrogatepass: a lone surrogate is a character like any other here, and unknown.
        code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        return np.take(self._token_of, code_points)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens; the replacement character stands for <unk>."""
        table = _UNKNOWN_TEXT + self.characters
        return "".join(table[token] for token in tokens)

    def to_json(self) -> str:
        """Returns what `vocabulary_from_json` reads back to an equal one."""
        return json.dumps({"vocabulary": "character", "characters": self.characters})


class BytePairVocabulary:
    """Bytes, merged to frequent strings: every text has tokens and comes back whole.

    Args:
        tokenizer: a byte-level one.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, text: str, *, size: int) -> BytePairVocabulary:
        """Returns a vocabulary trained on a text: at most `size` tokens, fewer where too little repeats itself."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_chunks(text), trainer)
        return cls(tokenizer)

    @property
    def size(self) -> int:
        """Number of distinct tokens."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the tokens of a text, (tokens,)."""
        encoded = [np.array(self._tokenizer.encode(chunk).ids, np.int32) for chunk in _chunks(text)]
        return np.concatenate(encoded) if encoded else np.empty(0, np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens; a character cut in two shows as the replacement character."""
        return str(self._tokenizer.decode(list(tokens)))

    def to_json(self) -> str:
        """Returns what `vocabulary_from_json` reads back to an equal one."""
        return json.dumps({"vocabulary": "bpe", "tokenizer": self._tokenizer.to_str()})


def vocabulary_from_json(text: str) -> Vocabulary:
    """Returns the vocabulary that `to_json` wrote."""
    tree = json.loads(text)
    if tree["vocabulary"] == "character":
        return CharacterVocabulary(tree["characters"])
    from tokenizers import Tokenizer

    return BytePairVocabulary(Tokenizer.from_str(tree["tokenizer"]))


def _chunks(text: str) -> Iterator[str]:
    """Yields a text in pieces that end with a line: the tokenizer's own memory is many times its input's."""
    start = 0
    while start < len(text):
        newline = text.find("\n", start + _CHUNK_CHARACTERS)
        end = len(text) if newline < 0 else newline + 1
        yield text[start:end]
        start = end
