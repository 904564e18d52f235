"""The update of all weights of K rows at once: a few operations on the matrix that holds them.

Shapes: K rows, P weights of a row, D of them that decay, which come first.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.objectives.base import Objective
from headway.optim import SGD, AdamW, OptimConfig


def build_optimizer(
    objectives: Sequence[Objective], weights_KP: Tensor, num_decaying: int, scale_KP: Tensor | None
) -> StackedOptimizer:
    """Returns what moves the rows' weights, each row by its own recipe; they have one kind of optimizer."""
    kind = StackedAdamW if isinstance(objectives[0].optim, AdamW) else StackedSGD
    return kind(objectives, weights_KP, num_decaying, scale_KP)


class StackedOptimizer(ABC):
    """What the optimizers of a stack have in common.

    Args:
        objectives: of the rows.
        weights_KP: tells type and device of what is held.
        num_decaying: D.
        scale_KP: factors on the learning rates of single weights; None for none.
    """

    state_names: tuple[str, ...] = ()
    """Names that torch's optimizer gives to what it keeps for each weight."""

    def __init__(
        self, objectives: Sequence[Objective], weights_KP: Tensor, num_decaying: int, scale_KP: Tensor | None
    ) -> None:
        self.objectives = objectives
        self.num_decaying = num_decaying
        self.scale_KP = scale_KP
        self._like = weights_KP
        schedules = [cast(OptimConfig, objective.optim).schedule for objective in objectives]
        self._schedules = [(schedule.model_dump_json(), schedule) for schedule in schedules]

    @abstractmethod
    def prepare(self, num_steps: int) -> None:
        """Notes what the next steps need of the rows' rates, which is a function of the step alone."""

    @abstractmethod
    def update(self, ahead: int, weights_KP: Tensor, gradient_KP: Tensor, state: dict[str, Tensor]) -> None:
        """Moves the weights and the state, (K, P) by name, in place; the gradient may be overwritten.

        Args:
            ahead: place of the step among those that were prepared.
            weights_KP: the weights.
            gradient_KP: the gradient.
            state: of the names `state_names`.
        """

    def extra_state(self, step: int) -> dict[str, Tensor]:
        """Returns what a weight's state has besides what is stacked."""
        return {}

    def column(self, values: Sequence[float]) -> Tensor:
        """Returns (K, 1) of a number a row."""
        return torch.tensor(values, dtype=self._like.dtype, device=self._like.device).unsqueeze(1)

    def settings(self, name: str) -> list[float]:
        """Returns a setting of the rows' optimizers."""
        return [getattr(objective.optim, name) for objective in self.objectives]

    def rates(self, num_steps: int) -> NDArray[np.float64]:
        """Returns the rows' learning rates at the next steps, (S, K)."""
        factors: dict[tuple[Any, ...], list[float]] = {}
        columns = []
        for objective, (kind, schedule) in zip(self.objectives, self._schedules, strict=True):
            total, first = objective.schedule.total_steps, objective.step
            key = kind, total, first
            if key not in factors:
                factors[key] = [schedule.factor(step, total) for step in range(first, first + num_steps)]
            columns.append(factors[key])
        found: NDArray[np.float64] = np.asarray(columns).T * np.asarray(self.settings("lr"))
        return found

    def table(self, values_SK: NDArray[np.float64]) -> Tensor:
        """Returns (S, K, 1) of a number a step and row."""
        return torch.from_numpy(values_SK).to(self._like.device, self._like.dtype).unsqueeze(2)


