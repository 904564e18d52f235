"""A row of a stack is the run alone: its losses, its checkpoints, its failure; whatever its neighbours do."""

from __future__ import annotations

import pytest
import torch

from headway.config.contracts import Place
from headway.config.errors import TrainingFailed, UserError
from headway.evaluate.evaluation import evaluate
from headway.evaluate.selection import select
from headway.fit import fit
from headway.fused.fit import fit_rows
from headway.fused.fusing import stack_key
from headway.prepare import prepare
from headway.recipe import load_recipe
from headway.run import RunFolder, read_metrics

pytestmark = pytest.mark.quick

COMMON = {
    "trainer": {
        "max_steps": 11, "validate_every": 4, "batch_size": 130, "eval_batch_size": 300, "threads": 1,
        "precision": "fp64", "steps_per_call": 3,
    },
    "track": {"wandb": "disabled", "every": 1},
}  # fmt: skip
DIGITS = {**COMMON, "data": {"kind": "digits", "layout": "image"}, "init": "kaiming"}
TEXT = {
    **COMMON, "init": {"kind": "normal", "std": 0.1}, "trainer": {**COMMON["trainer"], "batch_size": 5},
    "data": {"kind": "text", "sequence_length": 7, "max_characters": 3_001, "vocabulary": "character"},
}  # fmt: skip
ADAMW = {"kind": "adamw", "lr": 1e-2, "weight_decay": 0.1, "schedule": {"kind": "cosine", "warmup_steps": 3}}
PENALTY = {"penalty": {"l1": 1e-3, "l2": 1e-2}}
SGD = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
RECIPES = {
    "logistic": {**DIGITS, "model": "logistic", "optim": SGD},
    "settings": {
        **DIGITS, "model": {"kind": "mlp", "hidden": [7]}, "optim": {**SGD, "nesterov": False},
        "trainer": {**COMMON["trainer"], "clip_norm": 0.5, "clip_value": 0.01}, "regularize": PENALTY,
        "objective": {"kind": "classify", "label_smoothing": 0.1},
    },
    "settings of adam": {
        **DIGITS, "model": {"kind": "mlp", "hidden": [7]}, "optim": ADAMW, "regularize": PENALTY,
    },
    "mlp": {
        **DIGITS, "optim": ADAMW, "trainer": {**COMMON["trainer"], "clip_norm": 0.5},
        "model": {"kind": "mlp", "hidden": [13, 7], "activation": "tanh", "dropout": 0.2, "input_dropout": 0.1},
    },
    "convnet": {
        **DIGITS, "optim": SGD, "trainer": {**COMMON["trainer"], "clip_value": 0.01},
        "model": {"kind": "convnet", "filters": [3, 5], "filter_size": 3, "padding": 1, "hidden": 11, "dropout": 0.2},
    },
    "batch norm": {
        **DIGITS, "optim": SGD, "trainer": {**COMMON["trainer"], "batch_size": 128},
        "model": {"kind": "convnet", "filters": [3, 5], "filter_size": 3, "padding": 1, "batch_norm": True},
    },
    "resnet": {
        **DIGITS, "optim": ADAMW, "model": {"kind": "resnet", "depth": 8, "width": 3},
        "trainer": {**COMMON["trainer"], "max_steps": 5, "validate_every": 2},
    },
    "mup": {
        **DIGITS, "optim": ADAMW, "init": {"kind": "mup", "base_width": 7},
        "model": {"kind": "mlp", "hidden": [14, 14], "dropout": 0.1},
    },
    "regress": {
        **COMMON, "data": "diabetes", "init": "xavier", "optim": ADAMW, "model": {"kind": "mlp", "hidden": [7]},
    },
    "ngram": {**TEXT, "optim": ADAMW, "model": {"kind": "ngram", "context": 2, "embedding": 3, "hidden": 5}},
    "gpt": {
        **TEXT, "optim": ADAMW, "model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 6, "dropout": 0.1},
    },
    "lstm": {
        **TEXT, "optim": ADAMW, "trainer": {**TEXT["trainer"], "clip_norm": 1.0},
        "model": {"kind": "lstm", "hidden": 5, "num_layers": 2, "dropout": 0.1, "tied": True},
    },
    "lstm, variational": {
        **TEXT, "optim": ADAMW,
        "model": {
            "kind": "lstm", "hidden": 5, "embedding": 3, "num_layers": 2, "variational": True, "dropout": 0.1,
            "embedding_dropout": 0.2, "recurrent_dropout": 0.3,
        },
    },
    "gru": {
        **TEXT, "optim": ADAMW, "model": {"kind": "gru", "hidden": 5, "embedding": 3, "num_layers": 2, "dropout": 0.1},
    },
    "bert": {
        **TEXT, "optim": ADAMW, "trainer": {**TEXT["trainer"], "max_steps": 7},
        "data": {"kind": "masked_text", "sequence_length": 13, "max_characters": 5_003, "vocab_size": 270},
        "model": {"kind": "bert", "num_layers": 2, "num_heads": 2, "width": 6, "dropout": 0.1},
    },
    "transformer": {
        **TEXT, "optim": ADAMW, "trainer": {**TEXT["trainer"], "max_steps": 7, "eval_batch_size": 97},
        "data": {"kind": "translation", "vocab_size": 263, "max_length": 41},
        "model": {"kind": "transformer", "num_layers": 2, "num_heads": 2, "width": 6, "dropout": 0.1},
    },
    "transformer, norm before": {
        **TEXT, "optim": ADAMW, "trainer": {**TEXT["trainer"], "max_steps": 5, "eval_batch_size": 97},
        "data": {"kind": "translation", "vocab_size": 263, "max_length": 41},
        "model": {"kind": "transformer", "num_layers": 1, "num_heads": 3, "width": 6, "dropout": 0.1, "norm": "pre"},
    },
    "autoencoder": {
        **DIGITS, "data": "digits", "optim": ADAMW,
        "model": {"kind": "autoencoder", "hidden": [13, 7], "corruption": "mask", "amount": 0.3},
    },
    "autoencoder, tied": {
        **DIGITS, "data": "digits", "optim": ADAMW,
        "model": {"kind": "autoencoder", "hidden": [13, 7], "corruption": "gaussian", "amount": 0.2, "tied": True},
    },
    "rnn": {
        **COMMON, "data": {"kind": "adding", "length": 7, "num_samples": 601}, "init": "xavier", "optim": SGD,
        "model": {"kind": "rnn", "hidden": 5, "activation": "relu", "dropout": 0.1, "recurrent_dropout": 0.2},
    },
}  # fmt: skip


