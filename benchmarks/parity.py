"""Every model under every strategy, on two ranks, against the single process: losses and final weights.

    python benchmarks/parity.py            prints the table and writes benchmarks/results/parity.md
    python benchmarks/parity.py --json     prints the differences, for the test; with --all those of every case

Twenty steps with dropout on, gradients clipped, and a rank's share cut into micro-batches. Losses
are compared in fp32 and fp64, final weights in fp64: in fp32 AdamW blows up what is true zero (a GPT's key bias).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from headway.config.contracts import Data
from headway.data import digits

STEPS = 20
TRAINER = {"max_steps": STEPS, "batch_size": 23, "micro_batch": 5, "eval_batch_size": 256, "clip_norm": 1.0, "seed": 7}
ADAMW = {"kind": "adamw", "lr": 1e-3, "weight_decay": 0.1, "schedule": "cosine"}
# Few samples, so that an epoch ends with a short batch within the steps; ranks never share a batch equally.
DIGITS = {"kind": "digits", "validation": 0.4, "test": 0.45}
TEXT = {"kind": "text", "sequence_length": 31, "max_characters": 40_000}
RECIPES: dict[str, dict[str, Any]] = {
    "logistic": {"model": "logistic", "data": DIGITS, "init": "uniform_fan_in", "optim": ADAMW},
    "mlp": {
        "model": {"kind": "mlp", "hidden": [29, 23], "dropout": 0.3, "input_dropout": 0.1},
        "data": DIGITS,
        "init": "kaiming",
        "optim": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
    },
    "convnet": {
        "model": {"kind": "convnet", "filters": [7, 11], "hidden": 13, "dropout": 0.3},
        "data": {**DIGITS, "layout": "image"},
        "init": "kaiming",
        "optim": ADAMW,
    },
    "gpt": {
        "model": {"kind": "gpt", "num_layers": 2, "num_heads": 2, "width": 26, "dropout": 0.2},
        "data": TEXT,
        "init": "normal",
        "optim": ADAMW,
    },
    "alexnet": {
        "model": {"kind": "alexnet", "stem": "cifar", "form": "two_groups", "scale": 0.03, "local_response_norm": True},
        "data": {"kind": "parity:LargeDigits", "validation": 0.4, "test": 0.45, "layout": "image"},
        "init": "kaiming",
        "optim": ADAMW,
    },
    # What is normalized is a micro-batch: it is the same on any number of ranks where a rank's share is one.
    "resnet": {
        "model": {"kind": "resnet", "depth": 8, "width": 5},
        "data": {**DIGITS, "layout": "image"},
        "init": "kaiming",
        "optim": ADAMW,
        "trainer": {"micro_batch": None},
    },
    "autoencoder": {
        "model": {"kind": "autoencoder", "hidden": [29, 13], "tied": True},
        "data": DIGITS,
        "init": "xavier",
        "optim": ADAMW,
    },
    "ngram": {
        "model": {"kind": "ngram", "embedding": 7, "hidden": 13, "context": 5},
        "data": TEXT,
        "init": "xavier",
        "optim": ADAMW,
    },
    "rnn": {
        "model": {"kind": "rnn", "hidden": 13, "num_layers": 2, "dropout": 0.2, "variational": True},
        "data": TEXT,
        "init": "uniform_fan_in",
        "optim": ADAMW,
    },
    # State is carried from batch to batch: truncated back-propagation through time.
    "lstm": {
        "model": {"kind": "lstm", "hidden": 13, "num_layers": 2, "recurrent_dropout": 0.2},
        "data": {**TEXT, "carry": True},
        "init": "uniform_fan_in",
        "optim": ADAMW,
    },
    "gru": {
        "model": {"kind": "gru", "hidden": 13, "recurrent_init": "orthogonal", "tied": True},
        "data": TEXT,
        "init": "uniform_fan_in",
        "optim": ADAMW,
    },
    "transformer": {
        "model": {"kind": "transformer", "num_layers": 2, "num_heads": 2, "width": 26, "dropout": 0.2},
        "data": {"kind": "translation", "source": "names", "languages": ["en", "de"], "vocab_size": 400},
        "init": "xavier",
        "objective": {"kind": "seq2seq", "label_smoothing": 0.1},
        "optim": ADAMW,
    },
    "bert": {
        "model": {"kind": "bert", "num_layers": 2, "num_heads": 2, "width": 26, "dropout": 0.2},
        "data": {
            "kind": "masked_text",
            "vocabulary": "bpe",
            "vocab_size": 400,
            "sequence_length": 31,
            "max_characters": 40_000,
        },
        "init": "normal",
        "optim": ADAMW,
    },
}
EVERYWHERE = ("logistic", "mlp", "convnet", "gpt")
"""Models that `--json` takes through every strategy; the others go through DDP and ZeRO-2."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "ddp": {"kind": "ddp"},
    "fsdp": {"kind": "fsdp"},
    "ZeRO-1": {"kind": "deepspeed", "stage": 1},
    "ZeRO-2": {"kind": "deepspeed", "stage": 2},
    "ZeRO-3": {"kind": "deepspeed", "stage": 3},
}


