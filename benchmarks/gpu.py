"""Large recipes on one GPU: samples a second, and how much of the card's own matrix rate the net uses.

    python benchmarks/gpu.py            200 steps each in bf16; writes benchmarks/results/gpu.md
    python benchmarks/gpu.py --small    the same path with small nets and few steps, on a CPU too; prints only

Inputs are random: what is measured is the net, the step and the loop, not a disk. A net's FLOPs are torch's count of
one sample's forward pass, three times (forward, and twice that backward); those of an LSTM, whose kernel torch does not
count, are two for each weight and token.
"""

from __future__ import annotations

import datetime
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import headway as hw
from headway.config.contracts import Data, DataConfig, DataSpec
from headway.data._splits import TensorSplit
from headway.recipe import load_recipe
from headway.run import read_metrics

SAMPLES = 512


class Random(DataConfig):
    """Random images or tokens, with the targets of their task."""

    task: Literal["image", "next_token", "masked"]
    """What is asked of the net."""
    length: int = 224
    """Pixels of a side, or tokens."""
    vocab_size: int = 50_257
    """Distinct tokens, or 1000 classes of images."""

    def load(self) -> Data:
        """Returns three times the same samples."""
        generator = torch.Generator().manual_seed(self.split_seed())
        if self.task == "image":
            x = torch.randint(0, 256, (SAMPLES, 3, self.length, self.length), dtype=torch.uint8, generator=generator)
            tensors = {"input": x.float() / 128 - 1, "target": torch.randint(0, 1000, (SAMPLES,), generator=generator)}
            spec = DataSpec("image", (3, self.length, self.length), num_classes=1000)
        else:
            token = torch.randint(1, self.vocab_size, (SAMPLES, self.length + 1), generator=generator)
            tensors = {"input": token[:, :-1].contiguous(), "target": token[:, 1:].contiguous()}
            spec = DataSpec("tokens", (self.length,), vocab_size=self.vocab_size)
            if self.task == "masked":
                hidden = torch.rand(SAMPLES, self.length, generator=generator) < 0.15
                hidden[:, 0] = True
                tensors["target"] = tensors["target"].masked_fill(~hidden, -100)
                spec = replace(spec, masked=True)
        few = {name: tensor[:8] for name, tensor in tensors.items()}
        return Data(spec, TensorSplit(tensors), TensorSplit(few), TensorSplit(few), "random")


def case(
    model: dict[str, Any], data: dict[str, Any], batch_size: int, micro_batch: int | None = None
) -> dict[str, Any]:
    """Returns a recipe's tree."""
    return {
        "model": model,
        "data": {"kind": "gpu:Random", **data},
        "optim": {"kind": "adamw", "lr": 1e-4},
        "trainer": {
            "max_steps": 200,
            "batch_size": batch_size,
            "micro_batch": micro_batch,
            "eval_batch_size": 8,
            "precision": "bf16-mixed",
            "validate_every": 200,
        },
        "track": {"wandb": "disabled"},
    }


def cases(*, small: bool) -> dict[str, dict[str, Any]]:
    """Returns the recipes: the published sizes, or small ones."""
    if small:
        tiny = {"num_layers": 1, "num_heads": 2, "width": 16}
        tokens = {"length": 16, "vocab_size": 257}
        found = {
            "GPT-2 124M": case({"kind": "gpt", **tiny}, {"task": "next_token", **tokens}, 8),
            "BERT-base": case({"kind": "bert", **tiny}, {"task": "masked", **tokens}, 8),
            "ResNet-50": case({"kind": "resnet", "depth": 50, "width": 2}, {"task": "image", "length": 32}, 8),
            "LSTM": case({"kind": "lstm", "hidden": 16}, {"task": "next_token", **tokens}, 8),
        }
        for tree in found.values():
            tree["trainer"] |= {"max_steps": 10, "validate_every": 10}
        return found
    base = {"num_layers": 12, "num_heads": 12, "width": 768}
    return {
        "GPT-2 124M": case({"kind": "gpt", **base}, {"task": "next_token", "length": 1024}, 64, 32),
        "BERT-base": case({"kind": "bert", **base}, {"task": "masked", "length": 512, "vocab_size": 30_522}, 64),
        "ResNet-50": case({"kind": "resnet", "depth": 50, "stem": "imagenet"}, {"task": "image"}, 256),
        "LSTM": case(
            {"kind": "lstm", "hidden": 1024, "num_layers": 2},
            {"task": "next_token", "length": 256, "vocab_size": 8192},
            128,
        ),
    }


