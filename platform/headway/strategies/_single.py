"""One process on one device: Lightning's own strategy with headway's steps."""

from __future__ import annotations

from lightning.pytorch.strategies import SingleDeviceStrategy

from headway.config.contracts import Place
from headway.strategies._engine import StepEngine


class Single(StepEngine, SingleDeviceStrategy):
    """One process."""

    def __init__(self, place: Place) -> None:
        SingleDeviceStrategy.__init__(self, device=place.device_name)
