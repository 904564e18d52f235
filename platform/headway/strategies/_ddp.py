"""Lightning's DDP strategy with headway's steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from headway.config.contracts import Place
from headway.strategies._engine import StepEngine
from headway.strategies._environment import RankEnvironment


class DDP(StepEngine, DDPStrategy):
    """Every rank holds the whole net."""

    tells_waiting = True

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

    def backward(  # type: ignore[override]
        self, loss: Tensor, computed: Callable[[], None] = lambda: None
    ) -> None:
        """Adds the loss's gradient; gradients are sent while others are computed, and what is left is waited for."""
        assert isinstance(self.model, DistributedDataParallel)
        if self.model.require_backward_grad_sync:
            # What is queued when backward begins is called when it has computed everything, and before what DDP
            # queues later: its wait for the last of the gradients.
            queue = torch.autograd.Variable._execution_engine.queue_callback
            loss.register_hook(lambda _gradient: queue(computed))  # type: ignore[no-untyped-call]
        StepEngine.backward(self, loss)
