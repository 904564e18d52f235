"""Text with hidden tokens to name, and two segments to say of whether one follows the other: BERT's pre-training.

Source: Devlin et al. 2018, section 3.1. The text is read and split as that of `text`; a segment is a stretch of
tokens. What is held out is cut and hidden once, so that every validation asks the same.
"""

from __future__ import annotations

import hashlib

from pydantic import Field

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError
from headway.config.keys import derive
from headway.data._masked_windows import MaskedWindows
from headway.data._text_source import PART_NAMES, TextSource
from headway.data._token_cache import tokenize_cached, tokenize_text
from headway.data._vocabulary import VocabularySetting, special_tokens


class Config(TextSource):
    """Configures the text, its tokens and what is hidden."""

    vocabulary: VocabularySetting = "bpe"
    """bpe: byte pairs learned from the training part; else a tokenizer.json, or a folder or a run that has one.
    It has BERT's special tokens."""
    vocab_size: int = Field(default=2048, ge=261, le=1_000_000)
    """Tokens of a bpe vocabulary, four special ones included."""
    sequence_length: int = Field(default=64, ge=11)
    """Tokens of a sample, special ones included."""
    masked: float = Field(default=0.15, gt=0, lt=1)
    """Fraction of a sample's tokens that are to be named."""
    pairs: bool = True
    """Whether a sample is two segments, in half of the cases from two places; else it is one."""
    memory_map_above: int = Field(default=1 << 28, ge=0)
    """Bytes of text above which tokens are kept in a file of the data home instead of in memory."""

    def load(self) -> Data:
        """Returns the text as samples with hidden tokens.

        Raises:
            UserError: a file that is missing or no text, a vocabulary without special tokens, or too little text.
        """
        text = self.read()
        raw = text.encode("utf-8", "surrogatepass")
        fingerprint, num_bytes = hashlib.sha256(raw).hexdigest(), len(raw)
        del raw
        parts, method = self.parts(text), {"vocabulary": self.vocabulary, "size": self.vocab_size, "special": True}
        if num_bytes > self.memory_map_above:
            tokenized = tokenize_cached(parts, fingerprint=fingerprint, **method)  # type: ignore[arg-type]
        else:
            tokenized = tokenize_text(parts, **method)  # type: ignore[arg-type]
        vocabulary = tokenized.vocabulary
        special = special_tokens(vocabulary)
        splits = []
        for name in PART_NAMES:
            stream = tokenized.streams[name]
            if len(stream) < 2 * self.sequence_length:
                raise UserError(
                    f"data.sequence_length: {self.sequence_length} needs {2 * self.sequence_length:,} tokens in each "
                    f"part, and {self.origin()} gives {len(stream):,} for {name}; make it smaller or the part larger"
                )
            splits.append(
                MaskedWindows(
                    stream,
                    length=self.sequence_length,
                    special=special,
                    vocab_size=vocabulary.size,
                    share=self.masked,
                    pairs=self.pairs,
                    seed=derive(self.split_seed(), name),
                    held_out=name != "train",
                )
            )
        train, validation, test = splits
        return Data(
            DataSpec(input_kind="tokens", input_shape=(self.sequence_length,), vocab_size=vocabulary.size, masked=True),
            train,
            validation,
            test,
            fingerprint,
            decode=vocabulary.decode,
            reading={"vocabulary": vocabulary.to_json(), "special": special._asdict()},
        )
