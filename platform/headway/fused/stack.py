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
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from headway.config.contracts import Batch
from headway.fused.draws import StackDraws
from headway.fused.loop import RowState
from headway.fused.optimizers import build_optimizer
from headway.fused.template import build_template
from headway.nn.batch_norm import BatchNorm
from headway.objectives._sums import Sums
from headway.objectives.base import Objective
from headway.regularize.penalty import Penalty


@dataclass(frozen=True)
class _Place:
    """Where a weight lies in a row of the matrix."""

    name: str
    start: int
    stop: int
    shape: torch.Size

    def of(self, row_P: Tensor) -> Tensor:
        """Returns the weight, a view of a row."""
        return row_P[self.start : self.stop].view(self.shape)


class _View(NamedTuple):
    """What a row's own optimizer holds of a weight."""

    weight: nn.Parameter
    state: dict[str, Any]
    data: Tensor
    """What the weight looked at when the stack was made."""
    own: dict[str, Tensor]
    """Its state in the matrices, by name."""


class Stack:
    """K rows whose nets are the same but for dropout rates; settings that change no shape are each row's own.

    Args:
        objectives: of the rows.
        optimizers: of the rows, which have made steps or not.
    """

    def __init__(self, objectives: Sequence[Objective], optimizers: Sequence[torch.optim.Optimizer | RowState]) -> None:
        self.objectives, self.optimizers = list(objectives), list(optimizers)
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
        with torch.no_grad():
            self.weights_KP = self._gather(lambda weight, _state: weight)
            self._optim = build_optimizer(self.objectives, self.weights_KP, self.num_decaying, self._rate_scales())
            self.state = {name: self._gather(partial(_get, name)) for name in self._optim.state_names}
        self._gradient_KP = torch.empty_like(self.weights_KP)
        self._views = [self._look_into(row) for row in range(len(self.objectives))]
        self._statistics = self._stack_statistics()
        self.template, rates = build_template([objective.net for objective in self.objectives])
        rates_K = {
            layer: torch.tensor(of_rows, dtype=torch.float64, device=self.device) for layer, of_rows in rates.items()
        }
        self._draws = StackDraws(rates_K, device=self.device)
        self._feeds = _Feeds(self.objectives)
        # They look into the matrix, which an update changes in place.
        self._leaves = [
            self.weights_KP[:, place.start : place.stop].view(-1, *place.shape).detach().requires_grad_()
            for place in self.places
        ]
        self.gradients = [
            self._gradient_KP[:, place.start : place.stop].view(-1, *place.shape) for place in self.places
        ]
        self._row_K = torch.arange(len(self.objectives), device=self.device)
        self._settings = self._own_settings()
        techniques = [[part for part in row.techniques if isinstance(part, Penalty)] for row in self.objectives]
        self._l1_K1 = self._column([sum(part.l1 for part in parts) for parts in techniques])
        self._l2_K1 = self._column([sum(part.l2 for part in parts) for parts in techniques])
        self._clip_value_K1 = self._column([row.schedule.clip_value for row in self.objectives])
        self._clip_norm_K1 = self._column([row.schedule.clip_norm for row in self.objectives])

    def _own_settings(self) -> dict[str, Tensor]:
        """Returns the settings of the loss in which rows differ, (K,) by name."""
        found = {}
        for name in self.objectives[0].row_settings:
            values = [getattr(objective, name) for objective in self.objectives]
            if len(set(values)) > 1:
                found[name] = torch.tensor(values, dtype=self.dtype, device=self.device)
        return found

    def _column(self, values: Sequence[float | None]) -> Tensor | None:
        """Returns (K, 1) of a number a row; None where no row has one."""
        if not any(values):
            return None
        return torch.tensor(values, dtype=self.dtype, device=self.device).unsqueeze(1)

    # ---- rows and matrix ---------------------------------------------------------------------------

    def _gather(self, value: Callable[[nn.Parameter, dict[str, Any]], Tensor | None]) -> Tensor:
        """Returns (K, P) of what a row has for a weight and its optimizer state; zeros where it has nothing yet."""
        matrix = torch.zeros(len(self.objectives), self.places[-1].stop, device=self.device, dtype=self.dtype)
        for row, objective, optimizer in zip(matrix, self.objectives, self.optimizers, strict=True):
            net = dict(objective.net.named_parameters())
            for place in self.places:
                weight = net[place.name]
                found = value(weight, optimizer.state[weight])
                if found is not None:
                    place.of(row).copy_(found)
        return matrix

    def _look_into(self, row: int) -> list[_View]:
        """Has a row's weights and optimizer state be views of the matrices; returns them."""
        objective, optimizer = self.objectives[row], self.optimizers[row]
        net = dict(objective.net.named_parameters())
        views = []
        for place in self.places:
            weight = net[place.name]
            weight.data = place.of(self.weights_KP[row])
            state = optimizer.state[weight]
            own = {name: place.of(matrix_KP[row]) for name, matrix_KP in self.state.items()}
            if objective.step:
                state.update(own)
            views.append(_View(weight, state, weight.data, own))
        return views

    def _rate_scales(self) -> Tensor | None:
        """Returns the factors on the learning rates of single weights, (K, P), which muP has; None for none."""
        scales: list[dict[str, float]] = [getattr(objective.net, "lr_scales", {}) for objective in self.objectives]
        if not any(scales):
            return None
        scale_KP = torch.ones_like(self.weights_KP)
        for row_P, of_row in zip(scale_KP, scales, strict=True):
            for place in self.places:
                place.of(row_P).fill_(of_row.get(place.name, 1.0))
        return scale_KP

    def _stack_statistics(self) -> dict[str, Tensor]:
        """Has the rows' batch normalizations look into (K, C) tensors of their running statistics; returns these."""
        found = {}
        for name, module in self.objectives[0].net.named_modules():
            if not isinstance(module, BatchNorm):
                continue
            for part, _ in module.named_buffers(recurse=False):
                own = [objective.net.get_buffer(f"{name}.{part}") for objective in self.objectives]
                found[f"{name}.{part}"] = stacked_KC = torch.stack(own)
                for buffer, row_C in zip(own, stacked_KC, strict=True):
                    buffer.data = row_C
        return found

    def is_current(self) -> bool:
        """Returns whether the rows still look into the matrices: a restored optimizer brings tensors of its own."""
        return all(
            weight.data_ptr() == data.data_ptr() and all(state.get(name, view) is view for name, view in own.items())
            for views in self._views
            for weight, state, data, own in views
        )

    # ---- steps ---------------------------------------------------------------------------------------

    def make_steps(self, num_steps: int) -> list[list[Sums]]:
        """Makes steps of every row and returns their sums, by row and step."""
        recorded: list[dict[str, Tensor]] = []
        counts: list[list[float]] = []
        self.prepare(num_steps)
        for ahead in range(num_steps):
            sums, count_K = self._step(ahead)
            recorded.append(sums)
            counts.append(count_K)
        for objective in self.objectives:
            objective.step += num_steps
        for objective, views in zip(self.objectives, self._views, strict=True):
            extra = self._optim.extra_state(objective.step)
            for _, state, _, own in views:
                state.update(own, **extra)
        names = list(recorded[0])
        table_SMK = torch.stack([torch.stack([sums[name] for name in names]) for sums in recorded]).tolist()
        return [
            [
                {"count": counts[step][row], **{name: table_SMK[step][place][row] for place, name in enumerate(names)}}
                for step in range(num_steps)
            ]
            for row in range(len(self.objectives))
        ]

    def _step(self, ahead: int) -> tuple[dict[str, Tensor], list[float]]:
        """Makes one step of every row, by its place in the chunk; returns sums (K,) by name, and what was counted."""
        batch, dims, count_K = self._feeds.batch(ahead)
        draws, leaves = self._draws, self._leaves
        keys = [(objective.schedule.seed, objective.step + ahead) for objective in self.objectives]
        draws.begin(keys, len(batch["input"]) if dims["input"] is None else batch["input"].shape[1])
        names = [place.name for place in self.places]
        objective = copy.copy(self.objectives[0])
        objective.is_stacked = True

        def outcome(
            weights: Sequence[Tensor],
            statistics: dict[str, Tensor],
            batch: Batch,
            row: Tensor,
            masks: dict[int, Tensor],
            settings: dict[str, Tensor],
        ) -> tuple[Tensor, dict[str, Tensor]]:
            draws.row, draws.masks = row, masks
            for name, value in settings.items():
                setattr(objective, name, value)
            net = RowNet(self.template, dict(zip(names, weights, strict=True)) | statistics)
            found = objective.outcome(cast(nn.Module, net), batch, None, draws)
            return found.loss_sum, found.sums

        losses_K, sums = torch.vmap(outcome, in_dims=(0, 0, dims, 0, 0, 0))(
            leaves, self._statistics, batch, self._row_K, draws.make_masks(), self._settings
        )
        scale_K = torch.tensor([1.0 / max(count, 1.0) for count in count_K], dtype=losses_K.dtype, device=self.device)
        # The sum over rows: each row's gradient is its own, as if it were alone.
        gradients = torch.autograd.grad((losses_K * scale_K).sum(), leaves)
        for own, gradient in zip(self.gradients, gradients, strict=True):
            own.copy_(gradient)
        recorded = {"loss": losses_K.detach(), **{name: value.detach() for name, value in sums.items()}}
        norm_K = self.update(ahead)
        if norm_K is not None:
            recorded["grad_norm"] = norm_K
        return {name: value.to(torch.float64) for name, value in recorded.items()}, count_K

    def prepare(self, num_steps: int) -> None:
        """Gets ready for the updates of the next steps."""
        self._optim.prepare(num_steps)

    @torch.no_grad()
    def update(self, ahead: int) -> Tensor | None:
        """Moves the weights by the `gradients`; returns these's norms (K,) where they were clipped by norm.

        Args:
            ahead: place of the step among those that were prepared.
        """
        self._add_penalty(self._gradient_KP)
        norm_K = self._clip(self._gradient_KP)
        self._optim.update(ahead, self.weights_KP, self._gradient_KP, self.state)
        return norm_K

    def _add_penalty(self, gradient_KP: Tensor) -> None:
        """Adds what each row's `regularize.penalty` makes of its weights."""
        weights_KD, gradient_KD = (matrix_KP[:, : self.num_decaying] for matrix_KP in (self.weights_KP, gradient_KP))
        if self._l2_K1 is not None:
            gradient_KD.addcmul_(weights_KD, self._l2_K1)
        if self._l1_K1 is not None:
            gradient_KD.addcmul_(weights_KD.sign(), self._l1_K1)

    def _clip(self, gradient_KP: Tensor) -> Tensor | None:
        """Clips each row's gradient in place, by value and then by norm; returns the norms (K,) where by norm."""
        if self._clip_value_K1 is not None:
            gradient_KP.clamp_(-self._clip_value_K1, self._clip_value_K1)
        if self._clip_norm_K1 is None:
            return None
        norm_K1 = torch.linalg.vector_norm(gradient_KP, dim=1, keepdim=True)
        # What torch's clip_grad_norm_ divides by.
        gradient_KP.mul_((self._clip_norm_K1 / (norm_K1 + 1e-6)).clamp(max=1.0))
        return cast(Tensor, norm_K1.squeeze(1))


