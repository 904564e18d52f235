"""Reads a recipe's YAML the way its author meant it.

PyYAML follows YAML 1.1: `1e-3` is a string, `no` is False, `010` is 8, the last of two equal keys
silently wins, and a few hundred bytes of nested aliases expand to a billion values. Here the
scalars are those of the YAML 1.2 core schema, with floats as people write them; repeated keys and
other tags than the core's are an error, and size, nesting and aliases have caps.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headway.config.errors import UserError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
MAX_VALUES = 20_000
MAX_ALIASES = 50

Tree = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """A safe loader with the scalars of YAML 1.2, no repeated keys and no tags besides the core's."""


# libyaml's is four times as fast, where PyYAML was built with it, and writes the same.
class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Quotes what either YAML would take for a number, a bool or a null; writes values out, without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
_Loader.yaml_constructors = {}
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
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _construct_bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    text = str(loader.construct_scalar(node))
    if text.lower() not in ("true", "false"):
        raise yaml.constructor.ConstructorError(None, None, f"{text!r} is neither true nor false", node.start_mark)
    return text.lower() == "true"


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    if len(text) > 40:
        raise yaml.constructor.ConstructorError(None, None, "a number of more than 40 digits", node.start_mark)
    return int(text, 10)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = str(loader.construct_scalar(node)).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


def _construct_list(loader: _Loader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "what is tagged a list is none", node.start_mark)
    return [loader.construct_object(item, deep=True) for item in node.value]


def _construct_map(loader: _Loader, node: yaml.Node) -> Tree:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.constructor.ConstructorError(None, None, "what is tagged a mapping is none", node.start_mark)
    seen: Tree = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is not a name", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key} stands twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


def _refuse_tag(_: _Loader, node: yaml.Node) -> None:
    name = node.tag.replace("tag:yaml.org,2002:", "!!")
    raise yaml.constructor.ConstructorError(None, None, f"the tag {name} is not known; leave it out", node.start_mark)


for _tag, _construct in {
    "null": _Loader.construct_yaml_null,
    "bool": _construct_bool,
    "int": _construct_int,
    "float": _construct_float,
    "str": _Loader.construct_yaml_str,
    "seq": _construct_list,
    "map": _construct_map,
}.items():
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _construct)
_Loader.add_constructor(None, _refuse_tag)


def read_file(path: Path) -> Tree:
    """Returns the mapping in a YAML file.

    Raises:
        UserError: the file cannot be read or is not a mapping; the line says where.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    _check_size(len(raw), str(path))
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
    # What is no UTF-8 on a command line arrives as lone surrogates, which YAML refuses below.
    _check_size(len(text.encode("utf-8", "surrogatepass")), source)
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


def dump(tree: Tree) -> str:
    """Returns YAML that `read_text` reads back to an equal tree, and other YAML readers too."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _check_size(num_bytes: int, source: str) -> None:
    if num_bytes > MAX_BYTES:
        raise UserError(f"{source}: is larger than {MAX_BYTES // 1024} KiB; a recipe is one page")


class _Open(NamedTuple):
    """A collection that the parser is inside of."""

    anchor: str | None
    values_before: int
    heights: list[int]
    """Nesting of what it has held so far, each alias as what it stands for."""


def _check_caps(text: str, source: str) -> None:
    """Counts values and nesting with every alias written out, before anything is built."""
    values = aliases = 0
    anchored: dict[str | None, tuple[int, int]] = {}
    inside = [_Open(None, 0, [])]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size, height = 0, 0
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append(_Open(event.anchor, values, []))
            size = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = inside.pop()
            height = 1 + max(closed.heights, default=0)
            anchored[closed.anchor] = (values - closed.values_before, height)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            anchored[event.anchor] = (1, 0)
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            size, height = anchored.get(event.anchor, (1, 0))
        values += size
        inside[-1].heights.append(height)
        if len(inside) - 1 + height > MAX_DEPTH:
            raise UserError(f"{source}: is nested more than {MAX_DEPTH} deep")
        if aliases > MAX_ALIASES:
            raise UserError(f"{source}: has more than {MAX_ALIASES} aliases; write the values out")
        if values > MAX_VALUES:
            raise UserError(f"{source}: has more than {MAX_VALUES:,} values; a recipe is one page")
