"""The health of a net by layer: how long its gradient is, how far an update moves it, how its outputs spread.

A layer is a module that owns weights, by its dotted name, in the net's order. For every measured step:

- `grad_norm`: norm of the gradient of the layer's weights, before `trainer.clip_norm`, as `train/grad_norm` is.
- `update_ratio`: norm of what the optimizer added to the weights over their norm before. About 0.001 is usual.
- `activation_mean`, `activation_std`: of everything that the layer put out in the step's forwards.

All are of the whole model and the global batch, whatever a strategy slices and however the batch is cut: each rank adds
up squares of what it holds, and the sums over ranks travel with the losses. A weight that several layers share counts
in the first of them. Sums are float64, or a GPU's own tree of float32 sums.

Source: Glorot and Bengio 2010, sections 3 and 4, for activations and gradients by layer; Karpathy's "Building
makemore, part 3" for the ratio.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headway.config.contracts import Engine
from headway.nn.batch_norm import is_standing_in
from headway.objectives.base import Objective
from headway.recipe import Recipe

ROOT = "net"
"""Name of the net itself, where it owns weights."""
_PIECE = 1 << 17
"""Numbers that are made float64 at once: they stay in a core's cache."""
EVERY = 100
"""Steps between measurements by default; they cost a small net less than a hundredth of its time."""


def watch_health(recipe: Recipe, objective: Objective) -> Health | None:
    """Returns what now measures the objective's steps; None where the recipe says never or others make the steps."""
    every = recipe.track.health_every
    if every == "never" or objective.stepper is not None:
        return None
    compiled = recipe.trainer.compile
    if compiled and every != "auto" and objective.train_feed.place.rank == 0:
        print(  # noqa: T201
            f"headway: track.health_every: {every}, but trainer.compile leaves no layer to look into; "
            "gradients and updates are recorded, activations are not",
            file=sys.stderr,
        )
    objective.watch = health = Health(
        objective.net, every=EVERY if every == "auto" else every, activations=not compiled
    )
    return health


class _Layer(NamedTuple):
    name: str
    module: nn.Module
    weights: list[int]
    """Places of its weights among those that are trained."""