class LargeDigits(digits.Config):
    """The digits at twice their size, for a net that pools three times."""

    def load(self) -> Data:
        """Returns the digits, each pixel four times."""
        data = super().load()
        for split in (data.train, data.validation, data.test):
            split.tensors["input"] = split.tensors["input"].repeat_interleave(2, 2).repeat_interleave(2, 3)
        return replace(data, spec=replace(data.spec, input_shape=(1, 16, 16)))


def cases(strategies: list[str], *, everything: bool) -> list[tuple[str, str, str]]:
    """Returns (model, strategy, precision) of every case; DeepSpeed has no fp64."""
    return [
        (model, strategy, precision)
        for precision in ("fp32", "fp64")
        for strategy in strategies
        for model in RECIPES
        if not (precision == "fp64" and strategy.startswith("ZeRO"))
        and (everything or model in EVERYWHERE or (precision == "fp32" and strategy in ("single", "ddp", "ZeRO-2")))
    ]


def run_cases(folder: Path, strategies: list[str], *, everything: bool) -> None:
    """Trains the cases in this process, alone or as one rank of two."""
    import os

    import torch.distributed as dist

    from headway.config.contracts import Place
    from headway.fit import prepare
    from headway.recipe import load_recipe
    from headway.run import RunFolder
    from headway.training import Job, train

    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = Place(rank, world, rank, world, "cpu")
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    for model, strategy, precision in cases(strategies, everything=everything):
        tree = {
            **RECIPES[model],
            "trainer": {
                **TRAINER,
                **RECIPES[model].get("trainer", {}),
                "devices": world,
                "precision": precision,
                "threads": 1,
            },
            "strategy": STRATEGIES.get(strategy, {"kind": "single"}),
            "track": {"wandb": "disabled"},
        }
        recipe = load_recipe(tree, trust=["parity"])
        run = RunFolder(folder / f"{model}-{strategy}-{precision}")
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        train(Job(recipe, run, place, sys.argv, progress=False), prepare(recipe, place))
    if world > 1:
        dist.destroy_process_group()


def measure(folder: Path, *, everything: bool) -> list[dict[str, Any]]:
    """Returns, for every case, the largest differences from the single process."""
    from safetensors.torch import load_file

    from headway.run import read_metrics

    this = [str(Path(__file__).resolve()), "--cases", "all" if everything else "some", str(folder)]
    subprocess.run([sys.executable, *this, "single"], check=True)
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*ranks, *this, *STRATEGIES], check=True)

    def losses(name: str) -> list[float]:
        rows = read_metrics(folder / name / "metrics.jsonl")
        return [row["train/loss"] for row in rows if "train/loss" in row]

    found = []
    for model, strategy, precision in cases(list(STRATEGIES), everything=everything):
        alone, together = f"{model}-single-{precision}", f"{model}-{strategy}-{precision}"
        expected, got = losses(alone), losses(together)
        assert len(expected) == len(got) == STEPS, (alone, len(expected), together, len(got))
        weights = [
            load_file(folder / name / "checkpoints" / f"{STEPS:08d}" / "weights.safetensors")
            for name in (alone, together)
        ]
        assert weights[0].keys() == weights[1].keys()
        found.append(
            {
                "model": model,
                "strategy": strategy,
                "precision": precision,
                "loss": max(abs(a - b) / max(abs(a), math.ulp(1.0)) for a, b in zip(expected, got, strict=True)),
                "weights": max(float((weights[0][key] - weights[1][key]).abs().max()) for key in weights[0]),
            }
        )
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Returns the differences as a Markdown table."""

    def cell(model: str, strategy: str, precision: str, what: str) -> str:
        values = [
            row[what]
            for row in found
            if (row["model"], row["strategy"], row["precision"]) == (model, strategy, precision)
        ]
        return f"{values[0]:.0e}" if values else "-"

    lines = [
        "| model | " + " | ".join(STRATEGIES) + " | fp64: ddp | fp64: fsdp |",
        "|---" * (len(STRATEGIES) + 3) + "|",
    ]
    for model in RECIPES:
        cells = [cell(model, strategy, "fp32", "loss") for strategy in STRATEGIES]
        cells += [cell(model, strategy, "fp64", "weights") for strategy in ("ddp", "fsdp")]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs what the command line asks for."""
    if sys.argv[1:2] == ["--cases"]:
        run_cases(Path(sys.argv[3]), sys.argv[4:], everything=sys.argv[2] == "all")
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), everything="--json" not in sys.argv or "--all" in sys.argv)
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    import datetime
    import platform

    import deepspeed
    import lightning
    import torch

    text = (
        f"# Parity on two ranks\n\n{datetime.date.today()}, {platform.machine()} CPU, gloo, torch {torch.__version__}, "
        f"lightning {lightning.__version__}, deepspeed {deepspeed.__version__}. {STEPS} steps, dropout on, clipped, "
        "slices of 11 and 12 samples in three micro-batches a rank (one for the resnet, which normalizes a "
        "micro-batch).\n\n"
        "Columns 2 to 6: largest relative difference of a step's loss from the "
        f"single process, fp32. Last two: largest absolute difference of a final weight, fp64.\n\n{table(found)}\n"
    )
    (Path(__file__).parent / "results" / "parity.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
