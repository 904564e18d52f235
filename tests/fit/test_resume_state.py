"""A run that goes on has what no weight and no step says: the state that rows carry, and an optimizer's own memory."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import headway as hw
from headway.checkpoint.keeper import Keeper
from headway.config.errors import Stopped
from headway.run import read_metrics
from headway.supervise.signals import StopFlag
from headway.training import Ending

CARRYING = {
    "model": {"kind": "lstm", "hidden": 7},
    "data": {"kind": "text", "sequence_length": 5, "carry": True, "max_characters": 5_000},
    "init": "uniform_fan_in",
    "optim": {"kind": "adamw", "lr": 0.01},
    "trainer": {"max_steps": 13, "batch_size": 11, "micro_batch": 4, "validate_every": 100, "threads": 1},
    "track": {"wandb": "disabled"},
}
SECOND_ORDER = {
    "model": {"kind": "mlp", "hidden": [5], "activation": "tanh"},
    "data": "breast_cancer",
    "init": "xavier",
    "optim": {"kind": "lbfgs", "lr": 1.0, "max_iterations": 2, "history_size": 3},
    "trainer": {"max_steps": 13, "batch_size": 1000, "validate_every": 100, "threads": 1},
    "track": {"wandb": "disabled"},
}


def weights(folder: Path, name: str, step: int = 13) -> dict[str, torch.Tensor]:
    return load_file(folder / name / "checkpoints" / f"{step:08d}" / "weights.safetensors")


def go_on(tree, folder: Path, name: str, **changes) -> None:
    hw.fit(tree, {"trainer.max_steps": 7}, runs=folder, name=name, progress=False)
    hw.fit(None, {"trainer.max_steps": 13, **changes}, resume=name, runs=folder, progress=False)


@pytest.mark.parametrize("tree", [CARRYING, SECOND_ORDER], ids=["carried state", "L-BFGS"])
def test_going_on_ends_with_the_weights_of_a_run_that_never_stopped(tmp_path, tree):
    hw.fit(tree, runs=tmp_path, name="whole", progress=False)
    go_on(tree, tmp_path, "parted")
    torch.testing.assert_close(weights(tmp_path, "parted"), weights(tmp_path, "whole"), rtol=0, atol=0)


def test_the_carried_state_is_that_of_rows_whatever_the_micro_batches(tmp_path):
    hw.fit(CARRYING, runs=tmp_path, name="whole", progress=False)
    go_on(CARRYING, tmp_path, "parted", **{"trainer.micro_batch": 3})
    torch.testing.assert_close(weights(tmp_path, "parted"), weights(tmp_path, "whole"))
    carried = load_file(tmp_path / "parted" / "checkpoints" / "00000013" / "carried.safetensors")
    assert {name: tuple(value.shape) for name, value in carried.items()} == {"hidden": (11, 1, 7), "cell": (11, 1, 7)}


def test_a_run_that_forgets_its_state_ends_elsewhere(tmp_path):
    """Or else the two tests above would hold whatever a checkpoint keeps."""
    hw.fit(CARRYING, runs=tmp_path, name="whole", progress=False)
    hw.fit({**CARRYING, "data": {**CARRYING["data"], "carry": False}}, runs=tmp_path, name="other", progress=False)
    one, two = weights(tmp_path, "whole"), weights(tmp_path, "other")
    assert any(not torch.allclose(one[name], two[name]) for name in one)


SHORT = {
    "model": {"kind": "mlp", "hidden": [5]},
    "data": "breast_cancer",
    "init": "xavier",
    "optim": {"kind": "sgd", "lr": 0.1},
    "trainer": {
        "max_steps": 12, "batch_size": 32, "validate_every": 4, "steps_per_call": 4, "threads": 1,
        "early_stopping": {"patience": 9},
    },
    "track": {"wandb": "disabled", "every": 1},
}  # fmt: skip


@pytest.mark.parametrize("num_chunks", [1, 3])
def test_a_validation_that_a_signal_came_before_is_made_by_who_goes_on(tmp_path, monkeypatch, num_chunks):
    told = []

    def stop_after_some(flag: StopFlag) -> bool:
        told.append(flag)
        if len(told) == num_chunks:
            flag.signal_number = signal.SIGTERM
        return flag.signal_number is not None

    whole = hw.fit(SHORT, runs=tmp_path, name="whole", progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(StopFlag, "__call__", stop_after_some)
        with pytest.raises(Stopped, match=f"stopped at step {4 * num_chunks};"):
            hw.fit(SHORT, runs=tmp_path, name="parted", progress=False)
    parted = hw.fit(None, resume="parted", runs=tmp_path, progress=False)
    made = {name: value for name, value in whole.metrics.items() if name in parted.metrics}
    assert parted.metrics == made
    assert {"val/loss", "test/loss"} <= made.keys()
    validations = [
        [(row["step"], row["val/loss"]) for row in read_metrics(tmp_path / name / "metrics.jsonl") if "val/loss" in row]
        for name in ("whole", "parted")
    ]
    assert validations[0] == validations[1]
    assert [step for step, _ in validations[1]] == [4, 8, 12]


def test_who_is_killed_in_a_validation_makes_it_again(tmp_path, monkeypatch):
    """A position is saved before it alone where a signal asks for one, and then says so."""
    steps = []
    monkeypatch.setattr(Keeper, "save", lambda keeper, trainer, objective, **_: steps.append(objective.step))
    monkeypatch.setattr(Ending, "on_fit_end", lambda *_: None)
    hw.fit(SHORT, {"trainer.checkpoint_every": 2, "trainer.steps_per_call": 1}, runs=tmp_path, progress=False)
    assert steps == [2, 4, 6, 8, 10, 12]
