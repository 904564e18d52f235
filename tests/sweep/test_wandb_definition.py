"""A sweep as W&B defines them: against what W&B documents, and through its agent's own expansion of the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from headway.cli import run
from headway.config.errors import UserError
from headway.config.overrides import parse_assignments
from headway.config.space import Distribution
from headway.sweep.check import check_sweep
from headway.sweep.wandb_definition import _argument, _parameter, wandb_definition

pytestmark = pytest.mark.quick

NUMBER, ANYTHING = {"type": "number"}, {}
RANGES = ["uniform", "int_uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values"]
# What W&B's documentation says of a sweep's configuration; the wandb package brings no schema along.
SCHEMA = {
    "type": "object",
    "required": ["method", "parameters"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"}, "project": {"type": "string"}, "entity": {"type": "string"},
        "program": {"type": "string"}, "command": {"type": "array", "items": {"type": "string"}},
        "method": {"enum": ["grid", "random", "bayes"]}, "run_cap": {"type": "integer", "minimum": 1},
        "metric": {
            "type": "object", "required": ["name"], "additionalProperties": False,
            "properties": {"name": {"type": "string"}, "goal": {"enum": ["minimize", "maximize"]}},
        },
        "early_terminate": {
            "type": "object", "required": ["type"], "additionalProperties": False,
            "properties": {
                "type": {"const": "hyperband"}, "min_iter": {"type": "integer", "minimum": 1},
                "eta": {"type": "integer", "minimum": 2}, "strict": {"type": "boolean"},
            },
        },
        "parameters": {
            "type": "object", "minProperties": 1,
            "additionalProperties": {
                "oneOf": [
                    {"type": "object", "required": ["value"], "additionalProperties": False,
                     "properties": {"value": ANYTHING}},
                    {"type": "object", "required": ["values"], "additionalProperties": False,
                     "properties": {"values": {"type": "array", "minItems": 1}}},
                    {"type": "object", "required": ["distribution", "min", "max"], "additionalProperties": False,
                     "properties": {"distribution": {"enum": RANGES}, "min": NUMBER, "max": NUMBER, "q": NUMBER}},
                ]
            },
        },
    },
}  # fmt: skip
RECIPE = """
name: tiny
model: {kind: mlp, hidden: [7]}
data: {kind: digits}
optim: {kind: sgd, lr: 0.1}
trainer: {max_epochs: 9, batch_size: 64}
track: {project: school, entity: class}
sweep:
  trials: 13
  seed: 5
  scheduler: {kind: asha, reduction: 2}
  space:
    init.kind: {choice: [xavier, kaiming]}
    model.dropout: {uniform: [0, 0.5]}
    model.hidden: {choice: [[7], [11, 5]]}
    optim.lr: {loguniform: [1.0e-4, 1.0e-1]}
    trainer.seed: {randint: [3, 8]}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return "tiny.yaml"


def definition(recipe: str, *changes: str) -> dict[str, Any]:
    """Returns the sweep as W&B defines it, found sound by what W&B documents."""
    found = wandb_definition(check_sweep(recipe, changes))
    jsonschema.validate(found, SCHEMA)
    return found


