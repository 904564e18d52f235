"""Text to predict token by token: your own files, or what comes with Python.

The text is split in order, never shuffled: the model trains on the beginning and is judged by what
comes after it. The vocabulary is that of the training part.
"""

from __future__ import annotations

import hashlib
import sysconfig
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from headway.config.contracts import Data, DataConfig, DataSpec
from headway.config.errors import UserError
from headway.data._token_cache import TokenizedText, tokenize_cached, tokenize_text
from headway.data._vocabulary import Vocabulary
from headway.data._windows import ScoredWindows, TrainWindows

PART_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class TextData(Data):
    """Text that is loaded, with the vocabulary that `generate` encodes a prompt with."""

    vocabulary: Vocabulary | None = None


class Config(DataConfig):
    """Configures the text and its tokens."""

    path: str | None = None
    """A UTF-8 text file, or a folder whose files are read in the order of their names; `source` when absent."""
    source: Literal["python_docs", "python_source"] = "python_docs"
    """Text that comes with Python: its reference topics in English, or its standard library's own code."""
    max_characters: PositiveInt | None = None
    """Characters read, from the start; all when absent."""
    vocabulary: Literal["character", "bpe"] = "character"
    """A token a character, or byte-pair encoding trained on the training part."""
    vocab_size: int = Field(default=1024, ge=257, le=1_000_000)
    """Tokens of a bpe vocabulary; a character vocabulary has one for each character."""
    sequence_length: PositiveInt = 64
    """Tokens of a sample."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the characters, after those of training, held out to choose by."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the characters, the last ones, held out to report."""
    memory_map_above: int = Field(default=1 << 28, ge=0)
    """Bytes of text above which tokens are kept in a file of the data home instead of in memory."""

    @model_validator(mode="after")
    def _leaves_training_text(self) -> Config:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be less than 1"
            )
        return self

    def load(self) -> TextData:
        """Returns the text as three streams of tokens.

        Raises:
            UserError: a file that is missing or no text, or too little text.
        """
        text = self._read()
        raw = text.encode("utf-8", "surrogatepass")
        fingerprint, num_bytes = hashlib.sha256(raw).hexdigest(), len(raw)
        del raw
        parts = self._split(text)
        if num_bytes > self.memory_map_above:
            tokenized = tokenize_cached(
                parts, vocabulary=self.vocabulary, size=self.vocab_size, fingerprint=fingerprint
            )
        else:
            tokenized = tokenize_text(parts, vocabulary=self.vocabulary, size=self.vocab_size)
        return self._cut(tokenized, fingerprint)

    def _split(self, text: str) -> dict[str, str]:
        num_validation, num_test = (round(fraction * len(text)) for fraction in (self.validation, self.test))
        first, second = len(text) - num_validation - num_test, len(text) - num_test
        return dict(zip(PART_NAMES, (text[:first], text[first:second], text[second:]), strict=True))

    def _cut(self, tokenized: TokenizedText, fingerprint: str) -> TextData:
        train, validation, test = (tokenized.streams[name] for name in PART_NAMES)
        if len(train) <= self.sequence_length:
            raise UserError(
                f"data.sequence_length: {self.sequence_length} needs a training part of {self.sequence_length + 1:,} "
                f"tokens at least, and {self._origin()} gives {len(train):,}; make it smaller or the text longer"
            )
        for name, stream in (("validation", validation), ("test", test)):
            if len(stream) < 2:
                raise UserError(
                    f"data.{name}: {getattr(self, name)} of {self._origin()} is {len(stream)} tokens, and 2 are needed "
                    "to score one; make it larger or the text longer"
                )
        vocabulary = tokenized.vocabulary
        return TextData(
            DataSpec(input_kind="tokens", input_shape=(self.sequence_length,), vocab_size=vocabulary.size),
            TrainWindows(train, length=self.sequence_length, seed=self.split_seed()),
            ScoredWindows(validation, length=self.sequence_length),
            ScoredWindows(test, length=self.sequence_length),
            fingerprint,
            decode=vocabulary.decode,
            vocabulary=vocabulary,
        )

    def _origin(self) -> str:
        return self.path or self.source

    def _read(self) -> str:
        """Returns the text, up to `max_characters`."""
        pieces = self._pieces()
        if self.max_characters is None:
            text = "\n".join(pieces)
        else:
            taken: list[str] = []
            room = self.max_characters
            for piece in pieces:
                taken.append(piece[:room])
                room -= len(piece) + 1
                if room <= 0:
                    break
            text = "\n".join(taken)
        if not text.strip():
            raise UserError(f"data.path: {self._origin()} holds no text; name a file or folder that does")
        return text

    def _pieces(self) -> Iterable[str]:
        """Yields one text a file, or a topic."""
        if self.path is not None:
            return (_read_file(file) for file in _files(Path(self.path).expanduser()))
        if self.source == "python_docs":
            from pydoc_data.topics import topics

            return (topics[name] for name in sorted(topics))
        return (_read_source(file) for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))


def _files(path: Path) -> list[Path]:
    """Returns the file, or the files of a folder and those below it, in the order of their names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"data.path: {path} is not there; name a text file or a folder of them")
    hidden = (file for file in path.rglob("*") if file.is_file())
    files = [file for file in hidden if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not files:
        raise UserError(f"data.path: {path} has no files; name a text file or a folder of them")
    return sorted(files, key=lambda file: file.relative_to(path).as_posix())


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {path} is no UTF-8 text (byte {error.start:,}); convert it or remove it") from None
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})") from None


def _read_source(path: Path) -> str:
    """Returns a Python file's text in the encoding it declares."""
    with tokenize.open(path) as file:
        return file.read()
