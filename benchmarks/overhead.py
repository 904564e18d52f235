"""Steps a second of `headway fit` beside a hand-written PyTorch loop and plain Lightning, in one run.

    python benchmarks/overhead.py [--compile]      prints the table, writes benchmarks/results/overhead-<device>.md

All three train the same net on the same batches with the same optimizer. The hand-written loop is what a
careful person writes: tensors in memory, a permutation an epoch, the loss read every hundred steps.
Plain Lightning is a LightningModule with `self.log` of the loss and a DataLoader over a
TensorDataset. headway writes the metrics of every step to its run folder meanwhile. The three take
turns, several rounds, and the median of the rounds' ratios is shown: the machine is shared.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import io
import platform
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from headway.config.contracts import Place
from headway.fit import prepare
from headway.init.base import initialize
from headway.nn.draws import name_streams
from headway.recipe import Recipe, load_recipe
from headway.run import read_metrics
from headway.supervise.place import choose_device
from headway.training import Job, quiet_lightning, train

ROUNDS = 5


@dataclass(frozen=True)
class Workload:
    """A recipe and how many steps of it are timed."""

    recipe: str
    steps: int
    overrides: dict[str, Any]


WORKLOADS = {
    "MLP 64-128-128-10, batch 32": Workload("mlp-digits", 2000, {"model.dropout": 0.0}),
    "MLP the same, dropout 0.2": Workload("mlp-digits", 2000, {}),
    "convnet on 8x8, batch 128": Workload("convnet-digits", 300, {"trainer.batch_size": 128, "model.dropout": 0.0}),
    "GPT 4x128, batch 12x64": Workload("gpt-python-docs", 120, {"trainer.clip_norm": None}),
    "GPT the same, dropout 0.1": Workload("gpt-python-docs", 120, {"trainer.clip_norm": None, "model.dropout": 0.1}),
}


def batches(recipe: Recipe, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns inputs and targets of the whole training part, on the device."""
    data = prepare(recipe, Place(device=device.type))  # type: ignore[arg-type]
    whole = data.train.to(device, torch.float32).gather(torch.arange(len(data.train)), epoch=0)
    return whole["input"], whole["target"]


def build_net(recipe: Recipe, device: torch.device) -> nn.Module:
    """Returns the recipe's net, initialized as headway does."""
    assert recipe.model is not None
    assert recipe.init is not None
    net = name_streams(recipe.model.build(recipe.data.load().spec))
    return initialize(net, recipe.init).to(device)


