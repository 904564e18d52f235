"""Every recipe that comes along trains, and reaches what its header promises."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from headway.config.errors import UserError
from headway.config.shipped import shipped_recipes
from headway.data._store import fetch
from headway.fit import FitResult, fit
from headway.recipe import load_recipe

SMALLER = {
    "adding": {"data.num_samples": 500},
    "copying": {"data.num_samples": 500},
    "glyphs": {"data.train": 500, "data.held_out": 100},
    "masked_text": {"data.max_characters": 60_000},
    "text": {"data.max_characters": 60_000},
}
"""Settings by kind of data that leave little to load and to judge by."""
FETCHED = {"mnist": "fashion_mnist"}
"""Data sets by kind of data that are fetched where they can be had."""


def is_for_a_gpu(name: str) -> bool:
    """Returns whether a recipe's header says so; tests/models/test_gpu_recipes.py builds those."""
    return "# Expect: for a GPU" in shipped_recipes()[name].read_text()


@pytest.fixture(scope="session")
def data_home(tmp_path_factory) -> None:
    """Fetches what a recipe wants and this machine can give."""
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWAY_DATA", str(home))
        yield home


@pytest.fixture(scope="session")
def five_steps(data_home, tmp_path_factory):
    """Returns a function that fits a recipe for five steps, and before it those that it starts from, each once."""
    runs = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(name: str) -> FitResult:
        recipe = load_recipe(name)
        kind = recipe.data.kind
        if kind in FETCHED:
            try:
                fetch(FETCHED[kind], data_home, report=lambda line: None)
            except UserError as missing:
                pytest.skip(f"{FETCHED[kind]} cannot be had here: {missing}")
        changes = {
            "trainer.max_steps": 5, "trainer.validate_every": 5, "trainer.eval_batch_size": 500, "trainer.threads": 1,
            "track.wandb": "disabled",
        }  # fmt: skip
        changes |= SMALLER.get(kind, {})
        for setting, value in recipe.dotted().items():
            # A run of another recipe, under the name that the header has the user give it.
            if isinstance(value, str) and Path(value).parent.name == "runs":
                changes[setting] = run(Path(value).name).run_dir
        return fit(name, changes, runs=runs, progress=False)

    return run


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if not is_for_a_gpu(name)])
def test_a_shipped_recipe_trains(name: str, five_steps) -> None:
    result = five_steps(name)
    assert result.step == 5
    assert result.metrics["test/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metric", "least"), [("mlp-digits", "test/accuracy", 0.95), ("convnet-digits", "test/accuracy", 0.97)]
)
def test_digits_are_read(command, tmp_path, name: str, metric: str, least: float) -> None:
    done = command("fit", name, "--json", "--runs", tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"][metric] >= least


@pytest.mark.slow
def test_half_of_the_gpt_recipe_is_well_under_two_nats(tmp_path) -> None:
    changes = {"trainer.max_steps": 1000, "trainer.validate_every": 1000, "track.wandb": "disabled"}
    assert fit("gpt-python-docs", changes, runs=tmp_path, progress=False).metrics["val/loss"] < 1.75


@pytest.mark.soak
def test_the_gpt_recipe_reaches_its_header(tmp_path) -> None:
    result = fit("gpt-python-docs", {"track.wandb": "disabled"}, runs=tmp_path, progress=False)
    assert result.metrics["val/loss"] < 1.45


@pytest.mark.soak
def test_the_demo_ends_with_equal_losses(command, tmp_path) -> None:
    done = command("demo", "--runs", tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "DDP and ZeRO-2: 800 steps, losses equal to" in done.stdout
    assert "What next" in done.stdout
