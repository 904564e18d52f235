"""Fully sharded data parallel (FSDP2): every rank holds a slice of each weight, gathered layer by layer.

Source: Zhao et al. 2023, "PyTorch FSDP"; torch's `fully_shard`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.config.contracts import Place, StrategyConfig
from headway.config.errors import UserError
from headway.strategies._checks import refuse_fp16_on_cpu

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


class Config(StrategyConfig):
    """Trains on several ranks, each with a slice of weights, gradients and optimizer state."""

    reshard_after_forward: bool = True
    """Whether gathered weights are freed between forward and backward: less memory, more communication."""

    def check(self, place: Place, precision: str) -> None:
        """Refuses fp16-mixed: its loss scaling does not see the other ranks' slices."""
        refuse_fp16_on_cpu(place, precision)
        if precision == "fp16-mixed":
            raise UserError("trainer.precision: fp16-mixed does not run under fsdp; use bf16-mixed")

    def build(self, place: Place, *, precision: str, clip_norm: float | None, timeout_s: int) -> Strategy:
        """Returns the strategy."""
        from headway.strategies._fsdp import FSDP

        return FSDP(place, reshard_after_forward=self.reshard_after_forward, timeout_s=timeout_s)
