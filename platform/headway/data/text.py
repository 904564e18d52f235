"""Text to predict token by token: your own files, or what comes with Python.

The text is split in order, never shuffled: the model trains on the beginning and is judged by what
comes after it. The vocabulary is that of the training part.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pydantic import Field, PositiveInt, model_validator

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError
from headway.data._streams import CarriedWindows
from headway.data._text_source import PART_NAMES, TextSource
from headway.data._token_cache import TokenizedText, tokenize_cached, tokenize_text
from headway.data._vocabulary import Vocabulary, VocabularySetting
from headway.data._windows import ScoredWindows, TrainWindows


@dataclass(frozen=True)
class TextData(Data):
    """Text that is loaded, with the vocabulary that `generate` encodes a prompt with."""

    vocabulary: Vocabulary | None = None


class Config(TextSource):
    """Configures the text and its tokens."""

    vocabulary: VocabularySetting = "character"
    """character: a token each; bpe: byte pairs learned from the training part; else a tokenizer.json, or a folder or
    a run that has one."""
    vocab_size: int = Field(default=1024, ge=257, le=1_000_000)
    """Tokens of a bpe vocabulary; a character vocabulary has one for each character."""
    sequence_length: PositiveInt = 64
    """Tokens of a sample."""
    carry: bool = False
    """Whether each row of a training batch goes on where it ended in the last, for nets that carry their state."""
    eval_length: PositiveInt | None = None
    """Tokens of a held-out sample where `carry` is true; sequence_length when absent."""
    memory_map_above: int = Field(default=1 << 28, ge=0)
    """Bytes of text above which tokens are kept in a file of the data home instead of in memory."""

    @model_validator(mode="after")
    def _only_carried_text_has_two_lengths(self) -> Config:
        if self.eval_length is not None and not self.carry:
            raise ValueError(
                f"eval_length {self.eval_length} is for nets that carry their state over any length; "
                "set carry to true or leave it out"
            )
        return self

    def load(self) -> TextData:
        """Returns the text as three streams of tokens.

        Raises:
            UserError: a file that is missing or no text, or too little text.
        """
        text = self.read()
        raw = text.encode("utf-8", "surrogatepass")
        fingerprint, num_bytes = hashlib.sha256(raw).hexdigest(), len(raw)
        del raw
        parts = self.parts(text)
        if num_bytes > self.memory_map_above:
            tokenized = tokenize_cached(
                parts, vocabulary=self.vocabulary, size=self.vocab_size, fingerprint=fingerprint
            )
        else:
            tokenized = tokenize_text(parts, vocabulary=self.vocabulary, size=self.vocab_size)
        return self._cut(tokenized, fingerprint)

    def _cut(self, tokenized: TokenizedText, fingerprint: str) -> TextData:
        train, validation, test = (tokenized.streams[name] for name in PART_NAMES)
        if len(train) <= self.sequence_length:
            raise UserError(
                f"data.sequence_length: {self.sequence_length} needs a training part of {self.sequence_length + 1:,} "
                f"tokens at least, and {self.origin()} gives {len(train):,}; make it smaller or the text longer"
            )
        for name, stream in (("validation", validation), ("test", test)):
            if len(stream) < 2:
                raise UserError(
                    f"data.{name}: {getattr(self, name)} of {self.origin()} is {len(stream)} tokens, and 2 are needed "
                    "to score one; make it larger or the text longer"
                )
        vocabulary = tokenized.vocabulary
        windows = CarriedWindows if self.carry else TrainWindows
        return TextData(
            DataSpec(
                input_kind="tokens",
                input_shape=(self.sequence_length,),
                vocab_size=vocabulary.size,
                carried=self.carry,
            ),
            windows(train, length=self.sequence_length, seed=self.split_seed()),
            ScoredWindows(validation, length=self.eval_length or self.sequence_length),
            ScoredWindows(test, length=self.eval_length or self.sequence_length),
            fingerprint,
            decode=vocabulary.decode,
            vocabulary=vocabulary,
            reading={"vocabulary": vocabulary.to_json()},
        )