class Health:
    """Measures one step in so many, and the first; a `Watch`.

    Args:
        net: before a strategy takes it apart.
        every: steps between those that are measured.
        activations: whether outputs are looked at: what torch.compile compiles, no hook looks into.
    """

    def __init__(self, net: nn.Module, *, every: int, activations: bool = True) -> None:
        self.every = every
        self._names = [name for name, weight in net.named_parameters() if weight.requires_grad]
        self._layers = _find_layers(net, self._names)
        self._listened = self._layers if activations else []
        self._moments: dict[int, tuple[int, Tensor | float, Tensor | float]] = {}
        """Count, sum and sum of squares of what each layer put out, by its place."""
        self._before: dict[str, Tensor] = {}
        self._norms: dict[str, dict[str, Tensor]] = {}
        """Of what this rank holds, by quantity and weight."""

    @property
    def layers(self) -> list[str]:
        """Returns the names of the layers, in the net's order."""
        return [layer.name for layer in self._layers]

    def due(self, step: int) -> bool:
        """Returns whether a step, counted from 0, is measured."""
        return step == 0 or (step + 1) % self.every == 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Looks at what layers put out; outside, they have no hooks."""
        self._moments = {}
        handles = [layer.module.register_forward_hook(self._hook(place)) for place, layer in enumerate(self._listened)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def before_update(self, engine: Engine) -> None:
        """Measures the gradient, and keeps the weights as they are."""
        self._before = {name: weight.detach().clone() for name, weight in engine.own_weights()}
        self._norms = {"gradient": norms(dict(engine.own_gradients())), "weight": norms(self._before)}

    def after_update(self, engine: Engine) -> Tensor:
        """Returns the sums of this rank: squares of gradients, weights and updates, and the layers' moments."""
        for name, weight in engine.own_weights():
            self._before[name].sub_(weight.detach())
        self._norms["update"] = norms(self._before)
        known = next((norm for found in self._norms.values() for norm in found.values()), torch.zeros(()))
        nothing = torch.zeros((), dtype=known.dtype, device=known.device)
        squares = torch.stack(
            [
                self._norms[quantity].get(name, nothing).to(known)
                for quantity in ("gradient", "weight", "update")
                for name in self._names
            ]
        )
        heard = self._collect_moments(known.device)
        self._before, self._norms, self._moments = {}, {}, {}
        return torch.cat([squares.double().square(), heard])

    def _collect_moments(self, device: torch.device) -> Tensor:
        """Returns (3 L,): those of each layer, zeros for one that was not heard."""
        found = [self._moments.get(place) for place in range(len(self._listened))]
        if device.type == "cpu":
            return torch.tensor([value for three in found for value in three or (0.0,) * 3], dtype=torch.float64)
        nothing = torch.zeros((), dtype=torch.float64, device=device)
        # Added rather than copied there, which would wait for the GPU.
        flat = [nothing + value for three in found for value in three or (0, 0.0, 0.0)]
        return torch.stack(flat) if flat else nothing.reshape(1)[:0]

    def metrics(self, sums: list[float]) -> dict[str, float]:
        """Returns `health/<layer>/<quantity>`; what a layer has not (no weight of its own, no output) is left out."""
        count = len(self._names)
        gradient, weight, update = (sums[start * count : (start + 1) * count] for start in range(3))
        found: dict[str, float] = {}
        for place, layer in enumerate(self._layers):
            prefix = f"health/{layer.name}"
            if layer.weights:
                found[f"{prefix}/grad_norm"] = _norm(gradient, layer.weights)
                length = _norm(weight, layer.weights)
                if length > 0:
                    found[f"{prefix}/update_ratio"] = _norm(update, layer.weights) / length
            if place < len(self._listened):
                number, total, squares = sums[3 * count + 3 * place :][:3]
                if number > 0:
                    mean = total / number
                    found[f"{prefix}/activation_mean"] = mean
                    found[f"{prefix}/activation_std"] = math.sqrt(max(0.0, squares / number - mean * mean))
        return found

    def _hook(self, place: int) -> Callable[..., None]:
        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            value = _first_tensor(output)
            if value is not None and not is_standing_in():
                count, total, squares = moments(value.detach())
                before = self._moments.get(place, (0, 0.0, 0.0))
                self._moments[place] = (before[0] + count, before[1] + total, before[2] + squares)

        return look


def norms(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the norm of each tensor, a scalar on its device."""
    if not values:
        return {}
    tensors = list(values.values())
    # A CPU adds up a float32 tensor in long chains, which blur the sixth digit of a million numbers.
    wide = torch.float64 if tensors[0].device.type == "cpu" else _wide(tensors[0])
    return dict(zip(values, torch._foreach_norm(tensors, 2, wide), strict=True))


def moments(value: Tensor) -> tuple[int, Tensor | float, Tensor | float]:
    """Returns how many numbers there are, their sum and the sum of their squares; of a GPU without waiting for it."""
    if value.device.type != "cpu":
        wide = _wide(value)
        norm: Tensor = torch.linalg.vector_norm(value, dtype=wide)
        return value.numel(), value.sum(dtype=wide).double(), norm.double().square()
    flat = value.reshape(-1)
    total = squares = 0.0
    for start in range(0, len(flat), _PIECE):
        piece = flat[start : start + _PIECE].double()
        total += float(piece.sum())
        squares += float(torch.dot(piece, piece))
    return value.numel(), total, squares


def _wide(value: Tensor) -> torch.dtype:
    return torch.promote_types(value.dtype, torch.float32)


def _find_layers(net: nn.Module, names: list[str]) -> list[_Layer]:
    """Returns the modules that own weights, trained or not."""
    place = {name: index for index, name in enumerate(names)}
    layers = []
    for path, module in net.named_modules():
        own = [f"{path}.{name}" if path else name for name, weight in module._parameters.items() if weight is not None]
        if own:
            layers.append(_Layer(path or ROOT, module, [place[name] for name in own if name in place]))
    return layers


def _norm(squares: list[float], places: list[int]) -> float:
    return math.sqrt(sum(squares[place] for place in places))


def _first_tensor(output: Any) -> Tensor | None:
    """Returns what a layer puts out: of several things, such as a recurrent layer's output and state, the first."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    return output if isinstance(output, Tensor) and output.is_floating_point() else None
