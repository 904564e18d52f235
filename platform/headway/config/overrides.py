"""The one way to change a recipe: the command line, a sweep's sample and a test all come here."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from headway.config.errors import UserError
from headway.config.reading import Tree, read_text


def override(tree: Tree, changes: Mapping[str, Any]) -> Tree:
    """Returns a copy of a recipe's tree with dotted paths set: `{"optim.lr": 0.1}`.

    A section written in short (`strategy: ddp`, `schedule: cosine`) is its `kind`, so
    `strategy.stage` can be set beside it. Whether a path exists is the validation's to say: it
    knows every name.

    Raises:
        UserError: a path that runs through a value that has no parts.
    """
    changed = copy.deepcopy(tree)
    for path, value in changes.items():
        *sections, last = path.split(".")
        if not all([*sections, last]):
            raise UserError(f"{path!r} is not a dotted path; write section.key=value, such as optim.lr=3e-4")
        here = changed
        for section in sections:
            inner = here.get(section)
            if inner is None:
                inner = {}
            elif isinstance(inner, str):
                inner = {"kind": inner}
            elif not isinstance(inner, dict):
                raise UserError(f"{path}: {section} is {inner!r} and has no part {path.rpartition('.')[2]}")
            here[section] = inner
            here = inner
        here[last] = copy.deepcopy(value)
    return changed


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Returns `{"optim.lr": 0.1}` for `["optim.lr=0.1"]`; values are YAML.

    Raises:
        UserError: an argument that is no assignment, or a value that is no YAML.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        if not equals:
            raise UserError(f"{assignment!r} is not a change; write section.key=value, such as optim.lr=3e-4")
        changes[path.strip()] = read_text(value, source=path.strip())
    return changes


def flatten(tree: Tree, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yields a tree's values with their dotted names."""
    for key, value in tree.items():
        if isinstance(value, dict) and value and not (prefix == "sweep." and key == "space"):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