def rows_of(base, count):
    """Returns recipes that differ in all that rows may differ in, a few with the same seeds."""
    recipes = {}
    for number in range(count):
        changes = {"optim.lr": base["optim"]["lr"] / (1 + number), "trainer.seed": number // 2, "name": f"row-{number}"}
        changes["optim.weight_decay"] = 0.05 * (number % 3)
        if base["init"] in ("kaiming", "xavier"):
            changes["init.kind"] = ["kaiming", "xavier", "orthogonal"][number % 3]
        for rate in ("dropout", "recurrent_dropout"):
            if rate in base["model"]:
                changes[f"model.{rate}"] = [0.0, 0.1, 0.5][number % 3]
        if "regularize" in base:
            changes |= settings_of(base, number)
        recipes[f"row-{number}"] = load_recipe(base, changes)
    return recipes


def settings_of(base, number):
    """Returns values of settings that are no shape; the first row has none of a technique."""
    changes = {"optim.schedule": {"kind": ["constant", "linear", "cosine"][number % 3], "warmup_steps": number}}
    changes |= {"regularize.penalty": None} if number == 0 else {"regularize.penalty.l2": 0.01 * (number % 2)}
    if base["optim"]["kind"] == "adamw":
        return changes | {"optim.betas": [0.8 + 0.02 * number, 0.99], "optim.eps": 10.0 ** -(3 + number)}
    changes |= {"optim.momentum": 0.2 * number, "objective.label_smoothing": 0.1 * (number % 3)}
    return changes | {"trainer.clip_norm": 0.2 * (1 + number), "trainer.clip_value": 0.01 * (1 + number)}


def losses(run):
    """Returns every loss that a run reports, by step and name; health is not recorded in an array."""
    rows = read_metrics(run.metrics)
    return {
        (row["step"], name): row[name]
        for row in rows
        for name in row
        if name.endswith(("loss", "accuracy", "norm")) and not name.startswith("health/")
    }


@pytest.mark.parametrize("name", RECIPES)
def test_every_loss_of_a_row_is_that_of_the_run_alone(name, tmp_path):
    recipes = rows_of(RECIPES[name], 5)
    finals = fit_rows(recipes, runs=tmp_path / "together")
    for row, recipe in recipes.items():
        alone = fit(recipe, runs=tmp_path / "alone", name=row, progress=False)
        expected, found = (losses(RunFolder(tmp_path / side / row)) for side in ("alone", "together"))
        assert expected.keys() == found.keys()
        assert len(expected) >= 15
        for key, value in expected.items():
            assert found[key] == pytest.approx(value, rel=1e-9, abs=1e-12), (row, key)
        assert finals[row] == pytest.approx(alone.metrics, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "convnet", "lstm", "gpt"])
