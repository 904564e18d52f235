"""Text in one piece and its three parts: your own files, or what comes with Python.

The text is split in order, never shuffled: what is held out comes after what is trained on.
"""

from __future__ import annotations

import sysconfig
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from headway.config.contracts import DataConfig
from headway.config.errors import UserError
from headway.data._names import names_to_read

PART_NAMES = ("train", "validation", "test")


class TextSource(DataConfig):
    """A data section that reads a text."""

    path: str | None = None
    """A UTF-8 text file, or a folder whose files are read in the order of their names; `source` when absent."""
    source: Literal["python_docs", "python_source", "names"] = "python_docs"
    """Text that is at hand: Python's reference topics in English, its standard library's own code, or pycountry's names
    of countries and languages in six languages, one a line."""
    max_characters: PositiveInt | None = None
    """Characters read, from the start; all when absent."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the characters, after those of training, held out to choose by."""
    test: float = Field(default=0.1, gt=0, lt=1)
    """Fraction of the characters, the last ones, held out to report."""

    @model_validator(mode="after")
    def _leaves_training_text(self) -> TextSource:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} leave nothing to train on; "
                "their sum must be less than 1"
            )
        return self

    def parts(self, text: str) -> dict[str, str]:
        """Returns the text's parts by name, in order."""
        num_validation, num_test = (round(fraction * len(text)) for fraction in (self.validation, self.test))
        first, second = len(text) - num_validation - num_test, len(text) - num_test
        return dict(zip(PART_NAMES, (text[:first], text[first:second], text[second:]), strict=True))

    def origin(self) -> str:
        """Returns what the text is called in a message."""
        return self.path or self.source

    def read(self) -> str:
        """Returns the text, up to `max_characters`.

        Raises:
            UserError: a file that is missing or no text.
        """
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
            raise UserError(f"data.path: {self.origin()} holds no text; name a file or folder that does")
        return text

    def _pieces(self) -> Iterable[str]:
        """Returns one text a file, a topic, or a few names."""
        if self.path is not None:
            return (read_text(file) for file in text_files(Path(self.path).expanduser()))
        if self.source == "python_docs":
            from pydoc_data.topics import topics

            return (topics[name] for name in sorted(topics))
        if self.source == "names":
            return names_to_read()
        return (read_source(file) for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")))


def text_files(path: Path) -> list[Path]:
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


def read_text(path: Path) -> str:
    """Returns a file's text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {path} is no UTF-8 text (byte {error.start:,}); convert it or remove it") from None
    except OSError as error:
        raise UserError(f"data.path: {path} cannot be read ({error.strerror or error})") from None


def read_source(path: Path) -> str:
    """Returns a Python file's text in the encoding it declares."""
    with tokenize.open(path) as file:
        return file.read()
