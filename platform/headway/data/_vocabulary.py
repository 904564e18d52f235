"""Text to tokens and back: a token a character, byte-pair encoding, or the tokenizer of a published checkpoint.

Source of byte pairs: Sennrich, Haddow and Birch 2016; over bytes as in Radford et al. 2019. Special tokens, which no
text has, are those of Devlin et al. 2018, section 3: padding, the first token, the end of a segment, a hidden one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator

from headway.config.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

METHODS = ("character", "bpe")
VocabularySetting = Annotated[
    # Absolute, so that the run folder's recipe repeats the run from wherever it is started.
    str, AfterValidator(lambda value: value if value in METHODS else str(Path(value).expanduser().resolve()))
]
"""A way to learn a vocabulary, or where there is one: a tokenizer.json, or a folder or a run that has one."""
PADDING, FIRST, END, HIDDEN = SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
"""Special tokens, in the order of their numbers in a vocabulary that is trained here."""

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

    def tokenizer(self) -> Tokenizer:
        """Returns the same as a tokenizer of Hugging Face's."""


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

    def tokenizer(self) -> Tokenizer:
        """Returns the same as a tokenizer of Hugging Face's."""
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

        tokens = {"<unk>": _UNKNOWN} | {character: index for index, character in enumerate(self.characters, start=1)}
        tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer


class BytePairVocabulary:
    """Strings that a tokenizer has learned: bytes merged to frequent strings, so that every text comes back whole.

    Args:
        tokenizer: a byte-level one, or whatever comes with a checkpoint.
        literal: whether what looks like a special token is text like any other.
    """

    def __init__(self, tokenizer: Tokenizer, *, literal: bool = False) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = literal
        self._tokenizer = tokenizer

    @classmethod
    def of(cls, text: str, *, size: int, special: bool = False) -> BytePairVocabulary:
        """Returns a vocabulary trained on a text: at most `size` tokens, fewer where too little repeats itself.

        Args:
            text: what is learned from.
            size: largest number of tokens, special ones included.
            special: whether it has special tokens, the first ones.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=list(SPECIAL) if special else [],
            show_progress=False,
        )
        tokenizer.train_from_iterator(_chunks(text), trainer)
        if special:
            # Not used here: for those who load an exported tokenizer.
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{FIRST} $A {END}",
                pair=f"{FIRST} $A {END} $B:1 {END}:1",
                special_tokens=[(name, SPECIAL.index(name)) for name in (FIRST, END)],
            )
        return cls(tokenizer, literal=special)

    @cached_property
    def size(self) -> int:
        """Number of distinct tokens."""
        # Not their count: a published vocabulary may leave numbers out.
        return 1 + max(self._tokenizer.get_vocab().values())

    def encode(self, text: str) -> NDArray[np.int32]:
        """Returns the tokens of a text, (tokens,)."""
        encoded = [
            np.array(self._tokenizer.encode(chunk, add_special_tokens=False).ids, np.int32) for chunk in _chunks(text)
        ]
        return np.concatenate(encoded) if encoded else np.empty(0, np.int32)

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens; a character cut in two shows as the replacement character."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False))

    def number(self, token: str) -> int | None:
        """Returns the number of a token; None where there is none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def to_json(self) -> str:
        """Returns what `vocabulary_from_json` reads back to an equal one."""
        return json.dumps({"vocabulary": "bpe", "tokenizer": self._tokenizer.to_str()})

    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer."""
        return self._tokenizer


class SpecialTokens(NamedTuple):
    """Numbers of the special tokens; padding is 0."""

    first: int
    end: int
    hidden: int


def special_tokens(vocabulary: Vocabulary) -> SpecialTokens:
    """Returns the special tokens of a vocabulary.

    Raises:
        UserError: it lacks one, or its padding is not token 0.
    """
    numbers = [vocabulary.number(name) for name in SPECIAL] if isinstance(vocabulary, BytePairVocabulary) else []
    known = [number for number in numbers if number is not None]
    if len(known) < len(SPECIAL) or known[0] != 0:
        raise UserError(
            f"data.vocabulary: should have {', '.join(SPECIAL)}, the first of them as token 0, as BERT's has; "
            "use bpe, or the tokenizer.json of a BERT"
        )
    return SpecialTokens(*known[1:])


def load_vocabulary(place: str, *, literal: bool = False) -> Vocabulary:
    """Returns the vocabulary of a tokenizer.json, of a folder that holds one, or of a run.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    from tokenizers import Tokenizer

    path = Path(place)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            return BytePairVocabulary(Tokenizer.from_str(file.read_text(encoding="utf-8")), literal=literal)
        # What a run reads its text with is in its data.json.
        saved = json.loads((path / "data.json").read_text(encoding="utf-8"))["reading"]["vocabulary"]
        return vocabulary_from_json(saved, literal=literal)
    except (FileNotFoundError, NotADirectoryError, KeyError):
        raise UserError(
            f"data.vocabulary: there is no {place}; it should be {' or '.join(METHODS)}, a tokenizer.json, or a "
            "folder or a run that has one"
        ) from None
    except Exception as error:  # tokenizers raises no class of its own
        raise UserError(f"data.vocabulary: {path} cannot be read ({error})") from None


def save_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    """Writes tokenizer.json and tokenizer_config.json, which transformers' `AutoTokenizer` loads."""
    tokenizer = vocabulary.tokenizer()
    names = {"pad_token": PADDING, "cls_token": FIRST, "sep_token": END, "mask_token": HIDDEN}
    known = {role: name for role, name in names.items() if tokenizer.token_to_id(name) is not None}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **known}
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def vocabulary_from_json(text: str, *, literal: bool = False) -> Vocabulary:
    """Returns the vocabulary that `to_json` wrote."""
    tree = json.loads(text)
    if tree["vocabulary"] == "character":
        return CharacterVocabulary(tree["characters"])
    from tokenizers import Tokenizer

    return BytePairVocabulary(Tokenizer.from_str(tree["tokenizer"]), literal=literal)


def _chunks(text: str) -> Iterator[str]:
    """Yields a text in pieces that end with a line: the tokenizer's own memory is many times its input's."""
    start = 0
    while start < len(text):
        newline = text.find("\n", start + _CHUNK_CHARACTERS)
        end = len(text) if newline < 0 else newline + 1
        yield text[start:end]
        start = end
