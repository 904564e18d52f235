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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headway.config.contracts import Engine
from headway.nn.batch_norm import is_standing_in

ROOT = "net"
"""Name of the net itself, where it owns weights."""
_PIECE = 1 << 17
"""Numbers that are made float64 at once: they stay in a core's cache."""


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
        self._moments: dict[int, Tensor] = {}
        """Count, sum and sum of squares of what each layer put out, by its place."""
        self._before: dict[str, Tensor] = {}
        self._squares: dict[str, dict[str, Tensor]] = {}
        """Sums of squares of what this rank holds, by quantity and weight."""

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
        gradients = {name: sum_of_squares(gradient) for name, gradient in engine.own_gradients()}
        self._before = {name: weight.detach().clone() for name, weight in engine.own_weights()}
        weights = {name: sum_of_squares(weight) for name, weight in self._before.items()}
        self._squares = {"gradient": gradients, "weight": weights}

    def after_update(self, engine: Engine) -> Tensor:
        """Returns the sums of this rank: squares of gradients, weights and updates, and the layers' moments."""
        self._squares["update"] = {
            name: sum_of_squares(self._before[name].sub_(weight.detach())) for name, weight in engine.own_weights()
        }
        found = [value for quantity in ("gradient", "weight", "update") for value in self._squares[quantity].values()]
        device = found[0].device if found else torch.device("cpu")
        nothing = torch.zeros((), dtype=torch.float64, device=device)
        squares = [
            self._squares[quantity].get(name, nothing).to(device)
            for quantity in ("gradient", "weight", "update")
            for name in self._names
        ]
        unheard = torch.zeros(3, dtype=torch.float64, device=device)
        moments = [self._moments.get(place, unheard).to(device) for place in range(len(self._listened))]
        self._before, self._squares, self._moments = {}, {}, {}
        return torch.cat([torch.stack(squares), *moments])

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

    def _hook(self, place: int) -> Any:
        def look(_layer: nn.Module, _inputs: Any, output: Any) -> None:
            value = _first_tensor(output)
            if value is not None and not is_standing_in():
                found = moments(value.detach())
                self._moments[place] = self._moments[place] + found if place in self._moments else found

        return look


def sum_of_squares(value: Tensor) -> Tensor:
    """Returns the scalar, float64, on the tensor's device."""
    if value.device.type == "cpu":
        return moments(value)[2]
    norm: Tensor = torch.linalg.vector_norm(value, dtype=_wide(value))
    return norm.double().square()


def moments(value: Tensor) -> Tensor:
    """Returns how many numbers there are, their sum and the sum of their squares: (3,), float64."""
    if value.device.type != "cpu":
        wide = _wide(value)
        norm = torch.linalg.vector_norm(value, dtype=wide)
        # Not from a tensor of the CPU: copying one would wait for the GPU.
        count = torch.full((), float(value.numel()), dtype=torch.float64, device=value.device)
        return torch.stack([count, value.sum(dtype=wide).double(), norm.double().square()])
    # A CPU adds up a float32 tensor in long chains, which blur the sixth digit of a million numbers.
    total = squares = 0.0
    for piece in value.reshape(-1).split(_PIECE):  # type: ignore[no-untyped-call]
        wide_piece = piece.double()
        total += float(wide_piece.sum())
        squares += float(torch.dot(wide_piece, wide_piece))
    return torch.tensor([float(value.numel()), total, squares], dtype=torch.float64)


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
