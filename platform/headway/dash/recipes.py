"""A run's recipe as dotted values, quickly.

headway writes recipes with one dumper, so that nearly every line is `key: scalar`, `key:` or `- scalar`, and lines
repeat from run to run. What is plainly so is read line by line, each distinct line once; anything else
(text over several lines, flow style, anchors, a foreign hand) goes to `config.reading`, which knows all of YAML
and has its caps.
"""

from __future__ import annotations

import re
import sys
from functools import lru_cache
from typing import Any, NamedTuple

from headway.config.errors import UserError
from headway.config.reading import read_text

_LINE = re.compile(r"( *)(?:(- )|([A-Za-z0-9_./-]+):(?: |$))(.*)")
_PLAIN = re.compile(r"[A-Za-z0-9_./+-][A-Za-z0-9_./+ -]*")
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"- |---|\.|[-+]\.")
"""Starts of what looks like a plain word and is none: an item, a document's start, an infinity."""
_WORDS: dict[str, Any] = {
    "null": None, "~": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False, "{}": {}, "[]": [],
}  # fmt: skip
_OPEN = object()
"""The value of `key:`, whose content follows."""


class Config(NamedTuple):
    """Dotted names and values; runs of one shape share the names."""

    names: dict[str, int]
    values: tuple[Any, ...]

    def get(self, name: str) -> Any:
        """Returns a value; None where there is no such name."""
        place = self.names.get(name)
        return None if place is None else self.values[place]

    def has(self, name: str) -> bool:
        """Returns whether the recipe has a name."""
        return name in self.names

    def as_dict(self) -> dict[str, Any]:
        """Returns all of it."""
        return dict(zip(self.names, self.values, strict=True))


class _Strange(Exception):
    """A text that is not for the quick way."""


class _Read(NamedTuple):
    indent: int
    key: str | None
    """None for an item of a list."""
    value: Any


_shapes: dict[tuple[str, ...], dict[str, int]] = {}


def read_config(text: str, *, source: str) -> Config:
    """Returns a recipe's dotted values.

    Raises:
        UserError: it is not YAML, or no mapping; the line says where.
    """
    try:
        found = _quickly(text)
    except _Strange:
        tree = read_text(text, source=source)
        if not isinstance(tree, dict):
            raise UserError(f"{source}: is no recipe: it holds no sections") from None
        found = {}
        _flatten(tree, "", found)
    return shared_config(found)


def shared_config(found: dict[str, Any]) -> Config:
    """Returns dotted values, which share their names with others of the same shape."""
    key = tuple(found)
    names = _shapes.get(key)
    if names is None:
        if len(_shapes) > 4096:
            _shapes.clear()
        names = _shapes[key] = {sys.intern(name): place for place, name in enumerate(found)}
    return Config(names, tuple(found.values()))


def _flatten(tree: dict[str, Any], prefix: str, into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            _flatten(value, f"{prefix}{key}.", into)
        else:
            into[f"{prefix}{key}"] = value


def _quickly(text: str) -> dict[str, Any]:
    """Returns the dotted values of a text as headway writes it."""
    found: dict[str, Any] = {}
    path: list[tuple[int, str]] = []
    items: list[Any] | None = None
    items_indent = 0
    waiting: tuple[int, str] | None = None
    for line in text.split("\n"):
        if not line:
            continue
        indent, key, value = _read_line(line)
        if key is None:
            # `- x` stands under its key, at the key's own indent.
            if waiting is not None and indent == waiting[0]:
                items = found[waiting[1]] = []
                waiting = None
            elif items is None or indent != items_indent:
                raise _Strange
            items_indent = indent
            items.append(value)
            continue
        items = None
        if waiting is not None:
            if indent != waiting[0] + 2:
                # A key without content is null.
                found[waiting[1]] = None
                if indent > waiting[0]:
                    raise _Strange
            waiting = None
        while path and path[-1][0] >= indent:
            path.pop()
        if indent != 2 * len(path):
            raise _Strange
        dotted = f"{path[-1][1]}.{key}" if path else key
        if dotted in found:
            raise _Strange
        if value is _OPEN:
            waiting = (indent, dotted)
            path.append((indent, dotted))
        else:
            found[dotted] = value
    if waiting is not None:
        found[waiting[1]] = None
    if not found:
        raise _Strange
    return found


@lru_cache(maxsize=50_000)
def _read_line(line: str) -> _Read:
    match = _LINE.fullmatch(line)
    if match is None or len(line) > 300:
        raise _Strange
    indent, item, key, rest = match.groups()
    if item is None:
        return _Read(len(indent), sys.intern(key), _OPEN if rest == "" else _scalar(rest))
    return _Read(len(indent), None, _scalar(rest))


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == "'" and text[-1] == "'" and len(text) > 1 and "'" not in text[1:-1]:
        return text[1:-1]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _PLAIN.fullmatch(text) and text[-1] not in " -" and not _SPECIAL.match(text):
        return sys.intern(text)
    raise _Strange
