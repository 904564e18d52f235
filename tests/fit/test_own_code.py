"""A user's own code outside headway: a net, a data source, and a whole LightningModule, behind --trust."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

OWN = '''
import torch
from lightning.pytorch import LightningModule
from torch import nn

from headway.config.contracts import Data, DataConfig, DataSpec, ModelConfig, ModuleConfig
from headway.data.digits import Config as Digits


class NetConfig(ModelConfig):
    width: int
    """Width of the hidden layer."""

    def build(self, spec):
        return Net(spec.input_shape[0], self.width, spec.num_classes)

    def default_objective(self, spec):
        return "classify"


class Net(nn.Module):
    def __init__(self, inputs, width, outputs):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))

    def forward(self, x, rng=None):
        return self.layers(x)


class FirstDigits(Digits):
    """Only zeros, ones and twos would be a source of its own; this one renames the digits."""


class ModuleOfMine(LightningModule):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch["input"]), batch["target"])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self(batch["input"])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch["target"]))
        self.log_dict({"val_hits": (logits.argmax(1) == batch["target"]).float().mean()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class MineConfig(ModuleConfig):
    def build_module(self, net, spec):
        return ModuleOfMine(spec.input_shape[0], spec.num_classes)
'''


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("")
    (tmp_path / "my_package" / "parts.py").write_text(OWN)
    trainer = {"max_steps": 60, "batch_size": 64, "validate_every": 30, "threads": 1}
    net = {
        "model": {"kind": "my_package.parts:NetConfig", "width": 13},
        "data": "my_package.parts:FirstDigits",
        "init": "kaiming",
        "optim": {"kind": "adamw", "lr": 0.01},
        "trainer": trainer,
    }
    module = {
        "data": "digits",
        "objective": "my_package.parts:MineConfig",
        "trainer": {**trainer, "monitor": "val/hits", "monitor_mode": "max"},
    }
    (tmp_path / "net.yaml").write_text(yaml.safe_dump(net))
    (tmp_path / "module.yaml").write_text(yaml.safe_dump(module))
    return tmp_path


def test_own_code_is_refused_until_it_is_trusted(command, here: Path) -> None:
    done = command("fit", "net.yaml", cwd=here)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "add --trust my_package.parts if you trust it" in done.stderr


def test_a_net_and_a_data_source_of_ones_own_train(command, here: Path) -> None:
    done = command("fit", "net.yaml", "--trust", "my_package", "--json", cwd=here)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["test/accuracy"] > 0.7


@pytest.mark.parametrize("strategy", ["single", "ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_a_whole_lightning_module_of_ones_own_trains(command, here: Path, strategy: str) -> None:
    ranks = 1 if strategy == "single" else 2
    arguments = [
        "fit",
        "module.yaml",
        f"strategy={strategy}",
        f"trainer.devices={ranks}",
        "--trust",
        "my_package",
        "--json",
    ]
    done = command(*arguments, cwd=here)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["test/hits"] > 0.7
    assert metrics["val/loss"] < 1.5


def test_a_module_that_is_not_there_is_one_line(command, here: Path) -> None:
    done = command("fit", "net.yaml", "model={kind: 'my_package.parts:Nothing'}", "--trust", "my_package", cwd=here)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "cannot be imported" in done.stderr
