"""Health against a loop written by hand, in plain torch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headway.config.contracts import Place
from headway.config.errors import UserError
from headway.diagnose.health import Health, moments, norms, watch_health
from headway.fit import fit
from headway.fused.fit import fit_rows
from headway.prepare import prepare
from headway.recipe import Recipe, load_recipe
from headway.run import read_metrics
from headway.training import build_objective

STEPS = 3
TRAINER = {"max_steps": STEPS, "batch_size": 23, "seed": 7, "threads": 1, "precision": "fp64"}
OPTIM = {"kind": "sgd", "lr": 0.1, "momentum": 0.9}
TRACK = {"wandb": "disabled", "health_every": 1}
DIGITS = {"kind": "digits", "validation": 0.02, "test": 0.02}
TREES: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"kind": "mlp", "hidden": [13, 11]}, "data": DIGITS},
    "convnet": {
        "model": {"kind": "convnet", "filters": [5, 7]},
        "data": {**DIGITS, "layout": "image"},
    },
    "lstm": {
        "model": {"kind": "lstm", "hidden": 7, "num_layers": 2},
        "data": {"kind": "text", "sequence_length": 11, "max_characters": 5_000},
    },
    "gpt": {
        "model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 22},
        "data": {"kind": "text", "sequence_length": 13, "max_characters": 5_000},
    },
}


def tree(name: str, **changes: Any) -> dict[str, Any]:
    return {"init": "kaiming", "optim": OPTIM, "trainer": TRAINER, "track": TRACK, **TREES[name], **changes}


def rows_of(run_dir: str | Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(Path(run_dir) / "metrics.jsonl") if "train/loss" in row]


def health_of(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("health/")}


def by_hand(recipe_tree: dict[str, Any]) -> list[dict[str, float]]:
    """Returns the same from torch.autograd, torch.optim.SGD and whole outputs."""
    recipe = load_recipe(recipe_tree)
    data = prepare(recipe, Place())
    objective, _ = build_objective(recipe, data, Place())
    net, feed = objective.net.train(), objective.train_feed
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    layers = {name: module for name, module in net.named_modules() if module._parameters}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[name] = output[0] if isinstance(output, tuple) else output

        return hook

    for name, module in layers.items():
        module.register_forward_hook(keep(name))
    found = []
    for step in range(STEPS):
        batch = feed.share(step).micro_batches[0].batch
        logits = net(batch["input"])
        nn.functional.cross_entropy(logits.flatten(0, -2), batch["target"].flatten()).backward()
        before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        gradients = {name: weight.grad for name, weight in net.named_parameters()}
        optimizer.step()
        after = {name: weight.detach() for name, weight in net.named_parameters()}
        values: dict[str, float] = {}
        for layer in layers:
            own = [name for name in before if name.rpartition(".")[0] == layer]
            if own:
                values[f"health/{layer}/grad_norm"] = whole_norm([gradients[name] for name in own])
                moved = whole_norm([after[name] - before[name] for name in own])
                values[f"health/{layer}/update_ratio"] = moved / whole_norm([before[name] for name in own])
            values[f"health/{layer}/activation_mean"] = outputs[layer].mean().item()
            values[f"health/{layer}/activation_std"] = outputs[layer].std(correction=0).item()
        optimizer.zero_grad()
        found.append(values)
    return found


def whole_norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(tensor.square().sum().item() for tensor in tensors))


@pytest.mark.parametrize("name", TREES)
def test_every_value_is_that_of_a_loop_by_hand(tmp_path: Path, name: str) -> None:
    run = fit(tree(name), runs=tmp_path, progress=False).run_dir
    expected = by_hand(tree(name))
    for row, values in zip(rows_of(run), expected, strict=True):
        assert health_of(row) == pytest.approx(values, rel=1e-9, abs=1e-13)
    layers = list(dict.fromkeys(key.split("/")[1] for key in expected[0]))
    assert json.loads((Path(run) / "data.json").read_text())["health_layers"] == layers


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    cut = {**TRAINER, "micro_batch": 5}
    runs = [fit(tree("mlp", trainer=trainer), runs=tmp_path, progress=False).run_dir for trainer in (TRAINER, cut)]
    whole, pieces = (rows_of(run) for run in runs)
    for alone, together in zip(whole, pieces, strict=True):
        assert health_of(together) == pytest.approx(health_of(alone), rel=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"regularize": {"noise": {"weight": 0.1, "gradient": 0.1}, "max_norm": {"limit": 1.0}}},
        {"trainer": {**TRAINER, "precision": "bf16-mixed", "clip_norm": 0.5, "micro_batch": 7}},
        {
            "optim": {"kind": "lbfgs", "lr": 0.5, "max_iterations": 3},
            "trainer": {**TRAINER, "batch_size": 1725},
        },
    ],
    ids=["plain", "techniques", "mixed precision", "lbfgs"],
)
def test_it_changes_no_bit_of_the_weights(tmp_path: Path, changes: dict[str, Any]) -> None:
    weights = []
    for every in (1, "never"):
        track = {"wandb": "disabled", "health_every": every}
        run = fit(tree("mlp", track=track, **changes), runs=tmp_path, progress=False).run_dir
        measured = [bool(health_of(row)) for row in rows_of(run)]
        assert measured == [every == 1] * STEPS
        weights.append((Path(run) / "checkpoints" / f"{STEPS:08d}" / "weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_layers_make_up_the_gradient_that_is_clipped(tmp_path: Path) -> None:
    trainer = {**TRAINER, "precision": "bf16-mixed", "clip_norm": 0.01, "clip_value": 0.005}
    for row in rows_of(fit(tree("mlp", trainer=trainer), runs=tmp_path, progress=False).run_dir):
        parts = [value for name, value in health_of(row).items() if name.endswith("/grad_norm")]
        assert math.hypot(*parts) == pytest.approx(row["train/grad_norm"], rel=1e-5)


def test_a_measured_step_has_a_row_whatever_the_interval_of_rows(tmp_path: Path) -> None:
    track = {"wandb": "disabled", "every": 5, "health_every": 3}
    rows = rows_of(fit(tree("mlp", track=track, trainer={**TRAINER, "max_steps": 10}), runs=tmp_path).run_dir)
    assert [row["step"] for row in rows] == [1, 3, 5, 6, 9, 10]
    assert [row["step"] for row in rows if health_of(row)] == [1, 3, 6, 9]


def test_by_default_the_first_step_and_every_hundredth_are_measured(tmp_path: Path) -> None:
    trainer = {**TRAINER, "max_steps": 201}
    rows = rows_of(fit(tree("mlp", track={"wandb": "disabled"}, trainer=trainer), runs=tmp_path).run_dir)
    assert [row["step"] for row in rows if health_of(row)] == [1, 100, 200]


def test_a_layer_without_a_weight_of_its_own_has_activations_only(tmp_path: Path) -> None:
    row = health_of(rows_of(fit(tree("gpt"), runs=tmp_path, progress=False).run_dir)[0])
    # The output shares the embedding's matrix.
    names = [name.rpartition("/")[2] for name in row if name.startswith("health/output/")]
    assert names == ["activation_mean", "activation_std"]


def test_rows_of_an_array_have_none_and_a_setting_of_its_own_keeps_a_trial_out(tmp_path: Path) -> None:
    def recipe(**track: Any) -> Recipe:
        return load_recipe(tree("mlp", track={"wandb": "disabled", **track}))

    fit_rows({"a": recipe(), "b": recipe()}, runs=tmp_path)
    assert not any(health_of(row) for row in rows_of(tmp_path / "a"))
    assert "health_layers" not in json.loads((tmp_path / "a" / "data.json").read_text())
    with pytest.raises(UserError, match=r"track\.health_every 3 measures one net at a time"):
        fit_rows({"c": recipe(health_every=3)}, runs=tmp_path)


def test_a_compiled_net_has_gradients_and_updates_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(tree("mlp", trainer={**TRAINER, "compile": True}))
    objective, _ = build_objective(recipe, prepare(recipe, Place()), Place())
    health = watch_health(recipe, objective)
    assert health is not None
    assert "activations are not" in capfd.readouterr().err
    count = len(list(objective.net.parameters()))
    names = health.metrics([1.0] * (3 * count))
    assert {name.rpartition("/")[2] for name in names} == {"grad_norm", "update_ratio"}


def test_a_net_that_owns_weights_itself_is_a_layer_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.inner = nn.Linear(3, 2)
            self.frozen = nn.Linear(2, 2).requires_grad_(False)

    assert Health(Net(), every=1).layers == ["net", "inner", "frozen"]


def test_a_million_float32_numbers_are_summed_to_nine_digits() -> None:
    value = torch.rand(1_000_003, generator=torch.Generator().manual_seed(3)) + 5.0
    count, total, squares = moments(value)
    assert count == 1_000_003
    assert total == pytest.approx(value.double().sum().item(), rel=1e-12)
    assert squares == pytest.approx(value.double().square().sum().item(), rel=1e-12)
    assert norms({"w": value})["w"].item() == pytest.approx(math.sqrt(squares), rel=1e-9)
    assert norms({"empty": value[:0]})["empty"].item() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("precision", ["fp32", "fp16-mixed"])
def test_a_gpu_has_the_health_of_a_cpu(tmp_path: Path, precision: str) -> None:
    runs = []
    for device, number_format in (("cpu", "fp32"), ("cuda", precision)):
        trainer = {**TRAINER, "max_steps": 1, "accelerator": device, "precision": number_format, "devices": 1}
        runs.append(fit(tree("mlp", trainer=trainer), runs=tmp_path, progress=False).run_dir)
    (cpu,), (gpu,) = (rows_of(run) for run in runs)
    assert health_of(gpu) == pytest.approx(health_of(cpu), rel=1e-4 if precision == "fp32" else 3e-2, abs=1e-3)
