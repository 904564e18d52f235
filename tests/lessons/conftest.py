"""Both sides of a lesson are trained here, by the recipes that come along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from headway.fit import FitResult, fit

Train = Callable[..., FitResult]


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Returns a function that fits a recipe, with changes, and says how it ended."""

    def run(recipe: str, changes: Mapping[str, Any] | None = None, *, seed: int = 0) -> FitResult:
        settings = {"track.wandb": "disabled", "trainer.threads": 1, "trainer.seed": seed}
        return fit(recipe, {**settings, **(changes or {})}, runs=tmp_path, progress=False)

    return run


@pytest.fixture
def average(train: Train) -> Callable[..., float]:
    """Returns a function that fits a recipe from several seeds and gives the mean of a metric."""

    def run(recipe: str, metric: str, changes: Mapping[str, Any] | None = None, *, seeds: Iterable[int]) -> float:
        return mean(train(recipe, changes, seed=seed).metrics[metric] for seed in seeds)

    return run


@pytest.fixture
def weights_of() -> Callable[[FitResult], dict[str, Tensor]]:
    """Returns a function that reads the last weights of a run."""

    def read(result: FitResult) -> dict[str, Tensor]:
        return load_file(Path(result.run_dir) / "checkpoints" / f"{result.step:08d}" / "weights.safetensors")

    return read