def flops_of_a_sample(net: nn.Module, spec: DataSpec) -> float:
    """Returns the floating-point operations of one sample, forward and backward."""
    if spec.input_kind == "image":
        x = torch.zeros(1, *spec.input_shape)
    else:
        x = torch.ones(1, *spec.input_shape, dtype=torch.int64)
    counter = FlopCounterMode(display=False)
    # The fused kernel of attention has no entry in torch's table of operations on a CPU; plain products have.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net.eval()(x)
    recurrent = sum(
        weight.numel() for name, weight in net.named_parameters() if ".layers." in name and "recurrent" in name
    )
    counted = counter.get_total_flops()
    if recurrent:
        inner = sum(weight.numel() for name, weight in net.named_parameters() if name.startswith("recurrent."))
        counted += 2 * inner * spec.input_shape[0]
    return 3.0 * counted


def matrix_rate(device: str, *, small: bool) -> float:
    """Returns the operations a second of a large bf16 matrix product, the best of five runs."""
    size = 256 if small else 8192
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(5):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(10):
            a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - started))
    return best


def measure(name: str, tree: dict[str, Any], folder: str) -> dict[str, Any]:
    """Returns what one recipe reaches: the median rate after the first quarter of its steps."""
    recipe = load_recipe({"name": name.replace(" ", "-"), **tree}, trust=["gpu"])
    data = recipe.data.load()
    assert recipe.model is not None
    flops = flops_of_a_sample(recipe.model.build(data.spec), data.spec)
    result = hw.fit(recipe, runs=folder, trust=["gpu"], progress=False)
    rows = [row for row in read_metrics(Path(result.run_dir) / "metrics.jsonl") if "perf/samples_per_s" in row]
    settled = [row for row in rows if row["step"] > recipe.trainer.max_steps / 4] or rows
    rate = statistics.median(row["perf/samples_per_s"] for row in settled)
    tokens = data.spec.input_shape[0] if data.spec.input_kind == "tokens" else None
    memory = max(row.get("perf/memory_bytes", 0.0) for row in rows)
    return {"name": name, "samples_per_s": rate, "tokens": tokens, "flops_per_s": rate * flops, "memory_bytes": memory}


def main() -> None:
    """Measures all recipes."""
    small = "--small" in sys.argv
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not small:
        sys.exit("no GPU here; --small goes through the same on a CPU")
    limit = matrix_rate(device, small=small)
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(name, tree, folder) for name, tree in cases(small=small).items()]
    lines = ["| net | a second | FLOP/s | of the matrix rate | memory |", "|---|---|---|---|---|"]
    for row in found:
        rate, tokens = row["samples_per_s"], row["tokens"]
        speed = f"{rate * tokens:,.0f} tokens" if tokens else f"{rate:,.0f} images"
        lines.append(
            f"| {row['name']} | {speed} | {row['flops_per_s'] / 1e12:.1f} T | {row['flops_per_s'] / limit:.2f} "
            f"| {row['memory_bytes'] / 2**30:.1f} GiB |"
        )
    card = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    head = (
        f"# Large nets on one GPU\n\n{datetime.date.today()}, {card}, torch {torch.__version__}, bf16-mixed, "
        "random inputs. "
        f"Measured rate of an 8192-wide bf16 matrix product: {limit / 1e12:.0f} TFLOP/s.\n"
    )
    if not small:
        (Path(__file__).parent / "results" / "gpu.md").write_text("\n".join([head, *lines, ""]))
    print("\n".join([head, *lines]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
