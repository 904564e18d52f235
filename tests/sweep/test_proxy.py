"""Searching on a narrow copy of a net: the check before, and the training at full width after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headway.config.contracts import Place
from headway.config.errors import UserError
from headway.fit import prepare
from headway.recipe import load_recipe
from headway.run import RunFolder
from headway.sweep import sweep
from headway.sweep.check import check_sweep
from headway.sweep.proxy import MOST_GROWTH, growths

TREE: dict[str, Any] = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [128, 128], "activation": "relu"},
    "data": "digits",
    "init": {"kind": "mup", "base_width": 16},
    "optim": {"kind": "adamw", "lr": 0.003},
    "trainer": {"max_epochs": 2, "batch_size": 64},
    "track": {"wandb": "disabled"},
    "sweep": {
        "trials": 3, "fuse": "on", "proxy": {"model.hidden": [16, 16]},
        "space": {"optim.lr": {"loguniform": [1e-3, 1e-1]}},
    },
}  # fmt: skip


@pytest.mark.parametrize("init", ["mup", "kaiming", "normal"])
def test_only_mups_outputs_move_alike_at_all_widths(init: str) -> None:
    start = {"kind": "mup", "base_width": 64} if init == "mup" else {"kind": init}
    narrow, wide = (
        load_recipe({**TREE, "init": start, "model": {**TREE["model"], "hidden": [width, width]}})
        for width in (64, 512)
    )
    found = {growth.layer: growth.exponent for growth in growths(narrow, wide, prepare(wide, Place()), factor=8)}
    if init == "mup":
        assert all(abs(exponent) < MOST_GROWTH / 2 for exponent in found.values())
    else:
        assert found["hidden.1.linear"] > MOST_GROWTH
        assert found["output"] > MOST_GROWTH


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"init": "kaiming"}, "sweep.proxy: what is best depends on the width, but under muP; set init.kind=mup"),
        ({"sweep.proxy": {"model.hidden": [128, 128]}}, "sweep.proxy: width 128 is not below the recipe's 128"),
        ({"sweep.proxy": {"optim.lr": 0.1}}, "sweep.proxy: optim.lr is no size of the net"),
        ({"sweep.proxy": {"model.hiden": [16]}}, "did you mean model.hidden?"),
        ({"sweep.space": {"model.hidden": {"choice": [[16, 16]]}}}, "sweep.proxy: model.hidden is in the space, too"),
    ],
)
def test_a_proxy_that_says_nothing_of_the_net_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as refused:
        check_sweep(TREE, changes)
    assert line in str(refused.value)


def test_the_best_of_the_narrow_copy_is_trained_at_full_width(tmp_path: Path) -> None:
    found = sweep(TREE, runs=tmp_path, name="s", progress=False)
    assert found.best is not None
    assert found.refit is not None
    full = load_recipe(RunFolder(tmp_path / "s-full").recipe)
    assert full.model.hidden == (128, 128)  # type: ignore[union-attr]
    assert full.optim.lr == found.best.config["optim.lr"]  # type: ignore[union-attr]
    narrow = load_recipe(RunFolder(Path(found.best.run_dir)).recipe)
    assert narrow.model.hidden == (16, 16)  # type: ignore[union-attr]
    assert found.refit["status"] == "done"
    assert "s-full" not in [trial.run_id for trial in found.trials]
