"""Reads a recipe's YAML the way its author meant it.

PyYAML follows YAML 1.1: `1e-3` is a string, `no` is False, `010` is 8, the last of two equal keys
silently wins, and a few hundred bytes of nested aliases expand to a billion values. Here the
scalars are those of the YAML 1.2 core schema, with floats as people write them; repeated keys are
an error, and size, nesting and aliases have caps.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from headway.config.errors import UserError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 20_000
MAX_ALIASES = 50

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2 and no repeated keys."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in [
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
]:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 40:
        raise yaml.constructor.ConstructorError(None, None, "a number of more than 40 digits", node.start_mark)
    return int(text, 10)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


def _construct_map(loader: _Loader, node: yaml.MappingNode) -> Tree:
    seen: Tree = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)


def read_file(path: Path) -> Tree:
    """Returns the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read or is not a mapping; the line says where.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; a recipe is a YAML file") from None
    tree = read_text(text, source=str(path))
    if not isinstance(tree, dict):
        found = "is empty" if tree is None else f"holds a {type(tree).__name__}"
        raise UserError(f"{path}: {found}; a recipe is a mapping of sections such as model: and data:")
    return tree


def read_text(text: str, *, source: str) -> Any:
    """Returns the value of a YAML text; `source` names it in errors.

    Raises:
        UserError: with the place in the text and what to do.
    """
    if len(text.encode()) > MAX_BYTES:
        raise UserError(f"{source}: is larger than {MAX_BYTES // 1024} KiB; a recipe is one page")
    try:
        _check_caps(text, source)
        # The loader is a SafeLoader: it constructs plain values only.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" line {mark.line + 1}:" if mark is not None else ""
        raise UserError(f"{source}:{where} {error.problem or error.context or 'not valid YAML'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = str(error).splitlines()
        raise UserError(f"{source}: not valid YAML: {problem[0] if problem else type(error).__name__}") from None


def _check_caps(text: str, source: str) -> None:
    depth = aliases = 0
    for values, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader), start=1):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
        if depth > MAX_DEPTH:
            raise UserError(f"{source}: is nested more than {MAX_DEPTH} deep")
        if aliases > MAX_ALIASES or (aliases and values > MAX_VALUES):
            raise UserError(f"{source}: has more than {MAX_ALIASES} aliases; write the values out")
        if values > MAX_VALUES:
            raise UserError(f"{source}: has more than {MAX_VALUES:,} values; a recipe is one page")
