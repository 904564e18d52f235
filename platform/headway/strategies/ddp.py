"""Data parallel: every rank holds the whole net, gradients are averaged as they are made.

Source: Li et al. 2020, "PyTorch Distributed".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.config.contracts import Place, StrategyConfig
from headway.strategies._checks import refuse_fp16_on_cpu

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


class Config(StrategyConfig):
    """Trains on several ranks, each with the whole net."""

    def check(self, place: Place, precision: str) -> None:
        """Refuses fp16 without a GPU."""
        refuse_fp16_on_cpu(place, precision)

    def build(self, place: Place, *, precision: str, clip_norm: float | None, timeout_s: int) -> Strategy:
        """Returns the strategy."""
        from headway.strategies._ddp import DDP

        return DDP(place, timeout_s=timeout_s)
