"""What a sweep refuses, each in one line and before anything starts."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headway.config.errors import UserError
from headway.config.space import Distribution, SweepSection
from headway.recipe import load_recipe
from headway.sweep import sweep
from headway.sweep.check import check_space, check_sweep
from headway.sweep.result import Trial, assignment, best_trial, ranked, refit_command

RECIPE: dict[str, Any] = {
    "model": {"kind": "mlp", "hidden": [7], "dropout": 0.1},
    "data": {"kind": "digits"},
    "init": {"kind": "kaiming"},
    "optim": {"kind": "sgd", "lr": 0.1},
    "trainer": {"max_epochs": 3, "batch_size": 64},
    "track": {"wandb": "disabled"},
    "sweep": {"trials": 3, "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}}},
}


def with_space(**space: Any) -> dict[str, Any]:
    return with_sweep(space={path.replace("__", "."): drawn for path, drawn in space.items()})


def with_sweep(**settings: Any) -> dict[str, Any]:
    recipe = copy.deepcopy(RECIPE)
    recipe["sweep"] |= settings
    return recipe


def refusal(recipe: Any, tmp_path: Path, overrides: Any = ()) -> str:
    """Returns the one line of a sweep that is refused, having looked that nothing was started or written."""
    with pytest.raises(UserError) as caught:
        sweep(recipe, overrides, runs=tmp_path / "runs")
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()
    assert not (tmp_path / "runs").exists()
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.quick
@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({"optim.lrr": {"uniform": [0.1, 1]}}, "sweep.space.optim.lrr: optim.lrr is not known; did you mean optim.lr?"),
        ({"optim.lr": {"choice": []}}, "sweep.space.optim.lr: choice is empty; list the values to try"),
        ({"optim.lr": {"loguniform": [0, 1]}}, "loguniform is [0.0, 1.0]; low should be above 0"),
        ({"optim.lr": {"uniform": [0, 1]}}, "sweep.space.optim.lr: optim.lr: input should be greater than 0 (got 0.0)"),
        ({"model.dropout": {"uniform": [0, 1.5]}}, "sweep.space.model.dropout: model.dropout: input should be less"),
        ({"model.hidden": {"randint": [1, 5]}}, "sweep.space.model.hidden: model.hidden: input should be"),
        ({"init.kind": {"choice": ["xavier", "javier"]}}, "'javier' is not known; did you mean xavier?"),
        ({"track.group": {"choice": ["a"]}}, "sweep.space.track.group: track changes no training"),
        ({"sweep.trials": {"choice": [1]}}, "sweep.space.sweep.trials: sweep changes no training"),
        ({"trainer.devices": {"choice": [1, 2]}}, "sweep.space: trials would have 1 or 2 processes; leave trainer"),
        (
            {"init.gain": {"uniform": [1, 2], "when": {"init.kind": "xavier"}}},
            "when names init.kind, which is not in the",
        ),
    ],
)
def test_a_space_that_no_recipe_accepts_is_refused(space: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in refusal(with_sweep(space=space), tmp_path)


@pytest.mark.quick
def test_a_path_that_only_some_kinds_have_names_the_kind_that_lacks_it(tmp_path: Path) -> None:
    space = {"init__gain": {"uniform": [1, 2]}, "init__kind": {"choice": ["kaiming", "uniform_fan_in"]}}
    line = refusal(with_space(**space), tmp_path)
    assert line.startswith("sweep.space.init.gain: init.gain is not known")
    assert line.endswith("(with init.kind=uniform_fan_in)")


@pytest.mark.quick
def test_a_uniform_range_may_end_at_what_the_recipe_excludes() -> None:
    search = SweepSection(trials=3, space={"model.dropout": Distribution(uniform=(0.0, 1.0))})
    assert len(check_space(RECIPE, search)) == 2


@pytest.mark.parametrize(
    ("change", "ranks"),
    [({}, 1), ({"trainer.devices": 2, "strategy": "ddp"}, 2), ({"trainer.devices": 2, "trainer.nodes": 3}, 6)],
)
def test_a_trial_may_have_several_processes(change: dict[str, Any], ranks: int) -> None:
    changes = change if "strategy" in change or not change else {**change, "strategy": "deepspeed"}
    plan = check_sweep(RECIPE, changes)
    assert plan.ranks == ranks
    assert (plan.not_fusable is not None) == (ranks > 1)


CONDITIONAL = {
    "init.kind": {"choice": ["xavier", "orthogonal"]},
    "init.gain": {"uniform": [0.5, 2.0], "when": {"init.kind": ["orthogonal"]}},
}


@pytest.mark.quick
def test_a_condition_leaves_a_path_out_of_the_samples_that_do_not_meet_it() -> None:
    search = SweepSection(trials=3, space=CONDITIONAL)
    assert search.active({"init.kind": "xavier", "init.gain": 0.7}) == {"init.kind": "xavier"}
    assert search.active({"init.kind": "orthogonal", "init.gain": 0.7}) == {"init.kind": "orthogonal", "init.gain": 0.7}
    gains = [recipe.init.gain for recipe in check_space(RECIPE, search) if recipe.init.kind == "orthogonal"]
    assert 0.5 in gains


@pytest.mark.quick
@pytest.mark.parametrize(
    ("when", "line"),
    [
        ({"init.kind": "zero"}, "when wants init.kind to be 'zero', which it never is"),
        ({"init.kind": ["xavier", 3]}, "when wants init.kind to be 3, which it never is"),
        ({"optim.lr": 0.1}, "when wants optim.lr to be 0.1, which it never is"),
        ({"init.gain": 1.0}, "when names init.gain, which is not in the space"),
        ({"data.seed": 1}, "when names data.seed, which should come before it"),
    ],
)
def test_a_condition_that_nothing_meets_is_refused(when: dict[str, Any], line: str) -> None:
    space = {
        "init.kind": {"choice": ["xavier"]}, "optim.lr": {"uniform": [0, 1]},
        "model.dropout": {"uniform": [0, 0.5], "when": when}, "data.seed": {"choice": [1]},
    }  # fmt: skip
    with pytest.raises(ValueError, match=re.escape(line)):
        SweepSection(trials=3, space=space)


@pytest.mark.quick
def test_a_grid_has_each_sample_that_its_conditions_leave_once() -> None:
    space = {**CONDITIONAL, "init.gain": {"choice": [1.0, 2.0], "when": {"init.kind": "orthogonal"}}}
    search = SweepSection(trials=1, searcher="grid", space=space)
    assert search.num_trials == 3
    assert search.grid()[0] == {"init.kind": "xavier"}


@pytest.mark.parametrize(
    ("scheduler", "line"),
    [
        (
            {"kind": "pbt", "mutate": ["init.kind"]},
            "init.kind cannot change while a trial trains; choose among optim.lr",
        ),
        ({"kind": "pbt", "mutate": ["model.hidden"]}, "model.hidden is not in the space; choose among optim.lr"),
        ({"kind": "pbt", "interval_steps": 10**6}, "sweep.scheduler.interval_steps: 1000000, but a trial has"),
        ({"kind": "median", "grace_steps": 10**6}, "sweep.scheduler.grace_steps: 1000000, but a trial has"),
    ],
)
def test_a_scheduler_that_cannot_work_is_refused(scheduler: dict[str, Any], line: str, tmp_path: Path) -> None:
    space = {"optim.lr": {"loguniform": [1e-3, 1e-1]}, "init.kind": {"choice": ["xavier", "kaiming"]}}
    assert line in refusal(with_sweep(scheduler=scheduler, space=space), tmp_path)


def test_a_population_needs_something_that_may_change(tmp_path: Path) -> None:
    recipe = with_sweep(scheduler="pbt", space={"init.kind": {"choice": ["xavier", "kaiming"]}})
    assert "pbt has nothing to change on the way; add optim.lr" in refusal(recipe, tmp_path)


@pytest.mark.quick
def test_a_recipe_without_a_sweep_section_is_told_what_to_add(tmp_path: Path) -> None:
    recipe = {section: value for section, value in RECIPE.items() if section != "sweep"}
    assert "add what to search: sweep: {trials: 16, space: " in refusal(recipe, tmp_path)


def test_a_metric_that_no_validation_reports_is_refused(tmp_path: Path) -> None:
    line = refusal(with_sweep(metric="val/accurracy"), tmp_path)
    assert "did you mean val/accuracy?" in line
    assert "A validation reports train/loss, val/loss, val/accuracy" in line


def test_a_grace_longer_than_a_trial_is_refused(tmp_path: Path) -> None:
    recipe = with_sweep(scheduler={"kind": "asha", "grace_steps": 5000})
    assert "sweep.scheduler.grace_steps: 5000, but a trial has " in refusal(recipe, tmp_path)


def test_a_sampled_kind_or_seed_brings_its_own_defaults() -> None:
    recipe = with_space(init__kind={"choice": ["xavier", "uniform_fan_in"]}, trainer__seed={"choice": [5]})
    plan = check_sweep(recipe)
    # The resolved recipe has them written out; a trial starts from what the author wrote.
    assert "gain:" in plan.resolved
    assert "gain" not in plan.tree["init"]
    assert "seed" not in plan.tree["init"]
    assert "gain" not in check_sweep(load_recipe(recipe)).tree["init"]


def test_the_longest_trial_and_the_first_rung_are_counted_in_steps() -> None:
    plan = check_sweep(with_space(trainer__max_epochs={"choice": [2, 5]}))
    assert plan.total_steps == 5 * plan.grace_steps
    assert check_sweep(RECIPE, {"trainer.validate_every": 11}).grace_steps == 11


@pytest.mark.quick
def test_importing_the_package_imports_neither_ray_nor_torch() -> None:
    program = "import sys, headway.sweep; sys.exit(sorted({'ray', 'torch', 'lightning'} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def trial(value: float | None, status: Any = "done", **config: Any) -> Trial:
    return Trial("a-0000", "runs/a-0000", status, config, value, 3 if value is not None else None)


@pytest.mark.quick
def test_the_best_trial_is_neither_failed_nor_without_a_value() -> None:
    trials = [trial(None, "failed"), trial(0.1, "failed"), trial(float("nan")), trial(0.0), trial(0.3, "stopped")]
    assert [found.value for found in ranked(trials, "min")[:2]] == [0.0, 0.3]
    assert [found.value for found in ranked(trials, "max")[:2]] == [0.3, 0.0]
    assert best_trial(trials[:3], "min") is None


@pytest.mark.quick
def test_the_command_for_the_best_trial_is_quoted_and_exact() -> None:
    best = trial(0.1, **{"optim.lr": 0.1 + 0.2, "model.hidden": [3, 5], "init.kind": "xavier", "trainer.compile": True})
    command = refit_command(("headway", "fit", "my recipe.yaml"), best, {"trainer.threads": 1})
    assert command == (
        "headway fit 'my recipe.yaml' optim.lr=0.30000000000000004 'model.hidden=[3, 5]' init.kind=xavier "
        "trainer.compile=true trainer.threads=1"
    )
    assert refit_command((), best, {}) == "headway fit runs/a-0000/recipe.yaml"


@pytest.mark.quick
@pytest.mark.parametrize("value", ["3", "true", "a: b", "plain", 1e-05, None, [1, 2.5], {"a": "1"}, "#no"])
def test_an_assignment_reads_back_to_the_same_value(value: Any) -> None:
    from headway.config.overrides import parse_assignments

    assert parse_assignments([assignment("a.b", value)]) == {"a.b": value}
