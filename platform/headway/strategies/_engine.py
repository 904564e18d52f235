"""What headway's strategies add to Lightning's: one optimizer step, made of plain calls.

Lightning would run the whole `training_step` inside the wrapped module's forward. Here one call
makes many optimizer steps, so the wrapped forward (DDP's, DeepSpeed's) is called for each
micro-batch instead, which is how those libraries mean to be used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from headway.config.contracts import DrawNoise, EditGradient, EditWeight
from headway.optim import live_state, plain_state

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy
    from torch.distributed.tensor import DTensor

    _Base = Strategy
else:
    _Base = object


class StepEngine(_Base):
    """The steps, for strategies whose optimizer is torch's own: single, DDP, FSDP2."""

    tells_waiting = False

    def training_step(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the module directly, unless it is a user's own that counts on Lightning's loop."""
        assert self.lightning_module is not None
        if self.lightning_module.automatic_optimization:
            return super().training_step(*arguments, **keywords)
        return self.lightning_module.training_step(*arguments, **keywords)

    def validation_step(self, *arguments: Any, **keywords: Any) -> Any:
        """Calls the module directly: its forward goes through `forward`."""
        assert self.lightning_module is not None
        if self.lightning_module.automatic_optimization:
            return super().validation_step(*arguments, **keywords)
        return self.lightning_module.validation_step(*arguments, **keywords)

    def forward(self, *arguments: Any) -> Any:
        """Returns the wrapped module's forward, in the recipe's precision."""
        assert self.model is not None
        # Entered anew for each forward: autocast keeps the weights it has cast until it is left, and
        # they change at every step.
        with self.precision_plugin.forward_context():
            return self.model(*arguments)

    def accumulate(self, *, last: bool) -> None:
        """Says whether the next forward and backward are the step's last, after which gradients are averaged."""

    def backward(  # type: ignore[override]
        self, loss: Tensor, computed: Callable[[], None] = lambda: None
    ) -> None:
        """Adds the loss's gradient."""
        scaler = getattr(self.precision_plugin, "scaler", None)
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _clear_gradients(self, optimizer: torch.optim.Optimizer) -> None:
        # What zero_grad does, without its profiling hooks: a twentieth of a small net's step.
        for group in optimizer.param_groups:
            for weight in group["params"]:
                weight.grad = None

    def update(self, optimizer: torch.optim.Optimizer, clip_norm: float | None) -> Tensor | None:
        """Clips, steps and clears the gradient; returns its norm where it was clipped."""
        self._settle()
        scaler = getattr(self.precision_plugin, "scaler", None)
        norm: Tensor | None = None
        if clip_norm is not None:
            self._unscale(optimizer)
            norm = _whole(nn.utils.clip_grad_norm_(self._net.parameters(), clip_norm))
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        self._clear_gradients(optimizer)
        return norm

    def minimize(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor]) -> None:
        """Steps an optimizer that asks for the loss and its gradient as often as it likes."""

        def fresh() -> Tensor:
            self._clear_gradients(optimizer)
            with torch.enable_grad():
                return closure()

        optimizer.step(fresh)  # type: ignore[arg-type]  # torch wants a float or a tensor, by optimizer
        self._clear_gradients(optimizer)

    # ---- what techniques change --------------------------------------------------------------------

    def edit_gradients(self, edit: EditGradient) -> None:
        """Changes the complete gradient of each weight in place; a weight without one has zeros."""
        self._settle()
        self._unscale(self.optimizers[0])
        with torch.no_grad():
            for name, weight in self._weights:
                if weight.grad is None:
                    weight.grad = torch.zeros_like(weight)
                gradient = _whole(weight.grad)
                edit(name, _whole(weight), gradient)
                if gradient is not weight.grad:
                    weight.grad.copy_(_laid_out_like(weight.grad, gradient))

    def edit_weights(self, edit: EditWeight) -> None:
        """Changes each weight in place."""
        self._settle()
        with torch.no_grad():
            for name, weight in self._weights:
                whole = _whole(weight)
                edit(name, whole)
                if whole is not weight:
                    weight.copy_(_laid_out_like(weight, whole))

    def disturb(self, noise: DrawNoise) -> None:
        """Adds noise to the weights until the gradient is complete."""
        with torch.no_grad():
            for name, weight in self._weights:
                drawn = noise(name, tuple(weight.shape))
                if drawn is not None:
                    self._undisturbed.append((weight, weight.detach().clone()))
                    weight.add_(_laid_out_like(weight, drawn))

    @cached_property
    def _weights(self) -> list[tuple[str, nn.Parameter]]:
        """Weights that are trained, by name; kept, as walking through a small net costs a twentieth of its step."""
        return [(name, weight) for name, weight in self._net.named_parameters() if weight.requires_grad]

    @cached_property
    def _undisturbed(self) -> list[tuple[Tensor, Tensor | None]]:
        """Weights that are disturbed, and what they were where that is not kept elsewhere."""
        return []

    def _settle(self) -> None:
        """Takes the noise off the weights, to the bit."""
        if self._undisturbed:
            with torch.no_grad():
                for weight, before in self._undisturbed:
                    assert before is not None
                    weight.copy_(before)
            self._undisturbed.clear()

    def _unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes the factor off the gradient that keeps fp16 from underflow."""
        scaler = getattr(self.precision_plugin, "scaler", None)
        if scaler is not None and scaler._per_optimizer_states[id(optimizer)]["stage"].value == 0:
            scaler.unscale_(optimizer)

    # ---- what is measured ------------------------------------------------------------------------

    def own_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's slice of each weight, or the weights of which it speaks for all ranks."""
        self._settle()
        return ((name, _own(weight)) for name, weight in self._spoken_for())

    def own_gradients(self) -> Iterator[tuple[str, Tensor]]:
        """Yields this rank's slice of each gradient, or the gradients of which it speaks for all ranks."""
        scaler = getattr(self.precision_plugin, "scaler", None)
        scale = None
        if scaler is not None and scaler._per_optimizer_states[id(self.optimizers[0])]["stage"].value == 0:
            scale = scaler._scale
        for name, weight in self._spoken_for():
            if weight.grad is not None:
                # Not in place: what is looked at is not changed.
                yield name, _own(weight.grad) if scale is None else _own(weight.grad) / scale

    def _spoken_for(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yields the weights that this rank measures: where all have the whole, each rank takes some."""
        ranks = cast(Any, self)
        for place, (name, weight) in enumerate(self._weights):
            if _is_sliced(weight) or place % ranks.world_size == ranks.global_rank:
                yield name, weight

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Returns the element-wise sum."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(values)
        return values

    # ---- state, by name and whole ----------------------------------------------------------------

    @property
    def _net(self) -> nn.Module:
        assert self.lightning_module is not None
        net = getattr(self.lightning_module, "net", self.lightning_module)
        assert isinstance(net, nn.Module)
        return net

    def gather_weights(self) -> dict[str, Tensor]:
        """Returns every weight and buffer, whole and on the CPU, on rank 0."""
        weights = {name: _whole(value) for name, value in self._net.state_dict().items()}
        return {name: value.detach().cpu().clone() for name, value in weights.items()} if self.is_global_zero else {}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Sets every weight and buffer, in place."""
        with torch.no_grad():
            for name, own in self._net.state_dict().items():
                own.copy_(_laid_out_like(own, weights[name]))

    def gather_optimizer(self) -> dict[str, Tensor]:
        """Returns the optimizer's state on rank 0, whole, by `<state>/<weight>`."""
        state: dict[str, Tensor] = {}
        optimizer = self.optimizers[0]
        for name, weight in self._net.named_parameters():
            for key, value in plain_state(optimizer.state.get(weight, {})).items():
                whole = _whole(value)
                state[f"{key}/{name}"] = whole.detach().cpu().clone() if self.is_global_zero else whole
        return state if self.is_global_zero else {}

    def load_optimizer(self, state: dict[str, Tensor]) -> None:
        """Sets the optimizer's state."""
        weights = dict(self._net.named_parameters())
        optimizer = self.optimizers[0]
        for path, value in state.items():
            key, _, name = path.partition("/")
            weight = weights[name]
            if value.shape == weight.shape:
                value = _laid_out_like(weight, value).clone()
            optimizer.state[weight].update(live_state(key, value))


def _whole(value: Tensor) -> Tensor:
    """Returns the whole of a sharded tensor; every rank has to ask."""
    return cast("DTensor", value).full_tensor() if _is_sliced(value) else value


def _own(value: Tensor) -> Tensor:
    """Returns what this rank holds of a tensor."""
    return cast("DTensor", value).to_local() if _is_sliced(value) else value


def _is_sliced(value: Tensor) -> bool:
    """Returns whether ranks share a tensor; torch takes half a second to import slices, which plain ones need not."""
    if type(value) in (Tensor, nn.Parameter):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(value, DTensor)


def _laid_out_like(own: Tensor, value: Tensor) -> Tensor:
    value = value.to(own.device, own.dtype)
    if not _is_sliced(own):
        return value
    from torch.distributed.tensor import distribute_tensor

    like = cast("DTensor", own)
    # Every rank has the whole: each cuts out its slice, and nothing is sent.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