def test_sixteen_rows_of_different_settings_are_the_runs_alone(name, tmp_path):
    base = RECIPES[name]
    starts = [{"kind": "xavier", "gain": 0.5 + 0.1 * place} for place in range(8)]
    starts += [{"kind": "normal", "std": 0.05 + 0.01 * place} for place in range(8)]
    recipes = {}
    for place, start in enumerate(starts):
        changes = {"init": start, "model.dropout": 0.03 * place, "optim.lr": 0.02 / (1 + place)}
        changes |= {"optim.weight_decay": 0.01 * place, "trainer.seed": place, "name": f"row-{place}"}
        recipes[f"row-{place}"] = load_recipe(base, changes)
    data = prepare(recipes["row-0"], Place())
    assert len({stack_key(recipe, data) for recipe in recipes.values()}) == 1
    fit_rows(recipes, runs=tmp_path / "together")
    for row, recipe in recipes.items():
        fit(recipe, runs=tmp_path / "alone", name=row, progress=False)
        expected, found = (losses(RunFolder(tmp_path / side / row)) for side in ("alone", "together"))
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), row


def test_a_row_stops_early_and_keeps_checkpoints_as_it_would_alone(tmp_path):
    settings = {
        "trainer.early_stopping": {"patience": 2}, "trainer.max_steps": 200, "trainer.checkpoint_every": 8,
        "optim.schedule": "constant", "optim.lr": 0.3,
    }  # fmt: skip
    recipes = {f"row-{n}": load_recipe(RECIPES["mlp"], {**settings, "trainer.seed": n}) for n in range(3)}
    fit_rows(recipes, runs=tmp_path / "together")
    ended = set()
    for row, recipe in recipes.items():
        alone = fit(recipe, runs=tmp_path / "alone", name=row, progress=False)
        expected, found = (RunFolder(tmp_path / side / row) for side in ("alone", "together"))
        assert found.status()["step"] == expected.status()["step"] == alone.step
        assert sorted(path.name for path in found.checkpoints.iterdir()) == sorted(
            path.name for path in expected.checkpoints.iterdir()
        )
        ended.add(alone.step)
    assert max(ended) < 200


def test_a_rows_folder_is_evaluated_like_any_other(tmp_path):
    finals = fit_rows(rows_of(RECIPES["mlp"], 2), runs=tmp_path)
    for row, final in finals.items():
        found = evaluate(select(tmp_path / row)).metrics
        assert found["test/loss"] == pytest.approx(final["test/loss"], rel=1e-9)


