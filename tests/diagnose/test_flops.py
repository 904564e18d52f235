"""Operations of a net against formulas by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from headway.config.contracts import Place
from headway.diagnose.flops import count_flops, peak_flops, peak_of
from headway.fit import fit
from headway.objectives._clock import Clock
from headway.prepare import prepare
from headway.recipe import load_recipe
from headway.run import read_metrics
from headway.track import recorder
from headway.training import build_objective

TRAINER = {"max_steps": 3, "batch_size": 23, "threads": 1}
COMMON = {"init": "kaiming", "optim": {"kind": "sgd", "lr": 0.1}, "track": {"wandb": "disabled"}, "trainer": TRAINER}
TOKENS, WIDTH, LAYERS = 13, 22, 3
TEXT = {"kind": "text", "sequence_length": TOKENS, "max_characters": 5_000}
GPT = {"model": {"kind": "gpt", "num_layers": LAYERS, "num_heads": 2, "width": WIDTH, "dropout": 0.1}, "data": TEXT}


def count(**tree: Any) -> tuple[float, Any, torch.nn.Module]:
    recipe = load_recipe({**COMMON, **tree})
    data = prepare(recipe, Place())
    objective, _ = build_objective(recipe, data, Place())
    flops = count_flops(recipe, data.spec, objective)
    assert flops is not None
    return flops, data.spec, objective.net


def test_an_mlp_multiplies_each_matrix_three_times_but_for_the_gradient_of_its_input() -> None:
    flops, _, _ = count(model={"kind": "mlp", "hidden": [29, 17], "dropout": 0.3}, data="digits")
    forward = [2 * before * after for before, after in ((64, 29), (29, 17), (17, 10))]
    assert flops == 3 * sum(forward) - forward[0]


def test_a_gpt_multiplies_its_matrices_and_its_attention() -> None:
    flops, spec, net = count(**GPT)
    matrices = LAYERS * 12 * WIDTH**2 + spec.vocab_size * WIDTH
    attention = LAYERS * 2 * TOKENS * WIDTH
    assert flops == 3 * TOKENS * 2 * (matrices + attention)
    # The rule of thumb, six operations a weight and token (Kaplan et al. 2020), leaves out attention.
    weights = sum(weight.numel() for name, weight in net.named_parameters() if "position" not in name)
    assert 6 * weights * TOKENS == pytest.approx(flops, rel=0.1)


def test_a_convnet_multiplies_at_each_place() -> None:
    flops, _, _ = count(model={"kind": "convnet", "filters": [5, 7]}, data={"kind": "digits", "layout": "image"})
    # 3x3 filters at 8x8 and 4x4 places; the last layer reads what a second pooling leaves.
    first, second, last = 2 * 64 * 9 * 5, 2 * 16 * 9 * 5 * 7, 2 * 2 * 2 * 7 * 10
    assert flops == 3 * (first + second + last) - first


def test_a_net_whose_shapes_depend_on_numbers_is_run_with_them() -> None:
    text = {"kind": "masked_text", "sequence_length": 19, "max_characters": 5_000}
    flops, _, _ = count(model={"kind": "bert", "num_layers": 1, "num_heads": 2, "width": 22}, data=text)
    assert flops > 3 * 19 * 2 * 12 * 22**2


def test_counting_draws_nothing() -> None:
    recipe = load_recipe({**COMMON, **GPT})
    data = prepare(recipe, Place())
    objective, _ = build_objective(recipe, data, Place())
    weights = {name: value.clone() for name, value in objective.net.state_dict().items()}
    before = torch.get_rng_state()
    count_flops(recipe, data.spec, objective)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in objective.net.state_dict().items())
    assert all(weight.grad is None for weight in objective.net.parameters())


def test_a_run_has_operations_a_second_and_on_a_cpu_no_utilization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "PERFORMANCE_S", 0.0)
    run = fit({**COMMON, **GPT}, runs=tmp_path, progress=False).run_dir
    rows = [row for row in read_metrics(Path(run) / "metrics.jsonl") if "perf/flops_per_s" in row]
    flops, _, _ = count(**GPT)
    assert rows
    for row in rows:
        assert row["perf/flops_per_s"] == pytest.approx(row["perf/samples_per_s"] * flops)
        assert "perf/mfu" not in row
        assert {"perf/forward_time_s", "perf/backward_time_s", "perf/update_time_s"} <= row.keys()
        assert "perf/communication_time_s" not in row


def test_validations_and_checkpoints_are_timed_in_the_next_row_of_performance(tmp_path: Path) -> None:
    run = fit({**COMMON, **GPT}, runs=tmp_path, progress=False).run_dir
    *_, validated, tested = read_metrics(Path(run) / "metrics.jsonl")
    assert validated["perf/validation_time_s"] > 0
    assert tested["perf/checkpoint_time_s"] > 0
    assert "perf/step_time_s" not in tested


def test_the_axis_of_samples_and_tokens_is_in_the_folder(tmp_path: Path) -> None:
    folder = Path(fit({**COMMON, **GPT}, runs=tmp_path, progress=False).run_dir)
    axis = json.loads((folder / "data.json").read_text())["axis"]
    samples = len(prepare(load_recipe({**COMMON, **GPT}), Place()).train)
    assert axis == {"batch_size": 23, "samples_per_epoch": samples, "tokens_per_sample": TOKENS}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16-mixed", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA H100 PCIe", "bf16", 756.5e12),
        ("NVIDIA H200", "fp16-mixed", 989.4e12),
        ("Tesla V100-SXM2-16GB", "fp16-mixed", 125e12),
        ("Tesla V100-SXM2-16GB", "bf16-mixed", None),
        ("Tesla T4", "fp16-mixed", 65e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA GeForce RTX 4090", "bf16-mixed", 165.2e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16-mixed", None),
        ("NVIDIA A100-SXM4-80GB", "fp64", None),
        ("Some other card", "bf16", None),
    ],
)
def test_a_gpu_has_the_peak_of_its_data_sheet(name: str, precision: str, peak: float | None) -> None:
    assert peak_of(name, precision) == peak


@pytest.mark.quick
def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(load_recipe({**COMMON, **GPT}), Place()) is None


@pytest.mark.quick
def test_a_clock_tells_parts_and_starts_anew() -> None:
    clock, cpu = Clock(), torch.device("cpu")
    for _ in range(3):
        clock.start(cpu, last=False)
        clock.lap("forward")
        clock.lap("backward")
    clock.stop()
    clock.lap("forward")  # nothing runs
    with clock.during("checkpoint"):
        pass
    steps, seconds = clock.take()
    assert steps == 3
    assert list(seconds) == ["forward", "backward", "checkpoint"]
    assert clock.take() == (0, {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
def test_a_clock_reads_what_a_gpu_has_left_of_the_last_step() -> None:
    clock, gpu = Clock(), torch.device("cuda")
    square = torch.rand(1024, 1024, device=gpu)
    for place in range(3):
        clock.start(gpu, last=place == 2)
        square = square @ square
        clock.lap("forward")
        square = square.softmax(0)
        clock.lap("backward")
    torch.cuda.synchronize()
    clock.stop()
    steps, seconds = clock.take()
    assert steps == 1
    assert list(seconds) == ["forward", "backward"]
    assert all(value > 0 for value in seconds.values())
