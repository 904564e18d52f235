"""A recipe is one frozen value: resolved, written out, read back equal, described by a schema."""

import json
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from headway.config.errors import UserError
from headway.config.reading import read_file, read_text
from headway.config.shipped import shipped_recipes
from headway.recipe import SECTIONS, Recipe, check_recipe_names, load_recipe, recipe_schema

pytestmark = pytest.mark.quick

TREE = {
    "model": {"kind": "mlp", "hidden": [3, 5]},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "sgd", "lr": 0.1},
    "trainer": {"max_steps": 7, "batch_size": 11, "seed": 13},
}


def tree(**changes):
    return {**TREE, **changes}


# ---- what is resolved ----------------------------------------------------------------------------


def test_the_seeds_of_data_and_init_are_the_trainers_unless_given():
    recipe = load_recipe(TREE)
    assert (recipe.trainer.seed, recipe.data.seed, recipe.init.seed) == (13, 13, 13)
    recipe = load_recipe(TREE, {"data.seed": 17, "init.seed": 0})
    assert (recipe.trainer.seed, recipe.data.seed, recipe.init.seed) == (13, 17, 0)
    assert load_recipe(TREE, {"data.seed": None}).data.seed == 13


@pytest.mark.parametrize(
    ("trainer", "strategy"),
    [
        ({}, "single"),
        ({"devices": 1}, "single"),
        ({"devices": 2}, "ddp"),
        ({"nodes": 2}, "ddp"),
        ({"devices": "auto"}, "single"),
    ],
)
def test_several_processes_are_ddp_unless_something_else_is_said(trainer, strategy):
    trained = tree(trainer={**TREE["trainer"], **trainer})
    assert load_recipe(trained).strategy.kind == strategy
    assert load_recipe({**trained, "strategy": "fsdp"}).strategy.kind == "fsdp"


def test_sections_can_be_left_out_or_named_in_short():
    recipe = load_recipe({**TREE, "model": "logistic", "init": None, "objective": "classify", "strategy": "ddp"})
    assert recipe.model.kind == "logistic"
    assert recipe.init is None
    assert recipe.objective.kind == "classify"
    assert recipe.strategy.kind == "ddp"


def test_a_recipe_is_frozen():
    recipe = load_recipe(TREE)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.trainer.batch_size = 3


def test_loading_leaves_the_tree_that_was_given_alone():
    given = json.loads(json.dumps(TREE))
    load_recipe(given, ["model.hidden=[7]", "trainer.seed=1"])
    assert given == TREE


# ---- where the name comes from -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mine.yaml", "mine"),
        ("my recipe (2).yaml", "my-recipe-2-"),
        ("_x.yaml", "x"),
        ("\u00fc.yaml", "recipe"),
        ("folder-of-run/recipe.yaml", "folder-of-run"),
        ("x" * 101 + ".yaml", "x" * 100),
    ],
)
def test_a_recipe_without_a_name_is_called_like_its_file(tmp_path, file, name):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(TREE))
    assert load_recipe(path).name == name


def test_a_recipe_called_recipe_is_named_after_where_it_is(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("recipe.yaml").write_text(json.dumps(TREE))
    assert load_recipe("recipe.yaml").name == "here"


def test_a_name_in_the_recipe_is_kept(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**TREE, "name": "1e5"}))
    assert load_recipe(path).name == "1e5"


# ---- written out and read back -------------------------------------------------------------------


def written_and_read(recipe: Recipe, folder: Path) -> Recipe:
    path = folder / "written.yaml"
    path.write_text(recipe.yaml(), encoding="utf-8")
    return load_recipe(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_is_read_back_equal(name, tmp_path):
    recipe = load_recipe(name)
    assert written_and_read(recipe, tmp_path) == recipe


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "1e5"},
        {"name": "010"},
        {"name": "null"},
        {"track.notes": "1e-3", "track.group": "no", "track.tags": ["true", "~", "5e2", ".5", "-", "a: b", "#"]},
        {"track.notes": "two\nlines \u00fcber \U0001f600 'quoted' \"twice\""},
        {"optim.lr": 1e-5, "optim.weight_decay": 1e-300},
        {"trainer.seed": 2**63 - 1, "data.seed": -3, "init.seed": 0},
        {"optim": {"kind": "adamw", "lr": 1.0, "betas": [0.0, 0.9999999999999999], "schedule": "cosine"}},
        {"trainer.early_stopping": {"patience": 3, "min_delta": 1e-9}},
        {"model": {"kind": "convnet", "filters": [2, 3], "hidden": 5}, "data": {"kind": "digits", "layout": "image"}},
        {"model": {"kind": "mlp", "hidden": []}},
        {
            "sweep": {
                "trials": 3,
                "scheduler": "asha",
                "space": {"init.kind": {"choice": [None, "1e5", 2, 0.5, True, [3]]}},
            }
        },
        {
            "sweep": {
                "trials": 3,
                "space": {"optim.lr": {"loguniform": [1e-5, 1.0]}, "model.hidden": {"choice": [[3], [5, 7]]}},
            }
        },
        {"strategy": {"kind": "deepspeed", "stage": 3, "offload": True}},
    ],
)
def test_any_recipe_is_read_back_equal(changes, tmp_path):
    recipe = load_recipe(TREE, changes)
    assert written_and_read(recipe, tmp_path) == recipe


def test_what_is_written_says_every_default():
    written = read_text(load_recipe(TREE).yaml(), source="recipe")
    assert list(written) == [section for section in SECTIONS if section in written]
    assert written["optim"]["schedule"] == {"kind": "constant", "warmup_steps": 0, "final": 0.0}
    assert written["trainer"]["precision"] == "fp32"
    assert written["data"]["seed"] == 13


