"""What every technique is made from.

A technique overrides the places where it acts. Its draws come from keyed streams: those of a row
from `rng` (`Draws`), those of a weight from a generator keyed by seed, step and the weight's name. So it does
the same on one rank or four, resumed or not, under every strategy.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor, nn

from headway.config.contracts import Batch, Engine, Loss, Outcome
from headway.config.keys import derive
from headway.nn.draws import Draws


class Idle:
    """Does nothing in every place."""

    def attach(self, net: nn.Module) -> None:
        """Is called once with the net, before a strategy wraps it."""

    def change_batch(self, batch: Batch, rng: Draws | None) -> Batch:
        """Returns the micro-batch that the net is trained on."""
        return batch

    def add_loss(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome of a training batch."""
        return outcome

    def add_metrics(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome of a held-out batch."""
        return outcome

    def before_forward(self, engine: Engine, step: int) -> None:
        """Is called before a step's first forward."""

    def after_backward(self, engine: Engine, step: int) -> Tensor | float:
        """Is called when a step's gradient is complete; returns what was added to the loss."""
        return 0.0

    def after_update(self, engine: Engine, step: int) -> None:
        """Is called when the weights have moved."""


def stream(purpose: str) -> int:
    """Returns the number of a technique's stream of row draws."""
    return zlib.crc32(f"regularize.{purpose}".encode())


def weight_generator(seed: int, purpose: str, step: int, name: str) -> torch.Generator:
    """Returns the generator of one weight's draw at one step, on the CPU."""
    return torch.Generator().manual_seed(derive(seed, purpose, step, name))
