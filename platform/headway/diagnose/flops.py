"""What a step's arithmetic comes to: floating-point operations of forward and backward, and what a GPU could do.

Operations are those of the model: matrix products, convolutions and attention, counted by torch as it runs the net on
the meta device, which has shapes and no numbers. What a technique adds, or a net that is made to compute something
twice, is no part of it. A multiplication and an addition are two operations.

Source: Chowdhery et al. 2022 (PaLM), appendix B, for model FLOPs utilization.
"""

from __future__ import annotations

import re
import sys

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headway.config.contracts import Batch, DataSpec, ModuleConfig, Place
from headway.objectives.base import Objective
from headway.recipe import Recipe


def count_flops(recipe: Recipe, spec: DataSpec, objective: Objective) -> float | None:
    """Returns the operations of a training sample, forward and backward; None where they cannot be counted.

    Of a net that does not run without numbers a small one is run with them, on the CPU; of a large one a line on
    standard error says so. Random generators are left as they are.
    """
    if recipe.model is None or isinstance(recipe.objective, ModuleConfig):
        return None
    sample = objective.train_feed.split.gather(torch.zeros(1, dtype=torch.long), epoch=0)
    for device in ("meta", "cpu"):
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"):
                net = recipe.model.build(spec)
            if device == "cpu" and sum(weight.numel() for weight in net.parameters()) > _SMALL:
                break
            net = net.to_empty(device=device).eval()
            batch = {name: _cast(value, device) for name, value in sample.items()}
            try:
                return _count(objective, net, batch)
            except (NotImplementedError, RuntimeError):
                if device == "cpu":
                    raise
    print(  # noqa: T201
        f"headway: perf/flops_per_s is left out: a {recipe.model.kind} looks at numbers to know its shapes, and one of "
        f"more than {_SMALL:,} weights is not run for a count",
        file=sys.stderr,
    )
    return None


def _count(objective: Objective, net: nn.Module, batch: Batch) -> float:
    # In evaluation nothing is drawn, and batch normalization asks no other rank.
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        objective.outcome(net, batch, None, None).loss_sum.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())


def _cast(value: Tensor, device: str) -> Tensor:
    """Returns a tensor in the precision that a net is built in."""
    return value.to(device, torch.float32) if value.is_floating_point() else value.to(device)


_SMALL = 20_000_000
"""Weights of a net that runs one sample in a second."""
_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    # Dense matrix products a second, in 10^12, as NVIDIA's data sheets and architecture white papers have them; where
    # a sheet says "with sparsity", half of it. `half` is bf16 and fp16 with sums in fp32.
    (r"B200", {"half": 2250.0, "tf32": 1125.0}),
    (r"H200 NVL", {"half": 835.5, "tf32": 417.5, "fp32": 60.0}),
    (r"GH200|H200", {"half": 989.4, "tf32": 494.7, "fp32": 67.0}),
    (r"H100 NVL", {"half": 835.5, "tf32": 417.5, "fp32": 60.0}),
    (r"H100 PCIe", {"half": 756.5, "tf32": 378.0, "fp32": 51.0}),
    (r"H100", {"half": 989.4, "tf32": 494.7, "fp32": 67.0}),
    (r"A100", {"half": 312.0, "tf32": 156.0, "fp32": 19.5}),
    (r"V100-PCIE", {"fp16": 112.0, "fp32": 14.0}),
    (r"V100-SXM2", {"fp16": 125.0, "fp32": 15.7}),
    (r"L40S", {"half": 362.0, "tf32": 183.0, "fp32": 91.6}),
    (r"L4", {"half": 121.0, "tf32": 60.0, "fp32": 30.3}),
    (r"A10", {"half": 125.0, "tf32": 62.5, "fp32": 31.2}),
    (r"T4", {"fp16": 65.0, "fp32": 8.1}),
    (r"RTX A6000", {"half": 154.8, "tf32": 77.4, "fp32": 38.7}),
    (r"RTX 4090(?! (?:Laptop|D)\b)", {"half": 165.2, "tf32": 82.6, "fp32": 82.6}),
    (r"RTX 3090(?! Ti\b)", {"half": 71.0, "tf32": 35.6, "fp32": 35.6}),
)
"""The first pattern that is a whole word of a GPU's name, and its peak by number format."""


def peak_flops(recipe: Recipe, place: Place) -> float | None:
    """Returns the most operations a second that all ranks' GPUs can do; None on a CPU or on a GPU that is not known."""
    if place.device == "cpu":
        return None
    peak = peak_of(torch.cuda.get_device_name(place.local_rank), recipe.trainer.precision)
    return None if peak is None else peak * place.world_size


def peak_of(gpu: str, precision: str) -> float | None:
    """Returns the most operations a second that a GPU can do in a recipe's precision; None where that is not known.

    Args:
        gpu: as torch names it: `NVIDIA A100-SXM4-80GB`.
        precision: the recipe's `trainer.precision`.
    """
    peaks = next((peaks for pattern, peaks in _PEAKS if re.search(rf"\b(?:{pattern})\b", gpu)), {})
    found = next((peaks[name] for name in _formats(precision) if name in peaks), None)
    return None if found is None else found * 1e12


def _formats(precision: str) -> tuple[str, ...]:
    """Returns the formats that matrix products of a precision may be in."""
    if precision.startswith("bf16"):
        return ("half",)
    if precision.startswith("fp16"):
        return ("half", "fp16")
    if precision == "fp32":
        return ("fp32",) if torch.get_float32_matmul_precision() == "highest" else ("tf32", "fp32")
    return ()
