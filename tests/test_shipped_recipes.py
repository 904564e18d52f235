"""Every recipe that comes along trains, and reaches what its header promises."""

from __future__ import annotations

import json

import pytest

from headway.config.errors import UserError
from headway.config.shipped import shipped_recipes
from headway.data._store import fetch
from headway.fit import fit


@pytest.fixture(scope="session")
def data_home(tmp_path_factory) -> None:
    """Fetches what a recipe wants and this machine can give."""
    home = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADWAY_DATA", str(home))
        yield home


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_shipped_recipe_trains(name: str, data_home, tmp_path) -> None:
    if name == "convnet-fashion-mnist":
        try:
            fetch("fashion_mnist", data_home, report=lambda line: None)
        except UserError as missing:
            pytest.skip(f"Fashion-MNIST cannot be had here: {missing}")
    changes = {
        "trainer.max_steps": 5,
        "trainer.validate_every": 5,
        "trainer.eval_batch_size": 2000,
        "track.wandb": "disabled",
    }
    result = fit(name, changes, runs=tmp_path, progress=False)
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
