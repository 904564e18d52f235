"""Sections: the frozen, validated values that a recipe is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from headway.config.errors import UserError, suggestion

S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """A part of a recipe. Unknown keys are refused; a string under a field is its description."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )


class Kind(Section):
    """A section with a `kind:` that picks the class and so what can be built from it."""

    kind: str = Field(min_length=1)
    """Which file of the family's folder this section configures, or `module:Class` of your own."""


def validate_section(cls: type[S], tree: Any, *, path: str) -> S:
    """Returns the section built from a tree.

    Raises:
        UserError: one line with every problem, each with its dotted path and value.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{path}: is {tree!r}; it should be a mapping with {', '.join(list(cls.model_fields)[:4])}")
    try:
        return cls.model_validate(tree)
    except ValidationError as error:
        problems = [_describe(cls, path, details) for details in error.errors(include_url=False)]
        raise UserError(_one_line(problems)) from None


def _one_line(problems: Sequence[str]) -> str:
    return (
        problems[0]
        if len(problems) == 1
        else "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
    )


def _describe(cls: type[Section], path: str, details: ErrorDetails) -> str:
    location = [str(part) for part in details["loc"]]
    dotted = ".".join([path, *location]) if path else ".".join(location)
    if details["type"] == "extra_forbidden":
        known = _fields_at(cls, location[:-1])
        parent = dotted.rpartition(".")[0]
        hint = suggestion(location[-1], known)
        if parent and hint.startswith("; did you mean "):
            hint = hint.replace("did you mean ", f"did you mean {parent}.")
        return f"{dotted} is not known{hint}"
    if details["type"] == "missing":
        return f"{dotted} is missing{_purpose(cls, location)}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if details["type"] == "value_error":
        return f"{dotted}: {message}" if location else f"{path}: {message}"
    return f"{dotted}: {message[0].lower()}{message[1:]} (got {_short(details['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _purpose(cls: type[Section], location: list[str]) -> str:
    field = cls.model_fields.get(location[0]) if len(location) == 1 else None
    return f": {field.description.rstrip('.')}" if field is not None and field.description else ""


def _fields_at(cls: type[Section], location: list[str]) -> list[str]:
    """Returns the names that are known at a place inside a section."""
    for part in location:
        field = cls.model_fields.get(part)
        inner = _section_in(field.annotation) if field is not None else None
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
