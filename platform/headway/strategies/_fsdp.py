"""FSDP2 through Lightning's model-parallel strategy, on NCCL and on gloo."""

from __future__ import annotations

from datetime import timedelta
from typing import cast

from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from headway.config.contracts import Place
from headway.strategies._engine import StepEngine
from headway.strategies._environment import RankEnvironment


class FSDP(StepEngine, ModelParallelStrategy):
    """Every rank holds a slice of each weight."""

    def __init__(self, place: Place, *, reshard_after_forward: bool, timeout_s: int) -> None:
        ModelParallelStrategy.__init__(
            self,
            data_parallel_size=place.world_size,
            tensor_parallel_size=1,
            process_group_backend="gloo" if place.device == "cpu" else "nccl",
            timeout=timedelta(seconds=timeout_s),
        )
        self.cluster_environment = RankEnvironment(place)
        self.reshard_after_forward = reshard_after_forward

    def shard(self, net: nn.Module) -> None:
        """Shards each repeated layer of a net, then the rest of it. Called from `configure_model`."""
        mesh = self.device_mesh["data_parallel"]
        for module in net.modules():
            if isinstance(module, nn.ModuleList):
                for layer in module:
                    fully_shard(layer, mesh=mesh, reshard_after_forward=self.reshard_after_forward)
        fully_shard(net, mesh=mesh, reshard_after_forward=self.reshard_after_forward)
        if isinstance(net, LightningModule):
            # Weights are gathered around forward; of a user's module these are called instead.
            for method in ("training_step", "validation_step"):
                register_fsdp_forward_method(net, method)

    def accumulate(self, *, last: bool) -> None:
        """Keeps the gradients of all but the last micro-batch on their rank."""
        cast(FSDPModule, self._net).set_requires_gradient_sync(last)
