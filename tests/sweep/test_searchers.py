"""What proposes trials, stops them and changes them: Ray's and Optuna's own, under the real Tune, over rows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from headway.checkpoint import store
from headway.config.space import SweepSection
from headway.run import RunFolder, read_metrics
from headway.sweep import SweepResult, sweep
from headway.sweep._proposals import build_searcher
from headway.sweep._tune import quiet_environment, ray_session

TREE = {
    "name": "tiny",
    "model": {"kind": "mlp", "hidden": [7], "activation": "tanh", "dropout": 0.1},
    "data": "digits",
    "init": "kaiming",
    "optim": {"kind": "adamw", "lr": 0.1},
    "trainer": {"max_epochs": 4, "batch_size": 128, "precision": "fp64"},
    "track": {"wandb": "disabled"},
    "sweep": {
        "trials": 8,
        "fuse": "on",
        "space": {
            "init.kind": {"choice": ["xavier", "orthogonal"]},
            "init.gain": {"uniform": [0.5, 2.0], "when": {"init.kind": "orthogonal"}},
            "model.dropout": {"quniform": [0.0, 0.5, 0.1]},
            "optim.lr": {"loguniform": [1e-5, 1e-1]},
        },
    },
}
STEPS_PER_EPOCH = 10  # 1,257 digits in batches of 128
BOWL = {"x": {"uniform": [-5.0, 5.0]}, "y": {"loguniform": [1e-3, 1e3]}}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    with quiet_environment(), ray_session(4):
        yield


def search(tmp_path: Path, name: str, **settings: Any) -> SweepResult:
    changes = {f"sweep.{key}" if "." not in key else key: value for key, value in settings.items()}
    return sweep(TREE, changes, runs=tmp_path, name=name, progress=False)


# ---- searchers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("searcher", ["random", "sobol", "tpe", "cmaes"])
def test_every_searcher_keeps_to_the_space_and_proposes_the_same_again(
    ray: None, tmp_path: Path, searcher: str
) -> None:
    first, again = (
        search(tmp_path / name, name, searcher=searcher, trials=5, max_concurrent=2, **{"trainer.max_epochs": 1})
        for name in ("first", "again")
    )
    samples = [trial.config for trial in first.trials]
    assert samples == [trial.config for trial in again.trials]
    assert len({json.dumps(sample) for sample in samples}) == 5
    for sample in samples:
        assert ("init.gain" in sample) == (sample["init.kind"] == "orthogonal")
        assert sample["model.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
        assert 1e-5 <= sample["optim.lr"] < 1e-1
    assert {trial.status for trial in first.trials} == {"done"}


def best_of_bowl(searcher: str, seed: int, num_trials: int) -> float:
    """Returns the least of x^2 + log10(y)^2 that Ray's own searcher finds."""
    section = SweepSection.model_validate({"trials": num_trials, "searcher": searcher, "space": BOWL})
    proposes = build_searcher(section, seed=seed)[0].searcher
    found = []
    for number in range(num_trials):
        sample = proposes.suggest(str(number))
        found.append(sample["x"] ** 2 + math.log10(sample["y"]) ** 2)
        proposes.on_trial_complete(str(number), {"val/loss": found[-1], "training_iteration": 1})
    return min(found)


@pytest.mark.parametrize("searcher", ["tpe", "cmaes"])
def test_what_learns_from_trials_beats_chance_on_a_bowl(searcher: str) -> None:
    generator = torch.Generator().manual_seed(3)
    chance = []
    for _ in range(9):
        x_N, log_y_N = (high * (2 * torch.rand(60, generator=generator) - 1) for high in (5.0, 3.0))
        chance.append(float((x_N**2 + log_y_N**2).min()))
    learned = sorted(best_of_bowl(searcher, seed, 60) for seed in range(9))
    assert learned[4] < 0.5 * sorted(chance)[4]


def test_a_sobol_sequence_fills_every_cell_of_a_line(ray: None, tmp_path: Path) -> None:
    space = {"optim.lr": {"loguniform": [1e-4, 1e-0]}}
    found = search(tmp_path, "s", searcher="sobol", trials=8, space=space, **{"trainer.max_epochs": 1})
    cells = {int((math.log10(trial.config["optim.lr"]) + 4) / 4 * 8) for trial in found.trials}
    assert cells == set(range(8))


