"""Writes a recipe's sweep as W&B defines sweeps, for those whose machines run `wandb agent`.

W&B's server then proposes and stops; each agent runs `headway fit` with what it was given, and W&B's SDK makes that
run part of the sweep. Source: https://docs.wandb.ai/models/sweeps/sweep-config-keys
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from headway.config.errors import UserError
from headway.config.reading import dump, read_text
from headway.config.space import Distribution
from headway.run import replace_file
from headway.sweep.check import Plan
from headway.track.wandb_server import known_project

Definition = dict[str, Any]

_METHODS = {"grid": "grid", "random": "random", "sobol": "random", "tpe": "bayes", "cmaes": "bayes", "bohb": "bayes"}
_HALVING = ("asha", "hyperband")
_LOG_RANGES = {"loguniform": "log_uniform_values", "qloguniform": "q_log_uniform_values"}
_RANGES = {"uniform": "uniform", "quniform": "q_uniform", **_LOG_RANGES}


def wandb_definition(plan: Plan, *, name: str | None = None, runs: Path = Path("runs")) -> Definition:
    """Returns the sweep's definition.

    Args:
        plan: the sweep.
        name: what W&B calls it; the recipe's name when absent.
        runs: folder of the agents' run folders.

    Raises:
        UserError: the sweep has what W&B's have not.
    """
    tree = read_text(plan.resolved, source=plan.name)
    found = {
        "name": name or plan.name,
        "project": known_project(tree["track"].get("project")),
        "entity": tree["track"].get("entity"),
        "program": "headway",
        "command": _command(plan, runs),
        "method": _METHODS[plan.search.searcher],
        "metric": {"name": plan.search.metric, "goal": {"min": "minimize", "max": "maximize"}[plan.search.mode]},
        "run_cap": plan.num_trials,
        "parameters": {path: _parameter(path, drawn) for path, drawn in plan.search.space.items()},
        "early_terminate": _early_terminate(plan, tree),
    }
    return {key: value for key, value in found.items() if value is not None}


def as_text(definition: Definition, plan: Plan, *, file: str) -> str:
    """Returns the definition as a YAML file that says how it is used.

    Args:
        definition: the sweep's.
        plan: what it was made of.
        file: what the file is called.
    """
    return "".join(f"# {line}\n" if line else "#\n" for line in _header(plan, file)) + dump(definition)


def write_definition(text: str, out: Path) -> None:
    """Writes the file.

    Raises:
        UserError: it cannot be written.
    """
    try:
        replace_file(out, text)
    except OSError as error:
        raise UserError(f"--out: {out} cannot be written ({error.strerror or error}); choose another file") from None


def _header(plan: Plan, file: str) -> Iterable[str]:
    scheduler = plan.search.scheduler.kind
    yield f"The sweep of {plan.name}, for W&B's agents. In the folder where `{' '.join(plan.command[:3])}` works:"
    yield f"  wandb sweep {file}    # prints ENTITY/PROJECT/ID"
    if scheduler in _HALVING:
        yield "  WANDB_AGENT_DISABLE_FLAPPING=true WANDB_AGENT_MAX_INITIAL_FAILURES=1000 wandb agent ENTITY/PROJECT/ID"
        yield "To an agent a run that W&B stopped has failed, and a few of those end it, but for the two variables."
    else:
        yield "  wandb agent ENTITY/PROJECT/ID    # on as many machines as you like"
        if scheduler != "fifo":
            yield f"W&B has no {scheduler}: every run goes to its end."
    if _METHODS[plan.search.searcher] != plan.search.searcher:
        yield f"W&B has no {plan.search.searcher}: {_METHODS[plan.search.searcher]} comes nearest."


def _command(plan: Plan, runs: Path) -> list[str]:
    program, *words = plan.command
    assert program == "headway", "the command is one of headway's"
    if not any(word.startswith("track.wandb=") for word in words):
        # Offline, the server would wait for a metric that never comes.
        words.append("track.wandb=online")
    folder = [] if runs == Path("runs") else ["--runs", str(runs)]
    return ["${program}", *words, *folder, "${args_no_hyphens}"]


def _parameter(path: str, drawn: Distribution) -> dict[str, Any]:
    """Returns one hyperparameter as W&B has it."""
    if drawn.when is not None:
        raise UserError(f"sweep.space.{path}: has a condition (when), which W&B's sweeps have not; leave it out")
    way, given = drawn.way, getattr(drawn, drawn.way)
    if way == "choice":
        return {"values": [_argument(value) for value in given]}
    if way == "value":
        return {"value": _argument(given)}
    low, high, *step = given
    if way == "randint":
        # W&B draws both ends too.
        return {"distribution": "int_uniform", "min": low, "max": high - 1}
    if way == "lograndint":
        return {"distribution": "q_log_uniform_values", "min": low, "max": high - 1, "q": 1}
    if way not in _RANGES:
        raise UserError(f"sweep.space.{path}: {way} has no counterpart among W&B's; use uniform, loguniform or randint")
    # With a whole step W&B draws whole numbers, which fit both kinds of settings.
    quantum = {"q": int(step[0]) if float(step[0]).is_integer() else step[0]} if step else {}
    return {"distribution": _RANGES[way], "min": low, "max": high, **quantum}


def _argument(value: Any) -> Any:
    """Returns a value that an agent can put behind `path=`: it writes Python's `str` of it, and headway reads YAML."""
    if isinstance(value, bool | int | float | str) and str(value) and _reads_back(value):
        return value
    return json.dumps(value)


def _reads_back(value: Any) -> bool:
    try:
        read = read_text(str(value), source="")
    except UserError:
        return False
    return type(read) is type(value) and bool(read == value)


def _early_terminate(plan: Plan, tree: dict[str, Any]) -> dict[str, Any] | None:
    scheduler = plan.search.scheduler
    if scheduler.kind not in _HALVING:
        return None
    first = -(-plan.grace_steps // _steps_between_reports(plan, tree))
    # strict keeps one in eta at each rung, as asha does; otherwise W&B keeps more.
    return {"type": "hyperband", "min_iter": max(1, first), "eta": scheduler.reduction, "strict": True}


def _steps_between_reports(plan: Plan, tree: dict[str, Any]) -> int:
    """Returns how many optimizer steps lie between two values of the metric at W&B, which counts values, not steps."""
    if plan.search.metric.startswith("train/"):
        return int(tree["track"]["wandb_every"])
    if tree["trainer"].get("validate_every"):
        return int(tree["trainer"]["validate_every"])
    if plan.search.scheduler.grace_steps is None:
        return plan.grace_steps
    from headway.config.contracts import Place
    from headway.prepare import prepare
    from headway.recipe import load_recipe

    recipe = load_recipe(tree, trust=plan.trust)
    return recipe.trainer.batches(len(prepare(recipe, Place(device=plan.device)).train))