@pytest.mark.parametrize("name", ["settings", "settings of adam", "lstm, variational"])
def test_rows_that_differ_in_no_shape_share_a_stack(name):
    recipes = list(rows_of(RECIPES[name], 5).values())
    data = prepare(recipes[0], Place())
    assert len({stack_key(recipe, data) for recipe in recipes}) == 1


def test_a_row_goes_on_alone_where_it_stopped(tmp_path):
    base = {**RECIPES["mlp"], "optim": {**ADAMW, "schedule": "constant"}}
    recipes = rows_of(base, 3)
    fit_rows(recipes, runs=tmp_path)
    for row, recipe in recipes.items():
        longer = {"trainer.max_steps": 20}
        moved = fit(resume=str(tmp_path / row), overrides=longer, progress=False)
        whole = fit(recipe, longer, runs=tmp_path / "alone", name=row, progress=False)
        assert moved.step == whole.step == 20
        # Where 11 steps end there is a validation that 20 steps do not have; the weights do not care.
        assert moved.metrics["train/loss"] == pytest.approx(whole.metrics["train/loss"], rel=1e-9)


def test_statistics_stay_a_rows_own_when_its_neighbour_ends(tmp_path):
    recipes = rows_of(RECIPES["batch norm"], 3)
    recipes["row-0"] = load_recipe(recipes["row-0"], {"trainer.max_steps": 5})
    fit_rows(recipes, runs=tmp_path / "together")
    for row, recipe in recipes.items():
        fit(recipe, runs=tmp_path / "alone", name=row, progress=False)
        expected, found = (losses(RunFolder(tmp_path / side / row)) for side in ("alone", "together"))
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_row_that_explodes_leaves_its_neighbours_alone(tmp_path):
    recipes = rows_of(RECIPES["logistic"], 3)
    broken = load_recipe(RECIPES["logistic"], {"optim.lr": 1e308, "name": "row-broken"})
    with pytest.raises(TrainingFailed, match=r"train/loss is (nan|inf)"):
        fit_rows({"row-broken": broken, **recipes}, runs=tmp_path)
    assert RunFolder(tmp_path / "row-broken").status()["state"] == "failed"
    fit_rows(recipes, runs=tmp_path / "without")
    for row in recipes:
        assert RunFolder(tmp_path / row).status()["state"] == "done"
        assert losses(RunFolder(tmp_path / row)) == losses(RunFolder(tmp_path / "without" / row))


def test_rows_of_other_shapes_and_lengths_train_side_by_side(tmp_path):
    recipes = rows_of(RECIPES["mlp"], 2)
    recipes["row-wide"] = load_recipe(
        RECIPES["mlp"], {"model.hidden": [17], "trainer.max_steps": 5, "name": "row-wide"}
    )
    finals = fit_rows(recipes, runs=tmp_path / "together")
    for row, recipe in recipes.items():
        alone = fit(recipe, runs=tmp_path / "alone", name=row, progress=False)
        assert finals[row] == pytest.approx(alone.metrics, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"regularize": {"max_norm": {"limit": 3.0}}}, "regularize.max_norm acts on one net at a time"),
        ({"trainer.precision": "bf16-mixed"}, "trainer.precision bf16-mixed is a cast"),
        ({"trainer.compile": True}, "trainer.compile compiles one net"),
        ({"trainer.rng": "fast"}, "trainer.rng fast draws from one generator"),
        ({"trainer.micro_batch": 3}, "trainer.micro_batch cuts a batch"),
        ({"optim": {"kind": "lbfgs", "lr": 1.0}, "trainer.batch_size": 2000}, "the optimizer asks for the loss"),
    ],
)  # fmt: skip
def test_what_a_stack_cannot_honour_is_refused(changes, reason, tmp_path):
    recipe = load_recipe(RECIPES["mlp"] | {"trainer": COMMON["trainer"]}, changes)
    with pytest.raises(UserError, match=f"sweep.fuse: on, but {reason}"):
        fit_rows({"row": recipe}, runs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_librarys_generator_is_each_rows_own(tmp_path):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    recipes = rows_of(RECIPES["mlp"], 2)
    fit_rows(recipes, runs=tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
