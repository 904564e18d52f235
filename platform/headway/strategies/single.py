"""One process on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.config.contracts import Place, StrategyConfig
from headway.config.errors import UserError
from headway.strategies._checks import refuse_fp16_on_cpu

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy


class Config(StrategyConfig):
    """Trains in one process."""

    def check(self, place: Place, precision: str) -> None:
        """Refuses more than one process."""
        if place.world_size > 1:
            raise UserError(
                f"strategy.kind: single is one process, but the trainer asks for {place.world_size}; "
                "use strategy=ddp, or trainer.devices=1"
            )
        refuse_fp16_on_cpu(place, precision)

    def build(self, place: Place, *, precision: str, clip_norm: float | None, timeout_s: int) -> Strategy:
        """Returns the strategy."""
        from headway.strategies._single import Single

        return Single(place)