def loss_of(net: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns the mean cross-entropy over rows or tokens."""
    logits = net(inputs)
    return nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def by_hand(recipe: Recipe, steps: int, device: torch.device, *, compiled: bool) -> float:
    """Returns the steps a second of a hand-written loop."""
    inputs, targets = batches(recipe, device)
    net = build_net(recipe, device).train()
    if compiled:
        net.compile()
    optimizer = recipe.optim.build(net)
    size = recipe.trainer.batch_size
    position, order = 0, torch.randperm(len(inputs), device=device)
    started = 0.0
    for step in range(steps + steps // 10):
        if step == steps // 10:
            _synchronize(device)
            started = time.perf_counter()
        if position + size > len(inputs):
            position, order = 0, torch.randperm(len(inputs), device=device)
        index = order[position : position + size]
        position += size
        loss = loss_of(net, inputs[index], targets[index])
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = recipe.optim.lr * recipe.optim.schedule.factor(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0:
            loss.item()
    _synchronize(device)
    return steps / (time.perf_counter() - started)


class PlainModule(LightningModule):
    """What Lightning's own documentation writes."""

    def __init__(self, recipe: Recipe, net: nn.Module, warmup: int) -> None:
        super().__init__()
        self.recipe, self.net, self.warmup = recipe, net, warmup
        self.started = 0.0

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        """Returns the loss."""
        if self.global_step == self.warmup:
            _synchronize(self.device)
            self.started = time.perf_counter()
        loss = loss_of(self.net, *batch)
        self.log("train/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the recipe's optimizer."""
        return self.recipe.optim.build(self.net)


def plain_lightning(recipe: Recipe, steps: int, device: torch.device, *, compiled: bool) -> float:
    """Returns the steps a second of plain Lightning."""
    inputs, targets = batches(recipe, torch.device("cpu"))
    net = build_net(recipe, device)
    if compiled:
        net.compile()
    module = PlainModule(recipe, net, steps // 10)
    loader = DataLoader(
        TensorDataset(inputs, targets), batch_size=recipe.trainer.batch_size, shuffle=True, drop_last=True
    )
    with tempfile.TemporaryDirectory() as folder, quiet_lightning():
        trainer = Trainer(
            max_steps=steps + steps // 10,
            max_epochs=-1,
            accelerator="cpu" if device.type == "cpu" else "gpu",
            devices=1,
            default_root_dir=folder,
            logger=lightning.pytorch.loggers.CSVLogger(folder),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, loader)
        _synchronize(device)
        return steps / (time.perf_counter() - module.started)


def headway(recipe: Recipe, steps: int, device: torch.device) -> float:
    """Returns the steps a second of a fit, read from its own run folder's clock."""
    from headway.run import create_run

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        warmup = steps // 10
        # One validation after the warm-up (its time is not counted) and one at the end (nor is that).
        timed = load_recipe(
            recipe,
            {"trainer.max_steps": steps + warmup, "trainer.max_epochs": None, "trainer.validate_every": steps + warmup},
        )
        run = create_run(Path(folder), "overhead")
        place = Place(device=device.type)  # type: ignore[arg-type]
        train(Job(timed, run, place, [], progress=False), prepare(timed, place))
        rows = [row for row in read_metrics(run.metrics) if "train/loss" in row]
        after = [row for row in rows if row["step"] > warmup]
        # Rows of one chunk carry the time at which the chunk ended: take whole chunks.
        first = after[0]["time"]
        counted = [row for row in after if row["time"] > first]
        return len(counted) / (counted[-1]["time"] - first)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Prints and keeps the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    lines = [
        "| workload | by hand, steps/s | headway / by hand | plain Lightning / by hand |",
        "|---|---|---|---|",
    ]
    kind = "cpu"
    for name, workload in WORKLOADS.items():
        overrides = {**workload.overrides, "track.wandb": "disabled", "trainer.compile": arguments.compile}
        recipe = load_recipe(workload.recipe, overrides)
        kind = choose_device(recipe.trainer)
        device = torch.device(kind)
        rates = [
            (
                by_hand(recipe, workload.steps, device, compiled=arguments.compile),
                headway(recipe, workload.steps, device),
                plain_lightning(recipe, workload.steps, device, compiled=arguments.compile),
            )
            for _ in range(arguments.rounds)
        ]
        ours, plain = ([rate[index] / rate[0] for rate in rates] for index in (1, 2))
        line = f"| {name} | {statistics.median(rate[0] for rate in rates):,.0f} | {_spread(ours)} | {_spread(plain)} |"
        print(line, flush=True)
        lines.append(line)
    _write(kind, arguments.compile, arguments.rounds, lines)


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _write(kind: str, compiled: bool, rounds: int, lines: list[str]) -> None:
    where = (
        torch.cuda.get_device_name()
        if kind == "cuda"
        else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    suffix = "-compiled" if compiled else ""
    text = (
        f"# Overhead: {where}{', torch.compile' if compiled else ''}\n\n"
        f"{datetime.date.today()}, torch {torch.__version__}, lightning {lightning.__version__}. "
        f"Median of {rounds} rounds (least to most), the three in turn.\n\n" + "\n".join(lines) + "\n"
    )
    (Path(__file__).parent / "results" / f"overhead-{kind}{suffix}.md").write_text(text)


if __name__ == "__main__":
    main()