class StackedAdamW(StackedOptimizer):
    """Adam with decoupled weight decay, each row with rates of its own (Loshchilov and Hutter 2019, algorithm 2)."""

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self, objectives: Sequence[Objective], weights_KP: Tensor, num_decaying: int, scale_KP: Tensor | None
    ) -> None:
        super().__init__(objectives, weights_KP, num_decaying, scale_KP)
        betas = [cast(AdamW, objective.optim).betas for objective in objectives]
        self.first, self.second = ([pair[place] for pair in betas] for place in (0, 1))
        self.new_first_K1 = self.column([1 - beta for beta in self.first])
        self.second_K1 = self.column(self.second)
        self.new_second_K1 = self.column([1 - beta for beta in self.second])
        # Memory of its own: what is allocated at every step is mapped at every step.
        self._scratch = torch.empty_like(weights_KP), torch.empty_like(weights_KP)

    def prepare(self, num_steps: int) -> None:
        """Notes the factors of the next steps."""
        rates_SK, decay_K = self.rates(num_steps), np.asarray(self.settings("weight_decay"))
        step_SK = np.arange(1, num_steps + 1)[:, None] + [objective.step for objective in self.objectives]
        # rate / (1 - first^t) * mean / (sqrt(square / (1 - second^t)) + eps), with the root's divisor taken out of it.
        divisor_SK = np.sqrt(1 - np.asarray(self.second) ** step_SK)
        size_SK = rates_SK / (1 - np.asarray(self.first) ** step_SK)
        self._shrink_SK1 = self.table(rates_SK * decay_K) if decay_K.any() else None
        self._eps_SK1 = self.table(np.asarray(self.settings("eps")) * divisor_SK)
        self._size_SK1 = self.table(size_SK * divisor_SK)

    def update(self, ahead: int, weights_KP: Tensor, gradient_KP: Tensor, state: dict[str, Tensor]) -> None:
        """Moves the weights, in place."""
        if self._shrink_SK1 is not None:
            shrink_K1 = self._shrink_SK1[ahead]
            scale_KD = None if self.scale_KP is None else self.scale_KP[:, : self.num_decaying]
            weights_KP[:, : self.num_decaying].mul_(1 - (shrink_K1 if scale_KD is None else shrink_K1 * scale_KD))
        mean_KP, square_KP = state["exp_avg"], state["exp_avg_sq"]
        one_KP, other_KP = self._scratch
        mean_KP.lerp_(gradient_KP, self.new_first_K1)
        torch.mul(gradient_KP, self.new_second_K1, out=one_KP)
        square_KP.mul_(self.second_K1).addcmul_(one_KP, gradient_KP)
        torch.sqrt(square_KP, out=one_KP).add_(self._eps_SK1[ahead])
        torch.mul(mean_KP, self._size_SK1[ahead], out=other_KP)
        if self.scale_KP is not None:
            other_KP.mul_(self.scale_KP)
        weights_KP.addcdiv_(other_KP, one_KP, value=-1)

    def extra_state(self, step: int) -> dict[str, Tensor]:
        """Returns the number of steps, as torch's optimizer keeps it."""
        return {"step": torch.tensor(float(step), device=self._like.device)}


class StackedSGD(StackedOptimizer):
    """Gradient descent with momentum, each row with rates of its own (Sutskever et al. 2013)."""

    def __init__(
        self, objectives: Sequence[Objective], weights_KP: Tensor, num_decaying: int, scale_KP: Tensor | None
    ) -> None:
        super().__init__(objectives, weights_KP, num_decaying, scale_KP)
        momenta = self.settings("momentum")
        self.state_names = ("momentum_buffer",) if any(momenta) else ()
        self.momentum_K1 = self.column(momenta)

    def prepare(self, num_steps: int) -> None:
        """Notes the rates of the next steps."""
        self._rate_SK1 = self.table(self.rates(num_steps))

    def update(self, ahead: int, weights_KP: Tensor, gradient_KP: Tensor, state: dict[str, Tensor]) -> None:
        """Moves the weights, in place."""
        decays = self.settings("weight_decay")
        if any(decays):
            D = self.num_decaying
            gradient_KP[:, :D].add_(weights_KP[:, :D] * self.column(decays))
        if self.state_names:
            buffer_KP = state["momentum_buffer"]
            buffer_KP.mul_(self.momentum_K1).add_(gradient_KP)
            nesterov = cast(SGD, self.objectives[0].optim).nesterov
            gradient_KP = gradient_KP + self.momentum_K1 * buffer_KP if nesterov else buffer_KP
        change_KP = gradient_KP * self._rate_SK1[ahead]
        weights_KP.sub_(change_KP if self.scale_KP is None else change_KP.mul_(self.scale_KP))
