"""Optimizers, learning-rate schedules and parameter groups.

The learning rate is a pure function of the step, so there is no scheduler state to save.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from headway.config.section import Kind, Section

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Schedule(Section):
    """How the learning rate moves between the first step and the last."""

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt"] = "constant"
    """Shape after the warm-up: constant, down to `final` along a line or half a cosine, or as 1 / sqrt(step)."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate climbs from 0 to its peak, along a line."""
    final: float = Field(default=0.0, ge=0, le=1)
    """The rate at the last step, as a share of its peak; for linear and cosine."""

    @model_validator(mode="after")
    def _inverse_sqrt_needs_a_warmup(self) -> Schedule:
        if self.kind == "inverse_sqrt" and self.warmup_steps == 0:
            raise ValueError(
                "kind is inverse_sqrt, whose peak is where the warm-up ends; set warmup_steps, say to 4000"
            )
        return self

    def factor(self, step: int, total_steps: int) -> float:
        """Returns the share of the peak rate at a step, counted from 0.

        Source: Loshchilov and Hutter 2017, equation 5, for the cosine; Vaswani et al. 2017, section 5.3, for
        inverse_sqrt, whose peak of (width * warmup_steps)^-0.5 is here the recipe's `lr`.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if self.kind == "constant":
            return 1.0
        if self.kind == "inverse_sqrt":
            return math.sqrt(self.warmup_steps / (step + 1))
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


class LBFGS(OptimConfig):
    """Limited-memory BFGS over the whole training part: second order, for small nets (Liu and Nocedal 1989)."""

    needs_closure: ClassVar[bool] = True

    max_iterations: PositiveInt = 20
    """Quasi-Newton iterations of one step, each a line search."""
    history_size: PositiveInt = 10
    """Past gradients that the inverse Hessian is made from."""
    line_search: Literal["strong_wolfe", "none"] = "strong_wolfe"
    """How far to go along a direction; none goes as far as lr says."""

    @model_validator(mode="after")
    def _penalty_is_part_of_the_loss(self) -> LBFGS:
        if self.weight_decay:
            raise ValueError("weight_decay is no part of the loss that a line search sees; use regularize.penalty.l2")
        return self

    def build(self, net: nn.Module) -> torch.optim.Optimizer:
        """Returns the optimizer over a net's weights."""
        import torch

        return torch.optim.LBFGS(
            [weight for weight in net.parameters() if weight.requires_grad],
            lr=self.lr,
            max_iter=self.max_iterations,
            history_size=self.history_size,
            line_search_fn=None if self.line_search == "none" else self.line_search,
        )


OPTIMIZERS: dict[str, type[OptimConfig]] = {"sgd": SGD, "adamw": AdamW, "lbfgs": LBFGS}
"""What `optim.kind` can name."""


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns the weights that decay and the vectors (biases, norms, slopes) that do not, apart by learning rate.

    `net.lr_scales`, where an initialization has left it, multiplies the rate of weights by name.
    """
    scales: dict[str, float] = getattr(net, "lr_scales", {})
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, weight in net.named_parameters():
        if not weight.requires_grad:
            continue
        decays, scale = weight.ndim >= 2, scales.get(name, 1.0)
        group = groups.setdefault((decays, scale), {"params": [], "weight_decay": weight_decay if decays else 0.0})
        group["params"].append(weight)
        if scale != 1.0:
            group["lr_scale"] = scale
    # Those that decay first, as checkpoints and strategies have always had them.
    return [group for _, group in sorted(groups.items(), key=lambda item: not item[0][0])]


def plain_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns one weight's optimizer state as tensors by name, for a checkpoint.

    L-BFGS keeps lists (`old_dirs[]` then) and numbers (`n_iter#`) beside tensors, and all of it with the first weight.
    """
    import torch

    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            plain[key] = value
        elif isinstance(value, list):
            rows = [torch.as_tensor(0.0 if row is None else row) for row in value]
            plain[f"{key}[]"] = torch.stack(rows) if rows else torch.empty(0)
        elif isinstance(value, int | float):
            plain[f"{key}#"] = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    return plain


def live_state(key: str, value: Tensor) -> dict[str, Any]:
    """Returns the entry of an optimizer's state that `plain_state` made a tensor of."""
    if key.endswith("[]"):
        return {key.removesuffix("[]"): [row.clone() for row in value]}
    return {key.removesuffix("#"): value.item()} if key.endswith("#") else {key: value}