class _Feeds:
    """What rows read at each step; those that read the same samples share a batch.

    Args:
        objectives: of the rows.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self._objectives = objectives
        feeds = [objective.train_feed for objective in objectives]
        self._keys = [(id(feed.split), feed.seed, feed.batch_size) for feed in feeds]

    def batch(self, ahead: int) -> tuple[Batch, dict[str, int | None], list[float]]:
        """Returns the batches of a step, along which tensors rows differ, and what each row counts."""
        found: dict[tuple[Any, ...], tuple[Batch, float]] = {}
        keys = [(*key, row.step + ahead) for key, row in zip(self._keys, self._objectives, strict=True)]
        for key, row in zip(keys, self._objectives, strict=True):
            if key not in found:
                share = row.train_feed.share(row.step + ahead)
                batch = share.micro_batches[0].batch
                count = float(share.num_rows) if row.counts_rows else float(row.count(batch))
                found[key] = batch, count
        counts = [found[key][1] for key in keys]
        if len(found) == 1:
            batch = found[keys[0]][0]
            return batch, dict.fromkeys(batch), counts
        batches = [found[key][0] for key in keys]
        filled_with = self._objectives[0].filled_with
        stacked = {name: _stack([batch[name] for batch in batches], filled_with.get(name)) for name in batches[0]}
        return stacked, dict.fromkeys(stacked, 0), counts


def _stack(tensors: Sequence[Tensor], filled_with: int | None) -> Tensor:
    """Returns tensors of one shape side by side; (B, S) that are as long as their longest sample are filled up."""
    if filled_with is None:
        return torch.stack(list(tensors))
    longest = max(tensor.shape[1] for tensor in tensors)
    padded = [F.pad(tensor, (0, longest - tensor.shape[1]), value=filled_with) for tensor in tensors]
    return torch.stack(padded)


class RowNet:
    """A net with weights and statistics of its own, called like a module."""

    def __init__(self, template: nn.Module, weights: dict[str, Tensor], *, training: bool = True) -> None:
        self.template, self.weights, self.training = template, weights, training

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return functional_call(self.template, self.weights, arguments, named)


def _get(name: str, _weight: nn.Parameter, state: dict[str, Any]) -> Tensor | None:
    return state.get(name)
