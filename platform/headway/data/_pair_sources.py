"""Where pairs of sentences come from: names that pycountry translates, the Debian handbook, a file of yours.

Every source is a list of pairs in an order of its own. What is not translated, where both sides are the same text, is
left out, and so is a pair that is there already.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from headway.config.errors import UserError
from headway.data._names import english_names, translate_names
from headway.data._store import DATASETS, dataset_folder, find_dataset

Pair = tuple[str, str]
Languages = tuple[str, str]

_HANDBOOK = "debian_handbook"
_MORE_WORDS_THAN = 3
"""Shorter paragraphs of the handbook are names of commands and headings of boxes."""


def read_names(languages: Languages) -> list[Pair]:
    """Returns names of countries, languages, currencies and scripts in two languages.

    Raises:
        UserError: pycountry is not installed, or lacks a language.
    """
    english = english_names()
    return _distinct(zip(*(translate_names(english, language) for language in languages), strict=True))


def read_handbook(languages: Languages, folder: str | None) -> list[Pair]:
    """Returns the paragraphs of the Debian Administrator's Handbook in two languages.

    Raises:
        UserError: it is not here, or has no such language.
    """
    place = dataset_folder(folder, default=_HANDBOOK) if folder else find_dataset(_HANDBOOK)
    if place is None:
        raise UserError(
            "data.source: the handbook is not here; run headway data fetch debian_handbook, or install the Debian "
            f"package {DATASETS[_HANDBOOK].package}"
        )
    if not (place / "en-US").is_dir():
        raise UserError(f"data.folder: {place} has no en-US; name the folder that has the handbook's languages")
    english_place, *places = (_language_folder(place, language) for language in ("en", *languages))
    pairs: list[tuple[str | None, str | None]] = []
    for page in sorted(english_place.glob("*.html")):
        english = paragraphs(page)
        sides = [paragraphs(other) if (other := folder / page.name).is_file() else [] for folder in places]
        if any(len(side) != len(english) for side in sides):
            continue
        for original, *both in zip(english, *sides, strict=True):
            if len(original.split()) > _MORE_WORDS_THAN:
                # In another language the English text stands where nobody has translated it yet.
                one, two = (
                    text if text and (text != original or folder == english_place) else None
                    for text, folder in zip(both, places, strict=True)
                )
                pairs.append((one, two))
    return _distinct(pairs)


def _language_folder(place: Path, language: str) -> Path:
    """Returns the folder of `fr`, `fr-FR` or `pt-BR`."""
    known = sorted(path.name for path in place.iterdir() if path.is_dir())
    code = "en-US" if language == "en" else language
    fitting = [name for name in known if name == code or name.startswith(f"{code}-")]
    if len(fitting) != 1:
        either = f"is {' or '.join(fitting)}; name one" if fitting else f"is not one of {', '.join(known)}"
        raise UserError(f"data.languages: {language} {either}")
    return place / fitting[0]


_DROPPED = re.compile(r"<(script|style|pre)\b.*?</\1>", re.DOTALL)
_PARAGRAPH = re.compile(r'<(?:div class="para"|p\b|h[1-4]\b)[^>]*>(.*?)</(?:div|p|h[1-4])>', re.DOTALL)
_TAG = re.compile(r"<[^>]+>")


def paragraphs(page: Path) -> list[str]:
    """Returns the text of a page's paragraphs and headings in order, without code."""
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{page}: cannot be read ({error}); fetch the handbook again") from None
    found = _PARAGRAPH.findall(_DROPPED.sub("", text))
    return [" ".join(html.unescape(_TAG.sub("", paragraph)).split()) for paragraph in found]


def read_file(path: Path) -> list[Pair]:
    """Returns the pairs of a UTF-8 file: a line each, source and target with a tab between them.

    Raises:
        UserError: a file that is missing or no text, or a line without two sentences.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return _distinct(list(_read_lines(file, path)), same=True)
    except UnicodeDecodeError as error:
        raise UserError(f"data.path: {path} is no UTF-8 text (byte {error.start:,}); convert it") from None
    except OSError as error:
        raise UserError(
            f"data.path: {path} cannot be read ({error.strerror or error}); name a file of tab-separated pairs"
        ) from None


def _read_lines(lines: Iterable[str], path: Path) -> Iterator[Pair]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        # Whatever follows the two, as the names of those who wrote them, is not read.
        source, _, rest = line.rstrip("\r\n").partition("\t")
        pair = source.strip(), rest.partition("\t")[0].strip()
        if not all(pair):
            raise UserError(f"data.path: {path} line {number} is not two sentences with a tab between them")
        yield pair


def _distinct(pairs: Iterable[tuple[str | None, str | None]], *, same: bool = False) -> list[Pair]:
    """Returns the pairs that are whole, each once; with the two sides alike only where `same` allows it."""
    whole = ((one, two) for one, two in pairs if one and two and (same or one != two))
    return list(dict.fromkeys(whole))
