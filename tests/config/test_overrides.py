"""One way to change a recipe."""

import pytest

from headway.config.errors import UserError
from headway.config.overrides import override, parse_assignments

pytestmark = pytest.mark.quick

TREE = {"model": {"kind": "mlp", "hidden": [3, 5]}, "strategy": "ddp", "optim": {"lr": 0.1, "schedule": "cosine"}}


def test_a_dotted_path_is_set_and_the_rest_stays():
    changed = override(TREE, {"optim.lr": 0.2})
    assert changed == {**TREE, "optim": {"lr": 0.2, "schedule": "cosine"}}


def test_the_tree_and_the_values_given_are_left_alone():
    before = {"model": {"hidden": [3]}}
    value = [5]
    changed = override(before, {"model.hidden": value, "model.kind": "mlp"})
    changed["model"]["hidden"].append(7)
    assert before == {"model": {"hidden": [3]}}
    assert value == [5]


def test_a_section_that_is_not_there_is_made():
    assert override({}, {"trainer.early_stopping.patience": 3}) == {"trainer": {"early_stopping": {"patience": 3}}}
    assert override({"init": None}, {"init.kind": "xavier"}) == {"init": {"kind": "xavier"}}


def test_a_section_in_short_is_its_kind():
    assert override(TREE, {"strategy.stage": 3})["strategy"] == {"kind": "ddp", "stage": 3}
    assert override(TREE, {"optim.schedule.final": 0.1})["optim"]["schedule"] == {"kind": "cosine", "final": 0.1}


def test_a_whole_section_is_replaced_and_later_changes_come_on_top():
    changed = override(TREE, {"model": "gpt", "model.width": 11})
    assert changed["model"] == {"kind": "gpt", "width": 11}


@pytest.mark.parametrize("path", ["", ".", "optim.", ".lr", "optim..lr"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UserError, match=r"is not a dotted path; write section\.key=value"):
        override(TREE, {path: 1})


def test_a_path_through_a_value_without_parts_is_refused():
    with pytest.raises(UserError, match=r"^optim\.lr\.peak: lr is 0\.1 and has no part peak$"):
        override(TREE, {"optim.lr.peak": 1})
    with pytest.raises(UserError, match=r"^model\.hidden\.0: hidden is \[3, 5\] and has no part 0$"):
        override(TREE, {"model.hidden.0": 1})


def test_values_on_the_command_line_are_yaml():
    given = ["optim.lr=3e-4", "model.hidden=[3, 5]", "trainer.compile=true", "track.notes=a=b", "init=", " name = x "]
    assert parse_assignments(given) == {
        "optim.lr": 3e-4,
        "model.hidden": [3, 5],
        "trainer.compile": True,
        "track.notes": "a=b",
        "init": None,
        "name": "x",
    }


def test_an_argument_that_is_no_assignment_is_refused():
    with pytest.raises(UserError, match=r"^'optim\.lr' is not a change; write section\.key=value"):
        parse_assignments(["optim.lr"])


def test_a_value_that_is_no_yaml_is_named_by_its_path():
    with pytest.raises(UserError, match=r"^model\.hidden: line 1: "):
        parse_assignments(["model.hidden=[3"])
