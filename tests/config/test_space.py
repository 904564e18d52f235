"""What a sweep may vary."""

import math

import pytest

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.config.space import Distribution, SweepSection

pytestmark = pytest.mark.quick

SPACE = {"optim.lr": {"loguniform": [1e-4, 1e-1]}}


def sweep(**settings):
    return validate_section(SweepSection, {"trials": 3, "space": SPACE, **settings}, path="sweep")


def problem(**settings):
    with pytest.raises(UserError) as caught:
        sweep(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("way", "line"),
    [
        ({}, "has nothing; give one of choice, uniform, loguniform, randint"),
        ({"quniform": [0, 1, 0]}, "quniform is [0.0, 1.0, 0.0]; q, the last, should be above 0 and at most high - low"),
        ({"quniform": [0, 1, 2]}, "quniform is [0.0, 1.0, 2.0]; q, the last, should be above 0 and at most high - low"),
        ({"lograndint": [0, 8]}, "lograndint is [0, 8]; low should be above 0"),
        ({"qloguniform": [0, 1, 0.1]}, "qloguniform is [0.0, 1.0, 0.1]; low should be above 0"),
        ({"uniform": [0, 1], "choice": [2]}, "has choice, uniform; give one of"),
        ({"choice": []}, "choice is empty; list the values to try"),
        ({"choice": 3}, "choice: input should be a valid list"),
        ({"uniform": [1, 1]}, "uniform is [1.0, 1.0]; low should be less than high"),
        ({"uniform": [2, 1]}, "uniform is [2.0, 1.0]; low should be less than high"),
        ({"uniform": [1]}, "uniform.1 is missing"),
        ({"uniform": [1, 2, 3]}, "uniform: tuple should have at most 2 items"),
        ({"uniform": ["0", 1]}, "uniform.0: input should be a valid number (got '0')"),
        ({"uniform": [0, math.inf]}, "uniform.1: input should be a finite number (got inf)"),
        ({"loguniform": [0, 1]}, "loguniform is [0.0, 1.0]; low should be above 0"),
        ({"loguniform": [-1, 1]}, "loguniform is [-1.0, 1.0]; low should be above 0"),
        ({"randint": [3, 3]}, "randint is [3, 3]; low should be less than high"),
        ({"randint": [0, 1.5]}, "randint.1: input should be a valid integer (got 1.5)"),
        ({"unifrom": [0, 1]}, "unifrom is not known; did you mean sweep.space.optim.lr.uniform?"),
        ({"uniform": None}, "has nothing; give one of choice"),
    ],
)
def test_a_wrong_distribution_is_answered_with_what_to_write(way, line):
    found = problem(space={"optim.lr": way})
    assert found.startswith("sweep.space.optim.lr")
    assert line in found


@pytest.mark.parametrize(
    ("way", "extremes"),
    [
        ({"choice": [3, "a", None]}, [3, "a", None]),
        ({"randint": [2, 7]}, [2, 6]),
        ({"uniform": [0.5, 2]}, [0.5, math.nextafter(2.0, 0)]),
        ({"uniform": [-2, 0]}, [-2.0, math.nextafter(0.0, -1)]),
        ({"loguniform": [1e-4, 0.1]}, [1e-4, math.nextafter(0.1, 0)]),
    ],
)
def test_the_extremes_are_what_a_recipe_must_accept(way, extremes):
    assert Distribution(**way).extremes() == extremes


def test_a_scheduler_can_be_named_in_short():
    assert sweep(scheduler="asha").scheduler.kind == "asha"
    assert sweep(scheduler={"kind": "asha", "reduction": 5}).scheduler.reduction == 5
    assert (
        "sweep.scheduler.kind: input should be 'fifo', 'asha', 'hyperband', 'median', 'pbt' or 'pb2' (got 'ashaa')"
        in problem(scheduler="ashaa")
    )


def test_a_grid_needs_values():
    assert sweep(searcher="grid", space={"optim.lr": {"choice": [1, 2]}}).searcher == "grid"
    assert (
        problem(searcher="grid") == "sweep: searcher is grid, but optim.lr is no choice; list its values or use random"
    )


def test_a_space_without_a_path_is_refused():
    assert problem(space={}).startswith("sweep.space: dictionary should have at least 1 item")
