"""Texts as streams of tokens: in memory, or in files of the data home that are mapped into it.

A cached file is written beside its place and renamed when it is whole, so several ranks may make the
same one at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headway.config.errors import UserError
from headway.data._store import beside, data_home
from headway.data._vocabulary import (
    BytePairVocabulary,
    CharacterVocabulary,
    Vocabulary,
    load_vocabulary,
    vocabulary_from_json,
)
from headway.data._windows import TokenStream


@dataclass(frozen=True)
class TokenizedText:
    """The parts of a text as tokens of one vocabulary."""

    vocabulary: Vocabulary
    streams: dict[str, TokenStream]
    """By the part's name."""


def tokenize_text(parts: Mapping[str, str], *, vocabulary: str, size: int, special: bool = False) -> TokenizedText:
    """Returns the parts as tokens in memory; a vocabulary that is learned is that of the part named `train`."""
    learned = learn_vocabulary(parts["train"], vocabulary, size, special=special)
    arrays = {name: _pack(learned.encode(text), learned.size) for name, text in parts.items()}
    return TokenizedText(learned, {name: _stream(array) for name, array in arrays.items()})


def tokenize_cached(
    parts: Mapping[str, str], *, vocabulary: str, size: int, fingerprint: str, special: bool = False
) -> TokenizedText:
    """Returns the parts as tokens mapped from files, made on the first call.

    Args:
        parts: by name.
        vocabulary: `character`, `bpe`, or where there is one.
        size: of a bpe vocabulary.
        fingerprint: of the whole text.
        special: whether the vocabulary has special tokens.

    Raises:
        UserError: the data home cannot be written, or a file in it is damaged.
    """
    folder = data_home() / "tokens" / _key(parts, vocabulary, size, special, fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / "vocabulary.json"
        if not saved.exists():
            made = learn_vocabulary(parts["train"], vocabulary, size, special=special).to_json()
            with beside(saved) as file:
                file.write(made.encode("ascii"))
        learned = vocabulary_from_json(saved.read_text(encoding="ascii"), literal=special)
        for name, text in parts.items():
            if not (folder / f"{name}.npy").exists():
                packed = _pack(learned.encode(text), learned.size)
                with beside(folder / f"{name}.npy") as file:
                    np.save(file, packed)
        # "c": pages are read as they are needed, and torch gets memory that it could write to.
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in parts}
    except OSError as error:
        raise UserError(f"{folder}: cannot be used ({error.strerror or error}); set HEADWAY_DATA") from None
    except (ValueError, KeyError, EOFError) as error:
        raise UserError(f"{folder}: is damaged ({error}); remove it, it will be made again") from None
    return TokenizedText(learned, {name: _stream(array) for name, array in arrays.items()})


def learn_vocabulary(text: str, vocabulary: str, size: int, *, special: bool = False) -> Vocabulary:
    """Returns a vocabulary learned from a text, or the one that `vocabulary` is the place of."""
    if vocabulary == "bpe":
        return BytePairVocabulary.of(text, size=size, special=special)
    return CharacterVocabulary.of(text) if vocabulary == "character" else load_vocabulary(vocabulary, literal=special)


def _key(parts: Mapping[str, str], vocabulary: str, size: int, special: bool, fingerprint: str) -> str:
    bounds = [len(text) for text in parts.values()]
    method: tuple[object, ...] = (vocabulary,)
    if vocabulary == "bpe":
        method = ("bpe", size, version("tokenizers"))
    elif vocabulary != "character":
        method = (load_vocabulary(vocabulary).to_json(), version("tokenizers"))
    method += ("special",) if special else ()
    return hashlib.sha256(repr((fingerprint, bounds, method)).encode()).hexdigest()[:32]


def _pack(tokens: NDArray[np.int32], vocab_size: int) -> NDArray[Any]:
    return tokens.astype(np.uint16) if vocab_size <= 1 << 16 else tokens


def _stream(array: NDArray[Any]) -> TokenStream:
    return TokenStream(torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array))
