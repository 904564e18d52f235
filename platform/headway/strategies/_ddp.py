"""Lightning's DDP strategy with headway's steps."""

from __future__ import annotations

from datetime import timedelta

from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from headway.config.contracts import Place
from headway.strategies._engine import RankEnvironment, StepEngine


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

    def waited_s(self) -> float | None:
        """Returns what torch measured of a recent step: it looks at one in a hundred."""
        if not isinstance(self.model, DistributedDataParallel):
            return None
        measured = self.model._get_ddp_logging_data()  # type: ignore[no-untyped-call]
        # From the first gradient that is sent to the last that has come, less what backward took meanwhile.
        sending, meanwhile = (measured.get(f"backward_{part}_time") for part in ("comm", "compute_comm_overlap"))
        if sending is None or meanwhile is None:
            return None
        return max(0.0, float(sending) - float(meanwhile)) / 1e9
