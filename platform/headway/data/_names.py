"""Names of countries, languages, currencies and scripts in dozens of languages, as pycountry has them.

Pairs of them are translated; in six languages they are text to read, and to tell the language of. A name that is read
in one language is among those to tell apart in none.
"""

from __future__ import annotations

import gettext
import hashlib
from collections import Counter
from pathlib import Path

from headway.config.errors import UserError

Name = tuple[str, str]
"""A catalogue of pycountry's and the English name in it."""

LANGUAGES = ("de", "fi", "fr", "it", "pl", "sv")
"""Those that are read and told apart: languages with many names, of which no two are close."""
_READ_SHARE = 0.6
_LINES_IN_A_ROW = 20

_FIELDS = {
    "iso3166-1": ("countries", ("name", "official_name", "common_name")),
    "iso3166-3": ("historic_countries", ("name",)),
    "iso639-3": ("languages", ("name",)),
    "iso639-5": ("language_families", ("name",)),
    "iso4217": ("currencies", ("name",)),
    "iso15924": ("scripts", ("name",)),
}
"""By pycountry's catalogue of translations. Its regions are left out: their names are not English."""


def english_names() -> list[Name]:
    """Returns the names there are, each once.

    Raises:
        UserError: pycountry is not installed.
    """
    try:
        import pycountry
    except ImportError:
        raise UserError(
            "data.source: names needs pycountry, which is not here; run pip install 'headway[translation]'"
        ) from None
    names: list[Name] = []
    for catalogue, (database, fields) in _FIELDS.items():
        for entry in getattr(pycountry, database):
            names += [(catalogue, value) for field in fields if (value := getattr(entry, field, None))]
    return list(dict.fromkeys(names))


def translate_names(names: list[Name], language: str) -> list[str | None]:
    """Returns each name in a language, None where it has no translation of its own.

    Raises:
        UserError: pycountry lacks the language.
    """
    import pycountry

    if language == "en":
        return [name for _, name in names]
    folder, code = Path(pycountry.LOCALES_DIR), language.replace("-", "_")
    if not (folder / code / "LC_MESSAGES").is_dir():
        raise UserError(
            f"data.languages: {language} is not a language of pycountry's; de, fr, it and nl have the most names"
        )
    translations = {
        catalogue: gettext.translation(catalogue, folder, languages=[code], fallback=True) for catalogue in _FIELDS
    }
    translated = ((name, translations[catalogue].gettext(name)) for catalogue, name in names)
    return [other if other != name else None for name, other in translated]


def names_to_read() -> list[str]:
    """Returns texts of up to twenty names, a line each, every text in one language and the languages mixed."""
    names = [name for name in english_names() if _is_read(name)]
    texts = []
    for language in LANGUAGES:
        known = [name for name in translate_names(names, language) if name]
        starts = range(0, len(known), _LINES_IN_A_ROW)
        texts += ["\n".join(known[start : start + _LINES_IN_A_ROW]) for start in starts]
    return sorted(texts, key=_digest)


def names_to_tell_apart() -> list[dict[str, str]]:
    """Returns names by language; what is spelled alike in two places, in one language or in two, is left out."""
    names = [name for name in english_names() if not _is_read(name)]
    columns = [translate_names(names, language) for language in LANGUAGES]
    how_often = Counter(name for column in columns for name in column)
    told = (
        {language: name for language, name in zip(LANGUAGES, row, strict=True) if name and how_often[name] == 1}
        for row in zip(*columns, strict=True)
    )
    return [by_language for by_language in told if by_language]


def _is_read(name: Name) -> bool:
    # By the name alone: it is the same in another version of pycountry, whatever else that has.
    return int(_digest(name[1])[:8], 16) < _READ_SHARE * 16**8


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
