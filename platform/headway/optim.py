"""Optimizers, learning-rate schedules and parameter groups.

The learning rate is a pure function of the step, so there is no scheduler state to save.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, model_validator

from headway.config.section import Kind, Section

if TYPE_CHECKING:
    import torch
    from torch import nn


class Schedule(Section):
    """How the learning rate moves between the first step and the last."""

    kind: Literal["constant", "linear", "cosine"] = "constant"
    """Shape after the warm-up: constant, or down to `final` along a line or half a cosine."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate climbs from 0 to its peak, along a line."""
    final: float = Field(default=0.0, ge=0, le=1)
    """The rate at the last step, as a share of its peak; for linear and cosine."""

    def factor(self, step: int, total_steps: int) -> float:
        """Returns the share of the peak rate at a step, counted from 0.

        Source: Loshchilov and Hutter 2017, equation 5, for the cosine.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        progress = min(1.0, (step - self.warmup_steps) / max(1, total_steps - 1 - self.warmup_steps))
        shape = 1.0 - progress if self.kind == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.final + (1.0 - self.final) * shape


class OptimConfig(Kind):
    """A recipe's `optim` section."""

    needs_closure: ClassVar[bool] = False
    """Whether a step asks for the loss and its gradient several times."""

    lr: float = Field(gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the weights; biases, norms and other vectors are spared."""
    schedule: Schedule = Schedule()
    """How the learning rate moves."""

    @abstractmethod
    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimizer over a net's weights."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _short_schedule(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("schedule"), str):
            return {**value, "schedule": {"kind": value["schedule"]}}
        return value


class SGD(OptimConfig):
    """Stochastic gradient descent with momentum (Sutskever et al. 2013)."""

    momentum: float = Field(default=0.0, ge=0, lt=1)
    """Share of the last update that is kept."""
    nesterov: bool = False
    """Whether the gradient is taken after the momentum's step; needs a momentum."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SGD:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov is true but momentum is 0; set optim.momentum")
        return self

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimizer over a net's weights."""
        import torch

        groups = parameter_groups(net, self.weight_decay)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov)


class AdamW(OptimConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    betas: Annotated[tuple[float, float], Field(strict=False)] = (0.9, 0.999)
    """Decay rates of the running mean of the gradient and of its square, each in [0, 1)."""
    eps: float = Field(default=1e-8, gt=0)
    """Added to the denominator."""

    @model_validator(mode="after")
    def _betas_are_rates(self) -> AdamW:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas should be in [0, 1) (got {list(self.betas)})")
        return self

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimizer over a net's weights."""
        import torch

        groups = parameter_groups(net, self.weight_decay)
        # One fused pass over the weights instead of a dozen small operations a tensor. It takes plain
        # tensors only, and on the CPU it wants gradients laid out like their weights, as autograd makes them.
        plain = all(type(weight.data) is torch.Tensor for weight in net.parameters())
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=plain)


OPTIMIZERS: dict[str, type[OptimConfig]] = {"sgd": SGD, "adamw": AdamW}
"""What `optim.kind` can name."""


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns the weights that decay and the vectors (biases, norms, slopes) that do not."""
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
