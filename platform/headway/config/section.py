"""Sections: the frozen, validated values that a recipe is made of."""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

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
        # A field of several types (`PositiveInt | Literal["auto"]`) has a problem for each of them: one place.
        places: dict[tuple[str, ...], list[ErrorDetails]] = {}
        for details in error.errors(include_url=False):
            places.setdefault(_place(cls, details["loc"]), []).append(details)
        problems = [_describe(cls, path, list(place), found) for place, found in places.items()]
        raise UserError(_one_line(problems)) from None


def _one_line(problems: Sequence[str]) -> str:
    return (
        problems[0]
        if len(problems) == 1
        else "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" if len(problems) > 4 else "")
    )


def _place(cls: type[Section], location: Sequence[int | str]) -> tuple[str, ...]:
    """Returns a problem's location without the names that pydantic has for the types of a union."""
    place: list[str] = []
    inner: Any = cls
    for part in location:
        if get_origin(_bare(inner)) in (Union, UnionType):
            break
        place.append(str(part))
        inner = _inside(inner, str(part))
    return tuple(place)


def _describe(cls: type[Section], path: str, location: list[str], found: Sequence[ErrorDetails]) -> str:
    details = found[0]
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
    if details["type"] in ("model_type", "model_attributes_type"):
        names = ", ".join(_fields_at(cls, location)[:4])
        return f"{dotted}: should be a mapping with {names} (got {_short(details['input'])})"
    others = [f" or {other['msg'].removeprefix('Input should be ')}" for other in found[1:]]
    return f"{dotted}: {message[0].lower()}{message[1:]}{''.join(others)} (got {_short(details['input'])})"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _purpose(cls: type[Section], location: list[str]) -> str:
    field = cls.model_fields.get(location[0]) if len(location) == 1 else None
    return f": {field.description.rstrip('.')}" if field is not None and field.description else ""


def _fields_at(cls: type[Section], location: list[str]) -> list[str]:
    """Returns the names that are known at a place inside a section."""
    inner: Any = cls
    for part in location:
        inner = _inside(inner, part)
    bare = _bare(inner)
    return list(bare.model_fields) if isinstance(bare, type) and issubclass(bare, Section) else []


def _inside(annotation: Any, part: str) -> Any:
    """Returns the type of a field of a section, or of an entry of a mapping of sections."""
    bare = _bare(annotation)
    if isinstance(bare, type) and issubclass(bare, Section):
        field = bare.model_fields.get(part)
        return field.annotation if field is not None else None
    return _section_in(bare)


def _bare(annotation: Any) -> Any:
    """Returns the type that is left of `X | None`."""
    options = [option for option in get_args(annotation) if option is not type(None)]
    return options[0] if get_origin(annotation) in (Union, UnionType) and len(options) == 1 else annotation


def _section_in(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None
