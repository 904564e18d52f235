"""Lightning's DDP strategy with headway's steps."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from headway.config.contracts import Place
from headway.strategies._engine import StepEngine
from headway.strategies._environment import RankEnvironment


class DDP(StepEngine, DDPStrategy):
    """Every rank holds the whole net."""

    def __init__(self, place: Place, *, timeout_s: int) -> None:
        DDPStrategy.__init__(
            self,
            cluster_environment=RankEnvironment(place),
            process_group_backend="gloo" if place.device == "cpu" else "nccl",
            timeout=timedelta(seconds=timeout_s),
        )

    def accumulate(self, *, last: bool) -> None:
        """Leaves the gradients of all but the last micro-batch where they are."""
        assert isinstance(self.model, DistributedDataParallel)
        self.model.require_backward_grad_sync = last
