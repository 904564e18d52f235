"""Pairs of sentences to translate: names in many languages, the Debian handbook, or a file of yours.

Parts are drawn by the source sentence: no sentence that is held out is read in training, whatever its translation.
The vocabulary is that of the training part, both languages in one.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError
from headway.data._pair_sources import Pair, read_file, read_handbook, read_names
from headway.data._pairs import PairSplit, PairVocabulary, Sentences
from headway.data._splits import SplitFractions

PART_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class PairData(Data):
    """Pairs that are loaded, with what a translation is made and judged by."""

    vocabulary: PairVocabulary | None = None
    pairs: dict[str, list[Pair]] = field(default_factory=dict)
    """Source and target as texts by the part's name, in the order of its samples."""


class Config(SplitFractions):
    """Configures the pairs and their tokens."""

    source: Literal["names", "handbook"] = "names"
    """Names of countries, languages, currencies and scripts (of pycountry), or the Debian Administrator's Handbook."""
    languages: Annotated[tuple[str, str], Field(strict=False)] = ("en", "de")
    """Language to read and language to write, as codes: en, de, fr, es; of a file of yours, what they are called."""
    path: str | None = None
    """A UTF-8 file with a pair a line, a tab between source and target; `source` when absent."""
    folder: str | None = None
    """Folder of the handbook's languages; where it was fetched or installed when absent."""
    vocab_size: int = Field(default=1000, ge=260, le=1_000_000)
    """Tokens of both languages together, <pad>, <bos> and <eos> among them; fewer where too little repeats itself."""
    max_length: int = Field(default=64, ge=2)
    """Tokens of a sentence, its <eos> included, above which its pair is left out."""

    def load(self) -> PairData:
        """Returns the pairs in three parts.

        Raises:
            UserError: pairs that are missing, too few, or all too long.
        """
        pairs = self._read()
        if not pairs:
            raise UserError(f"data.languages: {self._origin()} has no pairs of {' and '.join(self.languages)}")
        parts = self._split(pairs)
        train_texts = [text for pair in parts["train"] for text in pair]
        vocabulary = PairVocabulary.of(train_texts, size=self.vocab_size)
        encoded = {name: [_Encoded(pair, vocabulary) for pair in part] for name, part in parts.items()}
        kept = {name: [one for one in part if one.length <= self.max_length] for name, part in encoded.items()}
        self._say_what_is_left_out(encoded, kept)
        everything = [one for part in kept.values() for one in part]
        train, validation, test = (
            PairSplit(
                Sentences.of([one.source for one in kept[name]]), Sentences.of([one.target for one in kept[name]])
            )
            for name in PART_NAMES
        )
        return PairData(
            DataSpec(
                input_kind="pairs",
                input_shape=(max(len(one.source) for one in everything),),
                target_length=max(len(one.target) for one in everything),
                vocab_size=vocabulary.size,
            ),
            train,
            validation,
            test,
            hashlib.sha256(repr(pairs).encode("utf-8", "surrogatepass")).hexdigest(),
            decode=vocabulary.decode,
            reading={"pairs": {"vocabulary": vocabulary.to_json(), "languages": list(self.languages)}},
            vocabulary=vocabulary,
            pairs={name: [one.pair for one in part] for name, part in kept.items()},
        )

    def _origin(self) -> str:
        return self.path or self.source

    def _read(self) -> list[Pair]:
        if self.path is not None:
            return read_file(Path(self.path).expanduser())
        return read_names(self.languages) if self.source == "names" else read_handbook(self.languages, self.folder)

    def _split(self, pairs: list[Pair]) -> dict[str, list[Pair]]:
        """Returns each part's pairs: all with the same source are in the same part."""
        by_source: dict[str, list[Pair]] = {}
        for pair in pairs:
            by_source.setdefault(pair[0], []).append(pair)
        groups = list(by_source.values())
        return {
            name: [pair for place in part.tolist() for pair in groups[place]]
            for name, part in zip(PART_NAMES, self.parts(len(groups)), strict=True)
        }

    def _say_what_is_left_out(self, encoded: dict[str, list[_Encoded]], kept: dict[str, list[_Encoded]]) -> None:
        num_pairs, num_kept = (sum(map(len, parts.values())) for parts in (encoded, kept))
        for name, part in kept.items():
            if not part:
                raise UserError(
                    f"data.max_length: {self.max_length} leaves none of {len(encoded[name]):,} pairs for {name}; "
                    "raise it"
                )
        # Once, and not by every rank.
        if num_kept < num_pairs and os.environ.get("RANK", "0") == "0":
            print(  # noqa: T201
                f"headway: {num_pairs - num_kept:,} of {num_pairs:,} pairs have a sentence of more than "
                f"{self.max_length} tokens and are left out (data.max_length)",
                file=sys.stderr,
            )


class _Encoded:
    """A pair and its tokens."""

    def __init__(self, pair: Pair, vocabulary: PairVocabulary) -> None:
        self.pair = pair
        self.source: NDArray[np.int32] = vocabulary.encode(pair[0])
        self.target: NDArray[np.int32] = vocabulary.encode(pair[1])

    @property
    def length(self) -> int:
        """Tokens of the longer sentence."""
        return max(len(self.source), len(self.target))
