"""Sparse activations: a price on the absolute values that come out of the hidden non-linearities.

Each row costs `l1` times the sum of |a| over all its hidden activations, before dropout; the
loss is the mean over rows (over tokens, for text). Hidden activations are what the layers made by
`headway.nn.activation` give; a net that has none of those is refused.

Source: Goodfellow, Bengio and Courville 2016, section 7.10; Glorot, Bordes and Bengio 2011, section 3.
"""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Loss, Outcome, RegularizeConfig
from headway.config.errors import UserError
from headway.nn.activation import Activation, build_activation
from headway.nn.draws import Draws
from headway.regularize.base import Idle


class Config(RegularizeConfig):
    """Configures `SparseActivations`."""

    train_metrics: ClassVar[tuple[str, ...]] = ("activation_l1",)

    l1: float = Field(gt=0)
    """Price of an activation's absolute value."""

    def build(self, spec: DataSpec, *, seed: int) -> SparseActivations:
        """Returns the technique."""
        return SparseActivations(self.l1)


class SparseActivations(Idle):
    """Adds up what comes out of the non-linearities while the net reads its batch."""

    def __init__(self, l1: float) -> None:
        self.l1 = l1
        self._found: list[Tensor] = []
        self._listening = False

    def attach(self, net: nn.Module) -> None:
        """Hooks onto the non-linearities.

        Raises:
            UserError: there are none.
        """
        kinds = tuple({type(build_activation(name)) for name in get_args(Activation)})
        layers = [module for module in net.modules() if isinstance(module, kinds)]
        if not layers:
            raise UserError(
                "regularize.sparse_activations: this net has no layer that is a non-linearity alone; leave it out"
            )
        for layer in layers:
            layer.register_forward_hook(self._add)
        net.register_forward_hook(self._close)
        if net._compiled_call_impl is not None:
            # What another net of this process was compiled to would be taken, and that looks for no hooks.
            torch.compiler.reset()

    def change_batch(self, batch: Batch, rng: Draws | None) -> Batch:
        """Listens to the next forward; those that other techniques ask for come after it."""
        self._found, self._listening = [], True
        return batch

    def add_loss(self, loss: Loss, batch: Batch, outcome: Outcome) -> Outcome:
        """Returns the outcome with the price of what was heard."""
        total = torch.stack(self._found).sum()
        self._found = []
        return outcome._replace(
            loss_sum=outcome.loss_sum + self.l1 * total, sums={**outcome.sums, "activation_l1": total.detach()}
        )

    def _add(self, _layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self._listening:
            self._found.append(output.abs().sum(dtype=torch.promote_types(output.dtype, torch.float32)))

    def _close(self, _net: nn.Module, _inputs: Any, _output: Any) -> None:
        self._listening = False
