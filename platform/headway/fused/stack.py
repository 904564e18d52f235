"""The weights and the optimizer's state of K rows side by side, and an optimizer step of all of them.

A row's own net and optimizer look into the stack: what it validates, saves and tests is what was trained here, and
what it restores lies here at once. Weights are kept in one matrix, a row's after each other, so that an update is a
few operations whatever the number of layers.

Shapes: K rows, P weights of a row, N samples of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from headway.config.contracts import Batch
from headway.fused.draws import StackDraws
from headway.nn.attention import CausalSelfAttention
from headway.nn.dropout import Dropout
from headway.objectives._sums import Sums
from headway.objectives.base import Objective
from headway.optim import SGD, AdamW


@dataclass(frozen=True)
class _Place:
    """Where a weight lies in a row of the matrix."""

    name: str
    start: int
    stop: int
    shape: torch.Size


class Stack:
    """K rows whose nets are the same but for dropout rates.

    Args:
        objectives: of the rows.
        optimizers: of the rows, which have made steps or not.
    """

    def __init__(self, objectives: Sequence[Objective], optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.objectives, self.optimizers = list(objectives), list(optimizers)
        self.template = build_template(self.objectives)
        first = self.objectives[0]
        # Those that decay come first, as in the optimizer's groups.
        named = sorted(first.net.named_parameters(), key=lambda item: item[1].ndim < 2)
        self.places: list[_Place] = []
        start = 0
        for name, weight in named:
            self.places.append(_Place(name, start, start + weight.numel(), weight.shape))
            start += weight.numel()
        self.num_decaying = sum(weight.numel() for _, weight in named if weight.ndim >= 2)
        self.device = named[0][1].device
        self.dtype = named[0][1].dtype
        self._optim = _optimizer_of(self)
        with torch.no_grad():
            self.weights_KP = self._gather(lambda weight, _state: weight)
            self.state = {name: self._gather(partial(_get, name)) for name in self._optim.state_names}
        self._gradient_KP = self.empty()
        self._views: list[tuple[nn.Parameter, dict[str, Any], Tensor, dict[str, Tensor]]] = []
        self._look_into()
        self._rates = _rates(self.template, self.objectives, self.device)
        self._row_K = torch.arange(len(self.objectives), device=self.device)

    # ---- rows and matrix ---------------------------------------------------------------------------

    def _gather(self, value: Callable[[nn.Parameter, dict[str, Any]], Tensor | None]) -> Tensor:
        """Returns (K, P) of what a row has for a weight and its optimizer state; zeros where it has nothing yet."""
        matrix = self.empty().zero_()
        for row, objective, optimizer in zip(matrix, self.objectives, self.optimizers, strict=True):
            net = dict(objective.net.named_parameters())
            for place in self.places:
                weight = net[place.name]
                found = value(weight, optimizer.state[weight])
                if found is not None:
                    row[place.start : place.stop].view(place.shape).copy_(found)
        return matrix

    def empty(self) -> Tensor:
        """Returns a matrix (K, P) with no values of meaning."""
        return torch.empty(len(self.objectives), self.places[-1].stop, device=self.device, dtype=self.dtype)

    def _look_into(self) -> None:
        """Has each row's weights and optimizer state be views of the matrices."""
        for row, (objective, optimizer) in enumerate(zip(self.objectives, self.optimizers, strict=True)):
            net = dict(objective.net.named_parameters())
            for place in self.places:
                weight = net[place.name]

                def view(matrix: Tensor, row: int = row, place: _Place = place) -> Tensor:
                    return matrix[row, place.start : place.stop].view(place.shape)

                weight.data = view(self.weights_KP)
                state = optimizer.state[weight]
                own = {name: view(matrix) for name, matrix in self.state.items()}
                if objective.step:
                    state.update(own)
                self._views.append((weight, state, weight.data, own))

    def is_current(self) -> bool:
        """Returns whether the rows still look into the matrices: a restored optimizer brings tensors of its own."""
        return all(
            weight.data_ptr() == data.data_ptr() and all(state.get(name, view) is view for name, view in own.items())
            for weight, state, data, own in self._views
        )

    # ---- steps ---------------------------------------------------------------------------------------

    def make_steps(self, num_steps: int) -> list[list[Sums]]:
        """Makes steps of every row and returns their sums, by row and step."""
        recorded: list[dict[str, Tensor]] = []
        counts: list[list[float]] = []
        for _ in range(num_steps):
            sums, count_K = self._step()
            recorded.append(sums)
            counts.append(count_K)
            for objective in self.objectives:
                objective.step += 1
        for objective, optimizer in zip(self.objectives, self.optimizers, strict=True):
            for weight in objective.net.parameters():
                optimizer.state[weight].update(self._optim.extra_state(objective.step))
        for _, state, _, own in self._views:
            state.update(own)
        names = list(recorded[0])
        table_SMK = torch.stack([torch.stack([sums[name] for name in names]) for sums in recorded]).tolist()
        return [
            [
                {"count": counts[step][row], **{name: table_SMK[step][place][row] for place, name in enumerate(names)}}
                for step in range(num_steps)
            ]
            for row in range(len(self.objectives))
        ]

    def _step(self) -> tuple[dict[str, Tensor], list[float]]:
        """Makes one step of every row; returns sums (K,) by name, and what was counted."""
        batch, dims, count_K, num_samples = self._batch()
        draws = StackDraws(
            [(objective.schedule.seed, objective.step) for objective in self.objectives],
            self._rates,
            num_samples,
            device=self.device,
        )
        leaves = [
            self.weights_KP[:, place.start : place.stop].view(-1, *place.shape).detach().requires_grad_()
            for place in self.places
        ]
        names = [place.name for place in self.places]
        objective = self.objectives[0]

        def outcome(weights: Sequence[Tensor], batch: Batch, row: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            draws.row = row
            net = RowNet(self.template, dict(zip(names, weights, strict=True)))
            found = objective.outcome(cast(nn.Module, net), batch, None, draws)
            return found.loss_sum, found.sums

        losses_K, sums = torch.vmap(outcome, in_dims=(0, dims, 0))(leaves, batch, self._row_K)
        scale_K = torch.tensor([1.0 / max(count, 1.0) for count in count_K], dtype=losses_K.dtype, device=self.device)
        # The sum over rows: each row's gradient is its own, as if it were alone.
        gradients = torch.autograd.grad((losses_K * scale_K).sum(), leaves)
        for place, gradient in zip(self.places, gradients, strict=True):
            self._gradient_KP[:, place.start : place.stop].view(-1, *place.shape).copy_(gradient)
        gradient_KP = self._gradient_KP
        recorded = {"loss": losses_K.detach(), **{name: value.detach() for name, value in sums.items()}}
        with torch.no_grad():
            norm_K = self._clip(gradient_KP)
            if norm_K is not None:
                recorded["grad_norm"] = norm_K
            self._optim.update(self.weights_KP, gradient_KP, self.state)
        return {name: value.to(torch.float64) for name, value in recorded.items()}, count_K

    def _batch(self) -> tuple[Batch, dict[str, int | None], list[float], int]:
        """Returns the next batches, along which tensors rows differ, what each row counts, and N.

        Rows that read the same samples share one batch.
        """
        found: dict[tuple[Any, ...], tuple[Batch, float]] = {}
        keys = []
        for objective in self.objectives:
            feed = objective.train_feed
            key = (id(feed.split), feed.seed, feed.batch_size, objective.step)
            keys.append(key)
            if key not in found:
                share = feed.share(objective.step)
                batch = share.micro_batches[0].batch
                count = float(share.num_rows) if objective.counts_rows else float(objective.count(batch))
                found[key] = batch, count
        counts = [found[key][1] for key in keys]
        batches = [found[key][0] for key in keys]
        first = batches[0]
        if len(found) == 1:
            return first, dict.fromkeys(first), counts, len(first["input"])
        stacked = {name: torch.stack([batch[name] for batch in batches]) for name in first}
        return stacked, dict.fromkeys(first, 0), counts, len(first["input"])

    def _clip(self, gradient_KP: Tensor) -> Tensor | None:
        """Clips each row's gradient in place, by value and then by norm; returns the norms (K,) where by norm."""
        schedule = self.objectives[0].schedule
        if schedule.clip_value is not None:
            gradient_KP.clamp_(-schedule.clip_value, schedule.clip_value)
        if schedule.clip_norm is None:
            return None
        norm_K = torch.linalg.vector_norm(gradient_KP, dim=1)
        # What torch's clip_grad_norm_ divides by.
        gradient_KP.mul_((schedule.clip_norm / (norm_K + 1e-6)).clamp(max=1.0).unsqueeze(1))
        return cast(Tensor, norm_K)


class RowNet:
    """A net with weights of its own, called like a module."""

    def __init__(self, template: nn.Module, weights: dict[str, Tensor], *, training: bool = True) -> None:
        self.template, self.weights, self.training = template, weights, training

    def __call__(self, *arguments: Any) -> Any:
        return functional_call(self.template, self.weights, arguments)


def _get(name: str, _weight: nn.Parameter, state: dict[str, Any]) -> Tensor | None:
    return state.get(name)


def build_template(objectives: Sequence[Objective]) -> nn.Module:
    """Returns a net that drops out wherever one of the rows does, of operations that can be batched over rows."""
    template = copy.deepcopy(objectives[0].net).train()
    for name, module in template.named_modules():
        if isinstance(module, Dropout):
            rates = [cast(Dropout, objective.net.get_submodule(name)).rate for objective in objectives]
            module.rate = 0.5 if any(rates) else 0.0
        elif isinstance(module, CausalSelfAttention):
            module.fused = False
    return template


def _rates(template: nn.Module, objectives: Sequence[Objective], device: torch.device) -> dict[int, Tensor]:
    """Returns the rows' dropout rates, (K,) by layer."""
    rates = {}
    for name, module in template.named_modules():
        if isinstance(module, Dropout):
            of_rows = [cast(Dropout, objective.net.get_submodule(name)).rate for objective in objectives]
            rates[module.stream] = torch.tensor(of_rows, dtype=torch.float64, device=device)
    return rates


# ---- optimizers ------------------------------------------------------------------------------------


def _optimizer_of(stack: Stack) -> _StackedAdamW | _StackedSGD:
    return _StackedAdamW(stack) if isinstance(stack.objectives[0].optim, AdamW) else _StackedSGD(stack)


class _Stacked:
    """What the optimizers of a stack have in common."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    def column(self, values: Sequence[float]) -> Tensor:
        """Returns (K, 1) of a number a row."""
        return torch.tensor(values, dtype=self.stack.dtype, device=self.stack.device).unsqueeze(1)

    def settings(self, name: str) -> list[float]:
        """Returns a setting of the rows' optimizers."""
        return [getattr(objective.optim, name) for objective in self.stack.objectives]

    def rates(self) -> list[float]:
        """Returns the rows' learning rates at this step."""
        return [objective.rate(objective.step) for objective in self.stack.objectives]

    def extra_state(self, step: int) -> dict[str, Tensor]:
        """Returns what a weight's state has besides what is stacked."""
        return {}


class _StackedAdamW(_Stacked):
    """Adam with decoupled weight decay, each row with rates of its own (Loshchilov and Hutter 2019, algorithm 2)."""

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        betas = [cast(AdamW, objective.optim).betas for objective in stack.objectives]
        self.first, self.second = ([pair[place] for pair in betas] for place in (0, 1))
        self.new_first_K1 = self.column([1 - beta for beta in self.first])
        self.second_K1 = self.column(self.second)
        self.new_second_K1 = self.column([1 - beta for beta in self.second])
        # Memory of its own: what is allocated at every step is mapped at every step.
        self._scratch = stack.empty(), stack.empty()

    def update(self, weights_KP: Tensor, gradient_KP: Tensor, state: dict[str, Tensor]) -> None:
        """Moves the weights, in place."""
        rates, decays = self.rates(), self.settings("weight_decay")
        steps = [objective.step + 1 for objective in self.stack.objectives]
        if any(decays):
            factor_K1 = self.column([1 - rate * decay for rate, decay in zip(rates, decays, strict=True)])
            weights_KP[:, : self.stack.num_decaying].mul_(factor_K1)
        mean_KP, square_KP = state["exp_avg"], state["exp_avg_sq"]
        one_KP, other_KP = self._scratch
        mean_KP.lerp_(gradient_KP, self.new_first_K1)
        torch.mul(gradient_KP, self.new_second_K1, out=one_KP)
        square_KP.mul_(self.second_K1).addcmul_(one_KP, gradient_KP)
        # rate / (1 - first^t) * mean / (sqrt(square / (1 - second^t)) + eps), with the root's divisor taken out of it.
        divisor = [(1 - beta**step) ** 0.5 for beta, step in zip(self.second, steps, strict=True)]
        size = [rate / (1 - beta**step) for rate, beta, step in zip(rates, self.first, steps, strict=True)]
        eps = self.settings("eps")
        torch.sqrt(square_KP, out=one_KP).add_(self.column([a * b for a, b in zip(eps, divisor, strict=True)]))
        torch.mul(mean_KP, self.column([a * b for a, b in zip(size, divisor, strict=True)]), out=other_KP)
        weights_KP.addcdiv_(other_KP, one_KP, value=-1)

    def extra_state(self, step: int) -> dict[str, Tensor]:
        """Returns the number of steps, as torch's optimizer keeps it."""
        return {"step": torch.tensor(float(step), device=self.stack.device)}


class _StackedSGD(_Stacked):
    """Gradient descent with momentum, each row with rates of its own (Sutskever et al. 2013)."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(stack)
        self.momenta = self.settings("momentum")
        self.state_names = ("momentum_buffer",) if any(self.momenta) else ()
        self.momentum_K1 = self.column(self.momenta)

    def update(self, weights_KP: Tensor, gradient_KP: Tensor, state: dict[str, Tensor]) -> None:
        """Moves the weights, in place."""
        decays = self.settings("weight_decay")
        if any(decays):
            D = self.stack.num_decaying
            gradient_KP[:, :D].add_(weights_KP[:, :D] * self.column(decays))
        if self.state_names:
            buffer_KP = state["momentum_buffer"]
            buffer_KP.mul_(self.momentum_K1).add_(gradient_KP)
            nesterov = cast(SGD, self.stack.objectives[0].optim).nesterov
            gradient_KP = gradient_KP + self.momentum_K1 * buffer_KP if nesterov else buffer_KP
        weights_KP.sub_(gradient_KP * self.column(self.rates()))