def test_the_same_recipe_can_come_as_a_recipe():
    recipe = load_recipe(TREE)
    assert load_recipe(recipe) == recipe
    assert load_recipe(recipe, ["optim.lr=0.2"]).optim.lr == 0.2


def test_dotted_names_every_value_and_leads_back_to_it():
    recipe = load_recipe(tree(sweep={"trials": 2, "space": {"optim.lr": {"choice": [1.0, 2.0]}}}))
    dotted = recipe.dotted()
    assert dotted["optim.lr"] == 0.1
    assert dotted["optim.schedule.warmup_steps"] == 0
    assert dotted["model.hidden"] == [3, 5]
    assert dotted["sweep.space"] == {"optim.lr": {"choice": [1.0, 2.0]}}
    assert load_recipe(TREE, dotted) == recipe


# ---- the recipes that come along -----------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_shipped_recipe_says_what_it_does(name):
    header = [line for line in shipped_recipes()[name].read_text().splitlines() if line.startswith("#")]
    assert header[0].removeprefix("# ").endswith("."), header[0]
    assert len(header[0]) > 30
    for word in ("# Teaches: ", "# Batch: ", "# Expect: "):
        assert any(line.startswith(word) for line in header), word
    recipe = load_recipe(name)
    batch = next(line for line in header if line.startswith("# Batch: "))
    assert f"{recipe.trainer.batch_size} " in batch.replace(",", "")
    assert recipe.name == name
    check_recipe_names(name)


# ---- the schema ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema():
    return recipe_schema()


@pytest.fixture(scope="module")
def validator(schema):
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_stands_alone_as_json(schema):
    text = json.dumps(schema)
    references = {part.split('"')[0] for part in text.split('"$ref": "#/$defs/')[1:]}
    assert references <= set(schema["$defs"])


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_schema_accepts_a_shipped_recipe_as_it_stands_and_resolved(validator, name):
    validator.validate(read_file(shipped_recipes()[name]))
    validator.validate(load_recipe(name).tree())


@pytest.mark.parametrize(
    "change",
    [
        {"model": "mpl"},
        {"model": {"kind": "mlp"}},
        {"model": {"kind": "mlp", "hidden": [3], "widht": 3}},
        {"model": {"kind": "mlp", "hidden": [0]}},
        {"model": {"hidden": [3]}},
        {"optim": {"kind": "sgd"}},
        {"optim": {"kind": "adam", "lr": 0.1}},
        {"optim": {"kind": "sgd", "lr": "0.1"}},
        {"optim": {"kind": "sgd", "lr": 0}},
        {"optim": {"kind": "sgd", "lr": 0.1, "schedule": "cosin"}},
        {"trainer": {"batch_size": 3, "max_step": 2}},
        {"trainer": {"max_steps": 2}},
        {"modell": "mlp"},
        {"strategy": {"kind": "deepspeed", "stage": 4}},
    ],
)
def test_the_schema_refuses_what_a_recipe_refuses(validator, change):
    assert validator.is_valid({**TREE, **change}) is False
    with pytest.raises(UserError):
        load_recipe({**TREE, **change})


def test_the_schema_allows_a_class_of_ones_own(validator):
    validator.validate(tree(model={"kind": "their.module:Net", "anything": 3}))


def test_every_field_of_the_schema_is_described(schema):
    for name in ("model.mlp", "data.digits", "optim.adamw", "strategy.deepspeed", "TrainerSection", "TrackSection"):
        for field, value in schema["$defs"][name]["properties"].items():
            assert value.get("description"), f"{name}.{field}"


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"modle": "mlp"}, "modle is not a section of a recipe; did you mean model?"),
        ({"zzz": 1}, "zzz is not a section of a recipe; there is data, init, model"),
        ({"model": None}, "model is missing: the net"),
        ({"data": None}, "data is missing: what to train on"),
        ({"trainer": None}, "trainer is missing: how long"),
        ({"optim": None}, "optim is missing: how weights move"),
        ({"optim": "adam"}, "optim.kind: 'adam' is not known; did you mean adamw?"),
        ({"optim": {"lr": 1}}, "optim.kind: is missing; there is adamw, lbfgs, sgd"),
        ({"optim": [1]}, "optim.kind: [1] is not known; there is adamw, lbfgs, sgd"),
        ({"optim": {"kind": {"a": 1}}}, "optim.kind: {'a': 1} is not known; there is adamw, lbfgs, sgd"),
        ({"optim": 3}, "optim.kind: 3 is not known; there is adamw, lbfgs, sgd"),
        ({"trainer": 3}, "trainer: is 3; it should be a mapping with seed, accelerator"),
        ({"trainer": {"batch_size": 3}}, "trainer: has no end; set trainer.max_steps or trainer.max_epochs"),
        ({"name": "a b"}, "name: string should match pattern"),
        ({"name": 3}, "name: input should be a valid string (got 3)"),
        ({"objective": "their:Own"}, "objective.kind: 'their:Own' is code outside headway"),
        ({"sweep": {"trials": 2, "space": {}}}, "sweep.space: dictionary should have at least 1 item"),
    ],
)
def test_a_wrong_recipe_is_answered_with_what_to_write(change, line):
    with pytest.raises(UserError) as caught:
        load_recipe({**TREE, **change})
    assert str(caught.value).startswith(line)


def test_the_file_is_named_in_an_error(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({**TREE, "modle": 1}))
    for load in (load_recipe, check_recipe_names):
        with pytest.raises(UserError, match=r"^mine\.yaml: modle is not a section"):
            load(path)
