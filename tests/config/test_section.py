"""One line for every problem of a section, with the path, the value and the nearest name."""

from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError, model_validator

from headway.config.errors import UserError
from headway.config.section import Section, validate_section

pytestmark = pytest.mark.quick


class Inner(Section):
    patience: PositiveInt
    """How long to wait."""
    delta: float = 0.0


class Outer(Section):
    lr: float = Field(gt=0)
    """Peak rate."""
    steps: PositiveInt | Literal["auto"] = "auto"
    maybe: PositiveInt | None = None
    inner: Inner | None = None
    sizes: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] = (2, 3)
    mode: Literal["min", "max"] = "min"
    flag: bool = False
    many: dict[str, Inner] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _sound(self):
        if self.lr > 100:
            raise ValueError("lr is far too large; lower it")
        return self


def problem(tree, path="optim"):
    with pytest.raises(UserError) as caught:
        validate_section(Outer, tree, path=path)
    return str(caught.value)


def test_a_sound_tree_becomes_a_frozen_section():
    section = validate_section(Outer, {"lr": 1, "sizes": [5, 7]}, path="optim")
    assert section.lr == 1.0
    assert section.sizes == (5, 7)
    with pytest.raises(ValidationError):
        section.lr = 2.0


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({"lr": 1, "lrr": 1}, "optim.lrr is not known; did you mean optim.lr?"),
        (
            {"lr": 1, "inner": {"patience": 3, "detla": 1}},
            "optim.inner.detla is not known; did you mean optim.inner.delta?",
        ),
        ({}, "optim.lr is missing: Peak rate"),
        ({"lr": 1, "inner": {}}, "optim.inner.patience is missing"),
        ({"lr": -1}, "optim.lr: input should be greater than 0 (got -1)"),
        ({"lr": "fast"}, "optim.lr: input should be a valid number (got 'fast')"),
        ({"lr": True}, "optim.lr: input should be a valid number (got True)"),
        ({"lr": float("nan")}, "optim.lr: input should be a finite number (got nan)"),
        ({"lr": 1, "maybe": 0}, "optim.maybe: input should be greater than 0 (got 0)"),
        ({"lr": 1, "maybe": 1.0}, "optim.maybe: input should be a valid integer (got 1.0)"),
        ({"lr": 1, "steps": 0}, "optim.steps: input should be greater than 0 or 'auto' (got 0)"),
        ({"lr": 1, "inner": 3}, "optim.inner: should be a mapping with patience, delta (got 3)"),
        (
            {"lr": 1, "many": {"a.b": {"patience": 0}}},
            "optim.many.a.b.patience: input should be greater than 0 (got 0)",
        ),
        ({"lr": 1, "many": {"a.b": 3}}, "optim.many.a.b: should be a mapping with patience, delta (got 3)"),
        ({"lr": 1, "sizes": [5, 0]}, "optim.sizes.1: input should be greater than 0 (got 0)"),
        ({"lr": 1, "mode": "mim"}, "optim.mode: input should be 'min' or 'max' (got 'mim')"),
        ({"lr": 1, "flag": 1}, "optim.flag: input should be a valid boolean (got 1)"),
        ({"lr": 101}, "optim: lr is far too large; lower it"),
        ({"lr": "x" * 99}, "optim.lr: input should be a valid number (got '" + "x" * 56 + "...)"),
        (3, "optim: is 3; it should be a mapping with lr, steps, maybe, inner"),
        ([], "optim: is []; it should be a mapping with lr, steps, maybe, inner"),
    ],
)
def test_a_problem_is_one_line_with_path_and_value(tree, line):
    assert problem(tree) == line


def test_an_unknown_name_that_is_near_to_none_lists_what_there_is():
    line = problem({"lr": 1, "zzz": 1})
    assert line == "optim.zzz is not known; there is flag, inner, lr, many, maybe, mode, sizes, steps"


def test_several_problems_stand_on_one_line():
    line = problem({"lr": -1, "flag": 2, "moed": "min"})
    assert line == (
        "optim.lr: input should be greater than 0 (got -1); optim.flag: input should be a valid boolean (got 2); "
        "optim.moed is not known; did you mean optim.mode?"
    )


def test_more_problems_than_four_are_counted():
    line = problem({"lr": -1, "flag": 2, "mode": 3, "maybe": 0, "steps": 0, "nope": 1})
    assert line.count(";") >= 4
    assert line.endswith("; and 2 more")


def test_a_problem_without_a_path_names_its_field():
    assert problem({"lr": -1}, path="") == "lr: input should be greater than 0 (got -1)"


def test_a_message_of_several_lines_is_one():
    assert str(UserError("one\n  two\r\n\tthree\u2028four")) == "one two three four"
