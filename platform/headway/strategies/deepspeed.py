"""DeepSpeed's ZeRO: stage 1 slices the optimizer's state, 2 the gradients too, 3 the weights as well.

Source: Rajbhandari et al. 2020, "ZeRO: Memory optimizations toward training trillion parameter
models".
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Literal

from headway.config.contracts import Place, StrategyConfig
from headway.config.errors import UserError
from headway.strategies._checks import refuse_fp16_on_cpu

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


class Config(StrategyConfig):
    """Trains on several ranks with DeepSpeed, on GPUs or on the CPU."""

    stage: Literal[1, 2, 3] = 2
    """What is sliced: 1 optimizer state, 2 gradients too, 3 weights as well."""
    offload: bool = False
    """Whether the optimizer's state (and under stage 3 the weights) rests in CPU memory; for GPUs."""

    def check(self, place: Place, precision: str) -> None:
        """Refuses what DeepSpeed or this machine cannot do."""
        if importlib.util.find_spec("deepspeed") is None:
            raise UserError("strategy.kind: deepspeed is not installed; pip install deepspeed, or use strategy=fsdp")
        if precision == "fp64":
            raise UserError("trainer.precision: deepspeed has no fp64; use fp32, or strategy=ddp for fp64")
        refuse_fp16_on_cpu(place, precision)

    def build(self, place: Place, *, precision: str, clip_norm: float | None, timeout_s: int) -> Strategy:
        """Returns the strategy."""
        from headway.strategies._deepspeed import DeepSpeed

        return DeepSpeed(
            place,
            stage=self.stage,
            offload=self.offload,
            precision=precision,
            clip_norm=clip_norm,
            timeout_s=timeout_s,
        )
