"""Batch normalization over the rows of all ranks: what a single process with the whole batch would do.

Mean and variance are sums over the ranks, through an all-reduce whose gradient is an all-reduce, on gloo and on
NCCL. (torch's SyncBatchNorm refuses the CPU.) Ranks may have unequal numbers of rows. With gradient accumulation
the batch that is normalized is the ranks' micro-batches of the moment, as everywhere.

Source: Ioffe and Szegedy 2015, algorithms 1 and 2.

Shapes: B rows, C channels, ... any further axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from headway.nn.uncompiled import uncompiled

_SHORT = (torch.bfloat16, torch.float16)
_standing_in = False


@contextmanager
def stand_in() -> Iterator[None]:
    """Keeps the rows of a forward out of every statistic: they only stand in for a rank's empty slice."""
    global _standing_in
    _standing_in = True
    try:
        yield
    finally:
        _standing_in = False


def is_standing_in() -> bool:
    """Returns whether the rows of this forward only stand in."""
    return _standing_in


class BatchNorm(nn.Module):
    """Normalizes each channel over rows and further axes, then scales and shifts it.

    Running statistics stay in float32 where the net is cast to 16 bits, in which small changes of an average are lost.

    Args:
        num_channels: C.
        eps: added to the variance.
        momentum: share of a batch in the running statistics, which stand in for a batch's in evaluation.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the shape of `x`, (B, C, ...)."""
        # The library refuses a channel of a single value, which a last short batch may leave to a rank or to all.
        if self.training and (_num_ranks() > 1 or x.numel() == x.shape[1]):
            return self._normalize_over_ranks(x)
        # Fused; scale and shift are as precise as the statistics, which the kernels want.
        weight, bias = (value.to(self.running_mean.dtype) for value in (self.weight, self.bias))
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, self.momentum, self.eps
        )

    def _normalize_over_ranks(self, x: Tensor) -> Tensor:
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        counts = 0.0 if _standing_in else 1.0
        own_count = values.new_full((1,), counts * x.numel() / x.shape[1])
        sums = sum_over_ranks(torch.cat([values.sum(axes) * counts, own_count]))
        count, mean_C = sums[-1].detach(), sums[:-1] / sums[-1].detach()
        centred = values - mean_C.view(shape)
        # In two passes: a mean of squares less a squared mean would lose the digits that they share.
        var_C = sum_over_ranks(centred.square().sum(axes) * counts) / count
        with torch.no_grad():
            unbiased_C = var_C * count / (count - 1).clamp(min=1)
            for running_C, new_C in ((self.running_mean, mean_C), (self.running_var, unbiased_C)):
                # Rather than `lerp_`, which torch.vmap has no rule for.
                running_C.add_(self.momentum * (new_C.to(running_C.dtype) - running_C))
        scale_C = torch.rsqrt(var_C + self.eps) * self.weight
        return (centred * scale_C.view(shape) + self.bias.view(shape)).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self._buffers.items():
            if buffer is not None and buffer.dtype in _SHORT:
                self._buffers[name] = cast(Tensor, before[name]).to(buffer.device)
        return self

    def extra_repr(self) -> str:
        """Returns what `print(net)` shows."""
        return f"{len(self.weight)}, eps={self.eps}, momentum={self.momentum}"


# A compiler would make the communication its own, and on gloo the process then dies.
@uncompiled
def sum_over_ranks(value: Tensor) -> Tensor:
    """Returns the sum over ranks, which each of them has; so the gradient of a rank's part is the sum of theirs."""
    if _num_ranks() == 1:
        return value
    return cast(Tensor, _SumOverRanks.apply(value))  # type: ignore[no-untyped-call]


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_context: Any, value: Tensor) -> Tensor:
        return _all_reduced(value)

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(value: Tensor) -> Tensor:
    summed = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(summed)
    return summed


def _num_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
