"""Runs that are trained for a few steps once, for all tests of a module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.evaluate.loading import LoadedRun, load_run
from headway.evaluate.selection import Selection, select
from headway.fit import FitResult, fit

TEXT = "the cat sat on the mat.\nthe dog sat on the log.\nwas it a cat I saw?\n" * 40
LANGUAGE = {"kind": "text", "sequence_length": 11}
RECIPES: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"kind": "mlp", "hidden": [17], "dropout": 0.2}, "data": "digits"},
    "images": {"model": "logistic", "data": {"kind": "digits", "layout": "image"}},
    "linear": {"model": "logistic", "data": "breast_cancer"},
    "regression": {"model": "logistic", "data": "diabetes"},
    "gpt": {"model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 14}, "data": LANGUAGE},
    "bpe": {
        "model": {"kind": "gpt", "num_layers": 1, "num_heads": 2, "width": 14},
        "data": {**LANGUAGE, "vocabulary": "bpe", "vocab_size": 275},
    },
    "lstm": {"model": {"kind": "lstm", "hidden": 13, "num_layers": 2, "dropout": 0.3}, "data": LANGUAGE},
    "ngram": {"model": {"kind": "ngram", "context": 3, "embedding": 5, "hidden": 7}, "data": LANGUAGE},
}
TRAINER = {"max_steps": 20, "batch_size": 32, "validate_every": 10, "threads": 1, "accelerator": "cpu"}


class Runs:
    """Trains a recipe of `RECIPES` when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.text = folder / "text.txt"
        self.text.write_text(TEXT)
        self.results: dict[str, FitResult] = {}

    def fit(self, name: str, recipe: dict[str, Any] | None = None) -> FitResult:
        if name not in self.results:
            tree = {"optim": {"kind": "adamw", "lr": 0.01}, "track": {"wandb": "disabled"}, **(recipe or RECIPES[name])}
            if isinstance(tree["data"], dict) and tree["data"]["kind"] == "text":
                tree["data"] = {"path": str(self.text), **tree["data"]}
            tree["trainer"] = {**TRAINER, **tree.get("trainer", {})}
            self.results[name] = fit({"name": name, **tree}, runs=self.folder, name=name, progress=False)
        return self.results[name]

    def select(self, name: str, **choice: Any) -> Selection:
        self.fit(name)
        return select(name, runs=self.folder, **choice)

    def load(self, name: str, **choice: Any) -> LoadedRun:
        return load_run(self.select(name, **choice), device="cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def moved(runs: Runs, tmp_path: Path) -> Callable[[str], Path]:
    """Returns a function that copies a run to a folder of its own, to be spoilt."""
    import shutil

    def copy(name: str) -> Path:
        runs.fit(name)
        return Path(shutil.copytree(runs.folder / name, tmp_path / name))

    return copy
