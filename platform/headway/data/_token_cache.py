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
from headway.data._vocabulary import BytePairVocabulary, CharacterVocabulary, Vocabulary, vocabulary_from_json
from headway.data._windows import TokenStream


@dataclass(frozen=True)
class TokenizedText:
    """The parts of a text as tokens of one vocabulary."""

    vocabulary: Vocabulary
    streams: dict[str, TokenStream]
    """By the part's name."""


def tokenize_text(parts: Mapping[str, str], *, vocabulary: str, size: int) -> TokenizedText:
    """Returns the parts as tokens in memory; the vocabulary is that of the part named `train`."""
    learned = _learn(parts["train"], vocabulary, size)
    arrays = {name: _pack(learned.encode(text), learned.size) for name, text in parts.items()}
    return TokenizedText(learned, {name: _stream(array) for name, array in arrays.items()})


def tokenize_cached(parts: Mapping[str, str], *, vocabulary: str, size: int, fingerprint: str) -> TokenizedText:
    """Returns the parts as tokens mapped from files, made on the first call.

    Args:
        parts: by name.
        vocabulary: `character` or `bpe`.
        size: of the latter.
        fingerprint: of the whole text.

    Raises:
        UserError: the data home cannot be written, or a file in it is damaged.
    """
    folder = data_home() / "tokens" / _key(parts, vocabulary, size, fingerprint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        saved = folder / "vocabulary.json"
        if not saved.exists():
            made = _learn(parts["train"], vocabulary, size).to_json()
            with beside(saved) as file:
                file.write(made.encode("ascii"))
        learned = vocabulary_from_json(saved.read_text(encoding="ascii"))
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


def _key(parts: Mapping[str, str], vocabulary: str, size: int, fingerprint: str) -> str:
    bounds = [len(text) for text in parts.values()]
    method = ("bpe", size, version("tokenizers")) if vocabulary == "bpe" else ("character",)
    return hashlib.sha256(repr((fingerprint, bounds, method)).encode()).hexdigest()[:32]


def _learn(text: str, vocabulary: str, size: int) -> Vocabulary:
    return BytePairVocabulary.of(text, size=size) if vocabulary == "bpe" else CharacterVocabulary.of(text)


def _pack(tokens: NDArray[np.int32], vocab_size: int) -> NDArray[Any]:
    return tokens.astype(np.uint16) if vocab_size <= 1 << 16 else tokens


def _stream(array: NDArray[Any]) -> TokenStream:
    return TokenStream(torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array))