def test_a_grid_with_a_condition_tries_each_sample_once(ray: None, tmp_path: Path) -> None:
    space = {
        "init.kind": {"choice": ["xavier", "orthogonal"]},
        "init.gain": {"choice": [1.0, 2.0], "when": {"init.kind": "orthogonal"}},
        "optim.lr": 0.01,
    }
    found = search(tmp_path, "g", searcher="grid", space=space, **{"trainer.max_epochs": 1})
    assert [trial.config for trial in found.trials] == [
        {"init.kind": "xavier", "optim.lr": 0.01},
        {"init.kind": "orthogonal", "init.gain": 1.0, "optim.lr": 0.01},
        {"init.kind": "orthogonal", "init.gain": 2.0, "optim.lr": 0.01},
    ]


# ---- schedulers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_stops_the_arms_that_learn_nothing(ray: None, tmp_path: Path, scheduler: str) -> None:
    rates = [0.03, 0.02, 0.04, 0.025, 1e-7, 2e-7, 3e-7, 4e-7]
    settings = {"searcher": "grid", "space": {"optim.lr": {"choice": rates}}, "trainer.max_epochs": 9}
    found = search(tmp_path, "s", scheduler=scheduler, **settings)
    stopped = {trial.config["optim.lr"] for trial in found.trials if trial.status == "stopped"}
    assert {2e-7, 3e-7, 4e-7} <= stopped
    assert found.best is not None
    assert found.best.status == "done"
    assert found.best.config["optim.lr"] > 0.01


def test_hyperband_pauses_and_goes_on_with_the_better_half(ray: None, tmp_path: Path) -> None:
    settings = {"trials": 12, "trainer.max_epochs": 9, "scheduler": {"kind": "hyperband", "reduction": 2}}
    found = search(tmp_path, "h", **settings)
    by_status = {status: [t for t in found.trials if t.status == status] for status in ("done", "stopped", "failed")}
    assert not by_status["failed"]
    assert by_status["done"]
    assert by_status["stopped"]
    # One that was paused went on from where it was: each validation is there once.
    for trial in found.trials:
        steps = [row["step"] for row in read_metrics(RunFolder(Path(trial.run_dir)).metrics) if "val/loss" in row]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize(("trials", "stops"), [(7, False), (8, True)])
def test_hyperband_says_where_its_first_bracket_stops_nothing(
    ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], trials: int, stops: bool
) -> None:
    settings = {"sweep.trials": trials, "trainer.max_epochs": 9, "sweep.fuse": "on"}
    changes = {**settings, "sweep.scheduler": {"kind": "hyperband", "reduction": 2}}
    found = sweep(TREE, changes, runs=tmp_path, name="h")
    said = "hyperband stops none of 7 trials: its first bracket, of 7, lets all finish" in capsys.readouterr().err
    assert said is not stops
    assert stops or {trial.status for trial in found.trials} == {"done"}


# Processes do not start at once: trials that end before the next has begun would have nobody to take weights from.
@pytest.mark.parametrize(("fuse", "synchronous"), [("on", False), ("on", True), ("off", True)])
def test_a_population_takes_weights_and_keeps_changed_settings_apart(
    ray: None, tmp_path: Path, fuse: str, synchronous: bool
) -> None:
    space = {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "optim.weight_decay": {"uniform": [0.0, 0.1]}}
    settings = {"scheduler": {"kind": "pbt", "quantile": 0.5, "resample": 0.0}, "space": space, "fuse": fuse}
    settings["scheduler"]["interval_steps"] = STEPS_PER_EPOCH
    settings["scheduler"]["synchronous"] = synchronous
    found = search(tmp_path, "p", trials=4, **settings, **{"trainer.max_epochs": 3, "max_concurrent": 4})
    assert {trial.status for trial in found.trials} == {"done"}
    exchanges = 0
    for trial in found.trials:
        run = RunFolder(Path(trial.run_dir))
        for lent in read_metrics(run.path / "lineage.jsonl"):
            exchanges += 1
            assert lent["from"] != run.id
            assert 1e-4 <= lent["config"]["optim.lr"] <= 1e-1
            # The rate of the steps after the exchange is the changed one, not the lender's that the weights came with.
            after = [row for row in read_metrics(run.metrics) if "train/lr" in row and row["step"] == lent["step"] + 1]
            own = [row["train/lr"] for row in after]
            assert not own or own[0] <= 1e-1
        recipe = run.recipe.read_text()
        assert f"lr: {trial.config['optim.lr']}" in recipe
        assert f"weight_decay: {trial.config['optim.weight_decay']}" in recipe
    assert exchanges
    assert found.command == f"headway eval {found.best.run_dir}"  # type: ignore[union-attr]


