"""Which hyperparameter mattered, on trials whose values are a known function of what was sampled."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headway.cli import run
from headway.config.space import Distribution
from headway.sweep.folder import SweepFolder
from headway.sweep.importance import MAX_TRIALS, Importance, measure_importance
from headway.sweep.plots import write_plots
from headway.sweep.result import Status, Trial

pytestmark = pytest.mark.quick

SPACE = {
    "optim.lr": Distribution(loguniform=(1e-4, 1e-1)),
    "model.dropout": Distribution(uniform=(0, 0.5)),
    "init.kind": Distribution(choice=["xavier", "kaiming", [7, 5], True, 1]),
}
WriteSweep = Callable[..., Path]


def trial(number: int, config: dict[str, Any], value: float | None, status: Status = "done") -> Trial:
    return Trial(f"s-{number:04d}", "", status, config, value, 10)


def valley(num_trials: int, *, seed: int = 3) -> list[Trial]:
    """Returns trials whose value is least where the rate is 0.003, with a little noise; nothing else matters."""
    draw = random.Random(seed)
    trials = []
    for number in range(num_trials):
        exponent = draw.uniform(-4, -1)
        config = {
            "optim.lr": 10**exponent,
            "model.dropout": draw.uniform(0, 0.5),
            "init.kind": draw.choice(SPACE["init.kind"].choice or []),
        }
        trials.append(trial(number, config, 0.5 + (exponent + 2.5) ** 2 + draw.uniform(0, 0.05)))
    return trials


def parts(found: Importance) -> dict[str, float | None]:
    return {effect.path: effect.importance for effect in found.effects}


def measure(trials: list[Trial], space: dict[str, Distribution] | None = None, mode: str = "min") -> Importance:
    return measure_importance(trials, SPACE if space is None else space, mode=mode)


def test_the_one_that_matters_is_first_and_has_most() -> None:
    found = measure(valley(40))
    assert found.effects[0].path == "optim.lr"
    assert (found.effects[0].importance or 0) > 0.8
    assert sum(part or 0 for part in parts(found).values()) == pytest.approx(1)


def test_a_choice_can_be_what_matters() -> None:
    trials = [trial(n, {**one.config}, float(one.config["init.kind"] == "xavier")) for n, one in enumerate(valley(40))]
    assert measure(trials).effects[0].path == "init.kind"


def test_the_same_trials_give_the_same_answer() -> None:
    assert measure(valley(23)) == measure(valley(23))


def test_one_trial_that_exploded_changes_little() -> None:
    trials = valley(40)
    exploded = trial(40, {"optim.lr": 0.09, "model.dropout": 0.01, "init.kind": "xavier"}, 1e30)
    assert (parts(measure([*trials, exploded]))["optim.lr"] or 0) > 0.8


def test_only_trials_that_ended_with_a_value_count() -> None:
    misleading = {"optim.lr": 0.003, "model.dropout": 0.2, "init.kind": "xavier"}
    others = [
        trial(40, misleading, 99.0, "failed"),
        trial(41, misleading, 99.0, "running"),
        trial(42, misleading, None),
        trial(43, misleading, float("nan")),
    ]
    assert measure([*valley(40), *others]) == measure(valley(40))


def test_a_path_that_some_trials_lack_is_measured_in_those_that_have_it() -> None:
    draw = random.Random(5)
    trials = []
    for number in range(60):
        kind, momentum, rate = draw.choice(["sgd", "adam"]), draw.uniform(0, 1), draw.uniform(0.001, 0.1)
        config = {"optim.kind": kind, "optim.lr": rate, **({"optim.momentum": momentum} if kind == "sgd" else {})}
        trials.append(trial(number, config, momentum if kind == "sgd" else 2.0))
    space = {
        "optim.kind": Distribution(choice=["sgd", "adam"]),
        "optim.lr": Distribution(loguniform=(0.001, 0.1)),
        "optim.momentum": Distribution(uniform=(0, 1)),
    }
    found = measure(trials, space)
    by_path = {effect.path: effect for effect in found.effects}
    assert by_path["optim.momentum"].num_trials == sum("optim.momentum" in one.config for one in trials)
    assert (by_path["optim.momentum"].importance or 0) > 0.8
    assert (by_path["optim.kind"].importance or 0) > 0.8
    assert (by_path["optim.lr"].importance or 1) < 0.2


def test_a_path_that_too_few_trials_have_has_no_number() -> None:
    trials = valley(20)
    for number in (0, 1):
        trials[number].config["model.width"] = number
    found = measure(trials, {**SPACE, "model.width": Distribution(randint=(0, 5))})
    assert parts(found)["model.width"] is None
    assert found.effects[-1].num_trials == 2


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        ([], "0 trials ended with a value; 4 are needed"),
        (valley(1), "1 trial ended with a value; 4 are needed"),
        (valley(3), "3 trials ended with a value; 4 are needed"),
        ([trial(n, {"optim.lr": 0.01 * (n + 1)}, 0.5) for n in range(5)], "all 5 trials have the same value"),
        ([trial(n, {"optim.lr": 0.01}, float(n)) for n in range(5)], "no hyperparameter took two values"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(trials: list[Trial], reason: str) -> None:
    found = measure(trials)
    assert found.effects == []
    assert found.reason is not None
    assert found.reason.startswith(reason)


def test_many_trials_are_thinned_evenly() -> None:
    trials = [trial(n, {"optim.lr": 0.001 + 1e-5 * n}, float(n)) for n in range(2 * MAX_TRIALS + 1)]
    assert parts(measure(trials)) == {"optim.lr": pytest.approx(1)}


def test_the_sketch_has_the_valley_where_it_is() -> None:
    sketch = next(effect.sketch for effect in measure(valley(120)).effects if effect.path == "optim.lr")
    low, blocks, high = sketch.split()
    assert float(low) < 0.0002
    assert float(high) > 0.08
    assert len(blocks) == 12
    assert blocks[0] == blocks[-1] == "█"
    assert blocks[5] in "▁▂"
    assert blocks[6] in "▁▂"


def test_bins_without_a_trial_are_dots() -> None:
    trials = [trial(n, {"model.dropout": place}, float(n)) for n, place in enumerate([0.0, 0.001, 0.002, 0.4])]
    (effect,) = measure(trials).effects
    assert effect.sketch == "0 ▃··········█ 0.4"


@pytest.mark.parametrize(("mode", "said"), [("min", "a 2 (1)  b 5 (4)"), ("max", "b 5 (6)  a 2 (3)")])
def test_choices_have_median_and_best_the_best_first(mode: str, said: str) -> None:
    values = {1.0: "a", 2.0: "a", 3.0: "a", 4.0: "b", 5.0: "b", 6.0: "b"}
    trials = [trial(n, {"init.kind": kind}, value) for n, (value, kind) in enumerate(values.items())]
    (effect,) = measure(trials, mode=mode).effects
    assert effect.sketch == said


# ---- where it is shown -----------------------------------------------------------------------------


def samples(num_trials: int) -> list[tuple[dict[str, Any], float | None]]:
    return [(one.config, one.value) for one in valley(num_trials)]


def dumped(space: dict[str, Distribution]) -> dict[str, Any]:
    return {path: drawn.model_dump(mode="json", exclude_none=True) for path, drawn in space.items()}


def test_show_prints_bars_before_the_command(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(samples(40), space=dumped(SPACE))
    assert run(["sweeps", "show", "s", "--runs", str(path.parent)]) == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("hyperparameter"))
    assert lines[header + 1].startswith("optim.lr")
    assert "█████" in lines[header + 1]
    assert lines[-1].startswith("headway fit ")


def test_show_says_why_there_is_no_importance(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(samples(2), space=dumped(SPACE))
    assert run(["sweeps", "show", "s", "--runs", str(path.parent)]) == 0
    assert "importance: 2 trials ended with a value; 4 are needed" in capsys.readouterr().out


def test_show_plots_writes_a_picture_of_each_path(write_sweep: WriteSweep, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_sweep(samples(7), space=dumped(SPACE), statuses=["done"] * 5 + ["stopped"] * 2)
    assert run(["sweeps", "show", "s", "--plots", "--runs", str(path.parent)]) == 0
    pictures = sorted(path.glob("plots/*.png"))
    assert [picture.name for picture in pictures] == ["init.kind.png", "model.dropout.png", "optim.lr.png"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "3 plots in" in capsys.readouterr().err


def test_one_trial_makes_no_picture(write_sweep: WriteSweep) -> None:
    path = write_sweep(samples(1), space=dumped(SPACE))
    assert write_plots(SweepFolder(path)) == []
    assert not (path / "plots").exists()


def test_a_metric_of_many_decades_has_a_logarithmic_axis(
    write_sweep: WriteSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    asked: list[str] = []
    monkeypatch.setattr(Axes, "set_xscale", lambda self, scale: asked.append(f"x {scale}"))
    monkeypatch.setattr(Axes, "set_yscale", lambda self, scale: asked.append(f"y {scale}"))
    space = {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "model.dropout": {"uniform": [0, 0.5]}}
    trials = [({"optim.lr": 0.01, "model.dropout": 0.1}, 0.01), ({"optim.lr": 0.02, "model.dropout": 0.2}, 7.0)]
    write_plots(SweepFolder(write_sweep(trials, space=space)))
    assert sorted(asked) == ["x log", "y log", "y log"]


def test_rates_and_losses_of_any_size_are_drawn_without_a_word(write_sweep: WriteSweep) -> None:
    space = {"optim.lr": {"loguniform": [1e-300, 1e305]}, "optim.weight_decay": {"uniform": [0, 1.7e308]}}
    rates = (1e-300, 1e-2, 1e305)
    trials = [({"optim.lr": rate, "optim.weight_decay": 1.7 * rate}, rate) for rate in rates]
    trials.append(({"optim.lr": 1e300, "optim.weight_decay": 1.7e308}, 1.7e308))
    # Warnings are errors.
    assert len(write_plots(SweepFolder(write_sweep(trials, space=space)))) == 2


def test_a_path_of_one_value_makes_no_picture(write_sweep: WriteSweep) -> None:
    trials = [({"optim.lr": rate, "model.dropout": 0.1}, rate) for rate in (0.01, 0.02, 0.03)]
    written = write_plots(SweepFolder(write_sweep(trials, space=dumped(SPACE))))
    assert [file.name for file in written] == ["optim.lr.png"]
