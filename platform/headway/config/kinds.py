"""The file name is the registration: `model: {kind: gpt}` is the Config of `headway/models/gpt.py`.

A class outside the package is named `kind: their.module:TheirConfig`, and is imported only when the
command line says `--trust their.module`: importing a module runs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config.errors import UserError, suggestion
from headway.config.section import Section


@dataclass(frozen=True)
class Family:
    """A section of the recipe whose `kind:` is a file of a folder."""

    section: str
    """The recipe's section: `model`."""
    folder: str
    """The sub-package that holds one file a kind: `models`."""
    base: type[Section]
    """What every Config of the family is."""

    def names(self) -> list[str]:
        """Returns the kinds that come along, without importing one (each may import torch)."""
        folder = Path(__file__).parents[1] / self.folder
        # A file whose name starts with an underscore, and base.py, belong to the family, not to a kind.
        return sorted(
            file.stem for file in folder.glob("*.py") if file.stem != "base" and not file.stem.startswith("_")
        )


def check_kind(family: Family, tree: Any, trusted: Collection[str]) -> dict[str, Any]:
    """Returns the section as a mapping whose kind is known, without importing it.

    Raises:
        UserError: no kind, an unknown one, or one of an untrusted module.
    """
    if isinstance(tree, str):
        tree = {"kind": tree}
    if not isinstance(tree, dict):
        raise UserError(f"{family.section}: is {tree!r}; write {family.section}: {{kind: ...}}")
    kind = tree.get("kind")
    if kind is None:
        raise UserError(f"{family.section}.kind is missing; there is {', '.join(family.names())}")
    if not isinstance(kind, str):
        raise UserError(f"{family.section}.kind: should be a name (got {kind!r})")
    module, colon, class_name = kind.partition(":")
    if not colon:
        if kind not in family.names():
            raise UserError(f"{family.section}.kind: {kind!r} is not known{suggestion(kind, family.names())}")
    elif not all(part.isidentifier() for part in [*module.split("."), class_name]):
        raise UserError(f"{family.section}.kind: {kind!r} should be module:Class")
    elif not any(module == name or module.startswith(name + ".") for name in trusted):
        raise UserError(
            f"{family.section}.kind: {kind!r} is code outside headway, which importing would run; "
            f"add --trust {module} if you trust it"
        )
    return tree


def resolve_kind(family: Family, kind: str) -> type[Section]:
    """Returns the Config class of a checked kind. Imports it.

    Raises:
        UserError: a class outside headway that is not there or is no Config of this family.
    """
    module_name, colon, class_name = kind.partition(":")
    if not colon:
        module = importlib.import_module(f"headway.{family.folder}.{kind}")
        config: type[Section] = module.Config
        return config
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:
        # Importing runs the user's code, which can fail in any way.
        problem = f"{type(error).__name__}: {error}"
        raise UserError(f"{family.section}.kind: {kind!r} cannot be imported: {problem}") from None
    if not (isinstance(found, type) and issubclass(found, family.base)):
        raise UserError(f"{family.section}.kind: {kind!r} is not a {family.base.__module__}:{family.base.__name__}")
    return found
