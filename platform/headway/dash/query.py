"""Filters, sorts, groups and pages the table of runs.

A query is words: `key=value` (equal, as numbers where both are), `key:value` (contains), `key>value`, `key<value`;
any other word is looked for in id, recipe, tags and state. A word after `-` must not hold; quotes hold blanks together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.dash.entries import Entry

_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_OPERATOR = re.compile(r"[=<>]")
MAX_PAGE = 500
Test = Callable[[Entry], bool]


@dataclass(frozen=True)
class Query:
    """What of the table is wanted."""

    words: str = ""
    sort: str = "-started"
    group: str = ""
    page: int = 0
    size: int = 50
    columns: tuple[str, ...] = ()
    everything: bool = False


def matching(entries: Sequence[Entry], query: Query, root: Path) -> list[Entry]:
    """Returns the entries of which every word holds, sorted; by group first, where there is one, equals by id."""
    tests = [_test(word.replace('"', ""), root) for word in _WORD.findall(query.words)]
    found = sorted((entry for entry in entries if all(test(entry) for test in tests)), key=lambda entry: entry.id)
    for column in (query.sort, query.group):
        if column:
            found = _sorted(found, column, root)
    return found


def groups(entries: Sequence[Entry], column: str, root: Path) -> list[dict[str, Any]]:
    """Returns the groups in their order: key, count, and the best metric in each."""
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        key = entry.value(column, root)
        group = found.setdefault(repr(key), {"key": key, "count": 0, "best": None})
        group["count"] += 1
        value = entry.row["metric"]
        if value is not None:
            better = max if entry.mode == "max" else min
            group["best"] = value if group["best"] is None else better(group["best"], value)
    return list(found.values())


def _sorted(entries: list[Entry], column: str, root: Path) -> list[Entry]:
    """Returns the entries by one column: numbers before text, what has no value last either way."""
    descending = column.startswith("-")
    column = column.removeprefix("-")
    having: list[tuple[tuple[int, Any], Entry]] = []
    missing = []
    for entry in entries:
        value = entry.value(column, root)
        if value is None or value == []:
            missing.append(entry)
        else:
            having.append((_place(value), entry))
    having.sort(key=lambda pair: pair[0], reverse=descending)
    return [entry for _, entry in having] + missing


def _place(value: Any) -> tuple[int, Any]:
    if isinstance(value, int | float):
        return (0, value)
    return (1, _as_text(value))


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ", ".join(map(_as_text, value)).lower()
    return str(value).lower()


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _test(word: str, root: Path) -> Test:
    if word.startswith("-") and len(word) > 1:
        inner = _test(word[1:], root)
        return lambda entry: not inner(entry)
    operator = _OPERATOR.search(word)
    if operator is not None:
        return _comparison(word[: operator.start()], operator[0], word[operator.end() :], root)
    start = len("best:") if word.startswith("best:") else 0
    colon = word.find(":", start)
    if colon > 0:
        key, wanted = word[:colon], word[colon + 1 :].lower()
        return lambda entry: (value := entry.value(key, root)) is not None and wanted in _as_text(value)
    wanted = word.lower()
    return lambda entry: any(
        wanted in _as_text(entry.row[key]) for key in ("id", "title", "recipe", "tags", "state") if entry.row[key]
    )


def _comparison(key: str, operator: str, wanted: str, root: Path) -> Test:
    number, text = _as_number(wanted), wanted.lower()

    def equal(entry: Entry) -> bool:
        value = entry.value(key, root)
        if value is None:
            return False
        if isinstance(value, list) and text in map(_as_text, value):
            return True
        found = _as_number(value)
        return found == number if found is not None and number is not None else _as_text(value) == text

    def ordered(entry: Entry) -> bool:
        found = _as_number(entry.value(key, root))
        if found is None or number is None:
            return False
        return found > number if operator == ">" else found < number

    return equal if operator == "=" else ordered
