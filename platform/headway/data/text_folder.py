"""Texts in one folder a class: your own, the packages of Python's standard library, or names by their language.

A text is cut into windows of tokens, `[CLS] window [SEP]`, and each is a sample. Whole texts are held out,
so that no sample that is judged comes from a text that was trained on; a name is held out in every language. The
packages are not part of `source: python_source` of the other kinds, nor the names of `source: names`, so that a net can
be pre-trained on text that holds none of these samples.
"""

from __future__ import annotations

import hashlib
import sysconfig
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError
from headway.config.keys import derive
from headway.data._framing import frame
from headway.data._names import LANGUAGES, names_to_tell_apart
from headway.data._splits import SplitFractions, TensorSplit
from headway.data._text_source import read_source, read_text, text_files
from headway.data._token_cache import learn_vocabulary
from headway.data._vocabulary import VocabularySetting, special_tokens

PACKAGES = ("asyncio", "email", "importlib", "multiprocessing", "unittest", "xml")


class Config(SplitFractions):
    """Configures the texts and how they are cut."""

    path: str | None = None
    """Folder with one folder a class; `source` when absent."""
    source: Literal["packages", "names"] = "packages"
    """Texts that are at hand: code of six packages of Python's standard library, or pycountry's names of countries and
    languages in six languages."""
    vocabulary: VocabularySetting = "bpe"
    """bpe: byte pairs learned from the training texts; else a tokenizer.json, or a folder or a run that has one, such
    as the one a net was pre-trained in. It has BERT's special tokens."""
    vocab_size: int = Field(default=2048, ge=261, le=1_000_000)
    """Tokens of a bpe vocabulary, four special ones included."""
    sequence_length: int = Field(default=64, ge=3)
    """Tokens of a sample, special ones included."""
    labels: PositiveInt | None = None
    """Training samples that are used, as many of each class as there are; all when absent."""

    def load(self) -> Data:
        """Returns the windows of all texts in three parts.

        Raises:
            UserError: a folder that is missing or has too few texts, or a file that is no text.
        """
        if self.path is not None:
            folder = Path(self.path).expanduser()
            names = _class_names(folder)
            parts = self._read_folders(folder, names)
        elif self.source == "packages":
            names = list(PACKAGES)
            parts = self._read_folders(Path(sysconfig.get_paths()["stdlib"]), names)
        else:
            names = list(LANGUAGES)
            parts = self._read_names()
        learned_from = "\n".join(text for _, text in parts[0])
        vocabulary = learn_vocabulary(learned_from, self.vocabulary, self.vocab_size, special=True)
        special = special_tokens(vocabulary)
        splits = []
        for part in parts:
            pieces = [frame(vocabulary.encode(text), self.sequence_length, special) for _, text in part]
            target_N = torch.tensor([label for (label, _), piece in zip(part, pieces, strict=True) for _ in piece])
            splits.append({"input": torch.cat(pieces), "target": target_N})
        splits[0] = self._limit(splits[0], len(names))
        train, validation, test = (TensorSplit(split) for split in splits)
        digest = hashlib.sha256("\0".join(f"{label}\0{text}" for part in parts for label, text in part).encode())
        return Data(
            DataSpec(
                input_kind="tokens",
                input_shape=(self.sequence_length,),
                vocab_size=vocabulary.size,
                num_classes=len(names),
                class_names=tuple(names),
            ),
            train,
            validation,
            test,
            digest.hexdigest(),
            decode=vocabulary.decode,
            reading={"vocabulary": vocabulary.to_json(), "special": special._asdict()},
        )

    def _read_folders(self, folder: Path, names: list[str]) -> list[list[_Text]]:
        """Returns the texts of the training, validation and test part, the same fractions of each class."""
        read = read_text if self.path else read_source
        parts: list[list[_Text]] = [[], [], []]
        for label, name in enumerate(names):
            files = text_files(folder / name)
            if self.path is None:
                files = [file for file in files if file.suffix == ".py" and not {"test", "tests"} & set(file.parts)]
            texts = [_Text(label, text) for text in map(read, files) if text.strip()]
            generator = torch.Generator().manual_seed(derive(self.split_seed(), "split", name))
            order = torch.randperm(len(texts), generator=generator).tolist()
            num_validation, num_test = (max(1, round(part * len(texts))) for part in (self.validation, self.test))
            num_train = len(texts) - num_validation - num_test
            if num_train < 1:
                raise UserError(
                    f"data.path: {folder / name} has {len(texts)} texts, and each part needs one; add some, or make "
                    "data.validation and data.test smaller"
                )
            for part, size in zip(parts, (num_train, num_validation, num_test), strict=True):
                part += [texts[place] for place in order[:size]]
                order = order[size:]
        return parts

    def _read_names(self) -> list[list[_Text]]:
        """Returns the names of the training, validation and test part, none in two of them."""
        names = names_to_tell_apart()
        generator = torch.Generator().manual_seed(derive(self.split_seed(), "split"))
        order = torch.randperm(len(names), generator=generator).tolist()
        num_validation, num_test = (max(1, round(part * len(names))) for part in (self.validation, self.test))
        parts: list[list[_Text]] = []
        for size in (len(names) - num_validation - num_test, num_validation, num_test):
            chosen, order = order[:size], order[size:]
            texts = [names[place].items() for place in chosen]
            parts.append([_Text(LANGUAGES.index(language), name) for items in texts for language, name in items])
        return parts

    def _limit(self, samples: dict[str, Tensor], num_classes: int) -> dict[str, Tensor]:
        """Returns the first `labels` of the training samples in an order that takes the classes in turn."""
        if self.labels is None:
            return samples
        if self.labels < num_classes:
            raise UserError(f"data.labels: {self.labels} is less than one of each of {num_classes} classes; raise it")
        target_N = samples["target"]
        generator = torch.Generator().manual_seed(derive(self.split_seed(), "labels"))
        shuffled_N = torch.randperm(len(target_N), generator=generator)
        turn_N = torch.zeros_like(target_N)
        for label in range(num_classes):
            own = shuffled_N[target_N[shuffled_N] == label]
            turn_N[own] = torch.arange(len(own)) * num_classes + label
        chosen = turn_N.argsort()[: self.labels]
        return {name: value[chosen] for name, value in samples.items()}


class _Text(NamedTuple):
    label: int
    text: str


def _class_names(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"data.path: {folder} is not there; name a folder with one folder a class")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"data.path: {folder} has {len(names)} folders, and each class needs one; two at least")
    return names