def expanded(found: dict[str, Any], sample: dict[str, Any]) -> list[str]:
    """Returns the command line that W&B's agent makes of a definition and a sample."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    macros = create_sweep_command_args({"args": {path: {"value": value} for path, value in sample.items()}})
    macros["program"] = [found["program"]]
    words: list[str] = []
    for word in create_sweep_command(found["command"]):
        words += macros[word[2:-1]] if word.startswith("${") else [word]
    return words


def test_the_sweep_is_printed_as_yaml_as_wandb_documents_it(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", recipe, "--as", "wandb-sweep"]) == 0
    text = capsys.readouterr().out
    found = yaml.safe_load(text)
    jsonschema.validate(found, SCHEMA)
    assert found == definition(recipe)
    assert "wandb agent" in text
    assert not Path("runs").exists()
    assert {key: found[key] for key in ("name", "project", "entity", "method", "run_cap", "metric")} == {
        "name": "tiny",
        "project": "school",
        "entity": "class",
        "method": "random",
        "run_cap": 13,
        "metric": {"name": "val/loss", "goal": "minimize"},
    }
    assert found["parameters"] == {
        "init.kind": {"values": ["xavier", "kaiming"]},
        "model.dropout": {"distribution": "uniform", "min": 0.0, "max": 0.5},
        "model.hidden": {"values": ["[7]", "[11, 5]"]},
        "optim.lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "trainer.seed": {"distribution": "int_uniform", "min": 3, "max": 7},
    }


def test_it_is_written_to_a_file_or_printed_as_json(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sweep", recipe, "--as", "wandb-sweep", "--out", "sweep.yaml", "--name", "mine"]) == 0
    assert capsys.readouterr().out == ""
    assert yaml.safe_load(Path("sweep.yaml").read_text())["name"] == "mine"
    assert run(["sweep", recipe, "--as", "wandb-sweep", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == definition(recipe)


def test_a_file_that_cannot_be_written_and_an_out_without_as_are_refused(
    recipe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sweep", recipe, "--as", "wandb-sweep", "--out", "nowhere/sweep.yaml"]) == 2
    assert "--out: nowhere/sweep.yaml cannot be written" in capsys.readouterr().err
    assert run(["sweep", recipe, "--out", "sweep.yaml"]) == 2
    assert "--as wandb-sweep" in capsys.readouterr().err


def test_the_agents_command_is_the_recipe_with_the_sample(recipe: str) -> None:
    from headway.recipe import load_recipe

    sample = {"model.hidden": "[11, 5]", "optim.lr": 1e-05, "init.kind": "xavier", "trainer.seed": 7}
    program, verb, path, *changes = expanded(definition(recipe, "optim.momentum=0.9"), sample)
    assert (program, verb, path) == ("headway", "fit", recipe)
    trained = load_recipe(path, changes)
    assert trained.tree()["model"]["hidden"] == [11, 5]
    assert trained.dotted()["optim.lr"] == 1e-05
    assert trained.dotted()["optim.momentum"] == 0.9
    assert trained.trainer.seed == 7
    assert trained.track.wandb == "online"


def test_the_command_keeps_the_users_folder_and_wandb_mode(recipe: str) -> None:
    found = wandb_definition(check_sweep(recipe, ["track.wandb=offline"]), runs=Path("elsewhere"))
    assert found["command"][1:] == [
        "fit", recipe, "track.wandb=offline", "--runs", "elsewhere", "${args_no_hyphens}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "value", ["xavier", 3, 0.5, 1e-7, 1e30, True, None, "null", "3", "", "a: b", [1, "x"], {"k": 1}]
)
def test_every_value_arrives_as_it_was_written(value: Any) -> None:
    sent = yaml.safe_load(yaml.safe_dump({"value": _argument(value)}))["value"]
    arrived = parse_assignments([f"some.path={sent}"])["some.path"]
    assert arrived == value
    assert type(arrived) is type(value)


def test_a_grid_is_a_grid_with_its_own_number_of_runs(recipe: str) -> None:
    space = 'sweep.space={"optim.lr": {"choice": [0.1, 0.2, 0.3]}, "init.kind": {"choice": ["xavier", "kaiming"]}}'
    found = definition(recipe, "sweep.searcher=grid", space)
    assert (found["method"], found["run_cap"]) == ("grid", 6)


def test_fifo_ends_nothing_early(recipe: str) -> None:
    assert "early_terminate" not in definition(recipe, "sweep.scheduler=fifo")


@pytest.mark.parametrize(
    ("changes", "first_rung"),
    [
        # digits has 1257 images to train on: 20 steps of 64 an epoch, and one validation an epoch.
        ([], 1),
        (["sweep.scheduler.grace_steps=40"], 2),
        (["sweep.scheduler.grace_steps=50", "trainer.validate_every=20"], 3),
        (["sweep.metric=train/loss", "sweep.scheduler.grace_steps=50", "track.wandb_every=10"], 5),
    ],
)
def test_asha_is_hyperband_counted_in_reports(recipe: str, changes: list[str], first_rung: int) -> None:
    found = definition(recipe, *changes)["early_terminate"]
    assert found == {"type": "hyperband", "min_iter": first_rung, "eta": 2, "strict": True}


def test_more_is_better_is_maximize(recipe: str) -> None:
    found = definition(recipe, "sweep.metric=val/accuracy", "sweep.mode=max")
    assert found["metric"] == {"name": "val/accuracy", "goal": "maximize"}


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"quniform": (0, 1, 0.25)}, {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}),
        ({"quniform": (8, 64, 8.0)}, {"distribution": "q_uniform", "min": 8, "max": 64, "q": 8}),
        ({"qloguniform": (1, 9, 2)}, {"distribution": "q_log_uniform_values", "min": 1, "max": 9, "q": 2}),
        ({"lograndint": (1, 9)}, {"distribution": "q_log_uniform_values", "min": 1, "max": 8, "q": 1}),
        ({"value": 0.5}, {"value": 0.5}),
    ],
)
def test_quantized_and_constant_values_have_counterparts(drawn: dict[str, Any], expected: dict[str, Any]) -> None:
    found = _parameter("optim.lr", Distribution(**drawn))
    assert found == expected
    jsonschema.validate({"method": "random", "parameters": {"optim.lr": found}}, SCHEMA)


def test_a_condition_is_refused() -> None:
    drawn = Distribution(uniform=(0.0, 1.0), when={"optim.kind": "sgd"})
    with pytest.raises(UserError, match=r"sweep.space.optim.momentum: has a condition"):
        _parameter("optim.momentum", drawn)