def test_a_trial_that_adopts_has_the_lenders_weights_and_its_own_settings(ray: None, tmp_path: Path) -> None:
    from headway.sweep._trial_run import TrialJob, TrialRun

    found = search(tmp_path, "a", trials=2, **{"trainer.max_epochs": 2})
    section = SweepSection.model_validate({**TREE["sweep"], "trials": 2, "scheduler": "pbt"})  # type: ignore[dict-item]
    tree = {**TREE, "sweep": section.model_dump(exclude_unset=True)}
    job = TrialJob(tree, {}, section, str(tmp_path), "a", (), str(tmp_path))
    lender, taker = (TrialRun(job, number, found.trials[number].config) for number in (0, 1))
    (tmp_path / "lent").mkdir()
    lender.lend(tmp_path / "lent")
    taker.adopt(tmp_path / "lent")
    lent, _ = store.load_newest(lender.run.checkpoints)
    taken, _ = store.load_newest(taker.run.checkpoints)
    assert lent is not None
    assert taken is not None
    assert all(torch.equal(weight, taken.weights[name]) for name, weight in lent.weights.items())
    assert all(torch.equal(state, taken.optimizer[name]) for name, state in lent.optimizer.items())
    assert taker.recipe().optim.lr == found.trials[1].config["optim.lr"]  # type: ignore[union-attr]
    # Its best is the better of both, and its weights are there.
    values = [RunFolder(Path(trial.run_dir)).status()["best"]["value"] for trial in found.trials]
    assert taken.position["best"]["value"] == min(values)
    assert store.load(taker.run.checkpoints / f"{taken.position['best']['step']:08d}")


# hpbandster was last released in 2018, and GPy's arithmetic warns.
@pytest.mark.filterwarnings("ignore")
def test_bohb_learns_from_the_rungs_and_remembers_them(ray: None, tmp_path: Path) -> None:
    pytest.importorskip("hpbandster", reason="hpbandster is not installed: pip install 'headway[bohb]'")
    pytest.importorskip("ConfigSpace", reason="ConfigSpace is not installed: pip install 'headway[bohb]'")
    settings = {"searcher": "bohb", "scheduler": {"kind": "hyperband", "reduction": 2}, "trainer.max_epochs": 9}
    found = search(tmp_path, "b", trials=12, **settings)
    assert {trial.status for trial in found.trials} == {"done", "stopped"}
    learned = [row for row in read_metrics(tmp_path / "b" / "journal.jsonl") if row["kind"] == "learn"]
    assert len({row["budget"] for row in learned}) > 1
    more = sweep(resume="b", overrides=["sweep.trials=14"], runs=tmp_path, progress=False)
    assert more.trials[:12] == found.trials
    assert len(more.trials) == 14


@pytest.mark.filterwarnings("ignore")
def test_pb2_proposes_settings_by_its_model(ray: None, tmp_path: Path) -> None:
    pytest.importorskip("GPy", reason="GPy is not installed: pip install 'headway[pb2]'")
    space = {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "optim.weight_decay": {"uniform": [0.0, 0.1]}}
    settings = {"scheduler": {"kind": "pb2", "quantile": 0.5}, "space": space, "trainer.max_epochs": 6}
    found = search(tmp_path, "p", trials=4, max_concurrent=4, **settings)
    assert {trial.status for trial in found.trials} == {"done"}
    changed = [row for t in found.trials for row in read_metrics(Path(t.run_dir) / "lineage.jsonl")]
    assert changed
    assert all(1e-4 <= row["config"]["optim.lr"] <= 1e-1 for row in changed)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ({"searcher": "bohb"}, "searcher is bohb, which learns from hyperband's rungs; set scheduler to hyperband"),
        ({"searcher": "tpe", "scheduler": "pbt"}, "scheduler is pbt, which proposes settings itself; use random"),
        ({"searcher": "cmaes", "space": {"init.kind": {"choice": ["xavier"]}}}, "has no range that is always drawn"),
    ],
)
def test_what_does_not_go_together_is_refused(setting: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        SweepSection.model_validate({**TREE["sweep"], **setting})  # type: ignore[dict-item]
