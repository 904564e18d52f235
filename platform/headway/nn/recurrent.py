"""Recurrent layers: the vanilla RNN, the LSTM and the GRU, through the library's kernels and written out.

Sources: Elman 1990; Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 2000;
Cho et al. 2014, with the reset gate after the matrix product, as in torch. Orthogonal recurrent weights: Saxe,
McClelland and Ganguli 2014. A forget gate that starts open: Jozefowicz, Zaremba and Sutskever 2015, section 2.2.

A layer has the weights and the two biases of torch's, gate under gate in torch's order, so weights can be carried
over. The kernel runs a whole sequence at once; where it has no such thing (a mask on the recurrent state), the layer
goes step by step through `step`, which says the same in equations.

Shapes: B sequences, T steps, I inputs, H hidden, G = gates * H, L layers.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headway.nn.draws import Draws
from headway.nn.dropout import Dropout
from headway.nn.uncompiled import uncompiled
from headway.nn.variational_dropout import VariationalDropout

RecurrentInit = Literal["scheme", "orthogonal"]
LayerState = tuple[Tensor, ...]
"""What one layer hands from step to step: (hidden,) or (hidden, cell), each (B, H)."""
Runner = Callable[["RecurrentLayer", Tensor, LayerState, Tensor | None], tuple[Tensor, LayerState]]
"""Takes a layer over a sequence: its input (B, T, I), the state before, the mask (B, H) on what goes on to a step."""


class Recurrent(nn.Module):
    """Recurrent layers on top of each other.

    Args:
        layers: the first one reads the input, each other one what the one below gives.
    """

    def __init__(self, layers: Iterable[RecurrentLayer]) -> None:
        super().__init__()
        held = list(layers)
        self.layers = nn.ModuleList(held)
        self.state_names = held[0].state_names

    def forward(
        self, x_BTI: Tensor, rng: Draws | None = None, state: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns what the last layer gives, (B, T, H), and the state after the last step, each tensor (B, L, H)."""
        x_BTH, after = x_BTI, []
        for place, layer in enumerate(self.layers):
            before = None if state is None else tuple(state[name][:, place] for name in self.state_names)
            x_BTH, last = layer(x_BTH, before, rng)
            after.append(last)
        return x_BTH, {name: torch.stack(parts, 1) for name, *parts in zip(self.state_names, *after, strict=True)}


class RecurrentLayer(nn.Module):
    """One layer over a whole sequence.

    Args:
        num_inputs: I.
        hidden: H.
        dropout: rate on what the layer gives.
        recurrent_dropout: rate on the hidden state on its way to the next step; one mask a sequence.
        variational: whether `dropout` too has one mask a sequence, not one a step.
        recurrent_init: whether the recurrent matrix of each gate starts as a rotation or by the recipe's scheme.
        fused: whether the library's kernel is used where it can be.
    """

    gates: tuple[str, ...]
    """Names of the blocks of each weight, from the top."""
    state_names: tuple[str, ...] = ("hidden",)

    def __init__(
        self,
        num_inputs: int,
        hidden: int,
        *,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        variational: bool = False,
        recurrent_init: RecurrentInit = "scheme",
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.recurrent_init = recurrent_init
        self.fused = fused
        self.runner: Runner | None = None
        """Goes over a sequence in the layer's place, such as those of many nets at once."""
        rows = len(self.gates) * hidden
        # Held by the layer itself: strategies that shard gather a layer's own weights around its forward.
        self.weight_input = nn.Parameter(torch.empty(rows, num_inputs))
        self.weight_recurrent = nn.Parameter(torch.empty(rows, hidden))
        self.bias_input = nn.Parameter(torch.empty(rows))
        self.bias_recurrent = nn.Parameter(torch.empty(rows))
        self.dropout = VariationalDropout(dropout) if variational else Dropout(dropout)
        self.recurrent_dropout = VariationalDropout(recurrent_dropout)
        bound = 1.0 / math.sqrt(hidden)
        self.headway_init(draw=lambda weight: weight.uniform_(-bound, bound), bias=0.0, generator=None)

    @torch.no_grad()
    def headway_init(self, draw: Callable[[Tensor], object], bias: float, generator: torch.Generator | None) -> None:
        """Starts the weights, each gate's matrix as one of its own; the two biases add up to `bias`."""
        for weight, scheme in ((self.weight_input, "scheme"), (self.weight_recurrent, self.recurrent_init)):
            for block in torch.split(weight, self.hidden):
                drawn = torch.empty(block.shape, dtype=torch.float32, device=None if generator else block.device)
                if scheme == "orthogonal":
                    nn.init.orthogonal_(drawn, generator=generator)
                else:
                    draw(drawn)
                block.copy_(drawn)
        self.bias_input.fill_(bias)
        self.bias_recurrent.zero_()

    # A compiler would unroll every step, which takes minutes, or trip over the kernel.
    @uncompiled
    def forward(
        self, x_BTI: Tensor, state: LayerState | None = None, rng: Draws | None = None
    ) -> tuple[Tensor, LayerState]:
        """Returns (B, T, H) and the state after the last step; no state is a state of zeros."""
        if state is None:
            state = tuple(x_BTI.new_zeros(x_BTI.shape[0], self.hidden) for _ in self.state_names)
        keep_BH = self.recurrent_dropout.scale(x_BTI, self.hidden, rng)
        if self.runner is not None:
            x_BTH, state = self.runner(self, x_BTI, state, keep_BH)
        elif self.fused and keep_BH is None:
            x_BTH, state = self._run_kernel(x_BTI, state)
        else:
            x_BTH, state = self._run_steps(x_BTI, state, keep_BH)
        return self.dropout(x_BTH, rng), state

    def _run_steps(self, x_BTI: Tensor, state: LayerState, keep_BH: Tensor | None) -> tuple[Tensor, LayerState]:
        """Goes step by step; what does not depend on the step before is done at once."""
        input_BTG = F.linear(x_BTI, self.weight_input, self.bias_input)
        state = tuple(part.to(x_BTI.dtype) for part in state)
        given = []
        for input_BG in input_BTG.unbind(1):
            seen_BH = state[0] if keep_BH is None else state[0] * keep_BH
            state = self.step(input_BG, F.linear(seen_BH, self.weight_recurrent, self.bias_recurrent), state)
            given.append(state[0])
        return torch.stack(given, 1), state

    def _run_kernel(self, x_BTI: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """Runs the library's kernel over the whole sequence."""
        device, dtype = x_BTI.device.type, x_BTI.dtype
        mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        if mixed:
            # Told by hand: autocast's own rule for these kernels is fp16 on a GPU, whatever type was asked for.
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False) if mixed else nullcontext():
            hidden = [part.to(dtype).unsqueeze(0).contiguous() for part in state]
            held = (self.weight_input, self.weight_recurrent, self.bias_input, self.bias_recurrent)
            weights = [weight.to(dtype) for weight in held]
            x_BTH, *last = self.kernel(x_BTI.to(dtype), hidden, _in_one_piece(weights) if x_BTI.is_cuda else weights)
        return x_BTH, tuple(part[0] for part in last)

    @abstractmethod
    def step(self, input_BG: Tensor, recurrent_BG: Tensor, state: LayerState) -> LayerState:
        """Returns the next state from what the input and the last hidden state make of every gate."""
        raise NotImplementedError

    @abstractmethod
    def kernel(self, x_BTI: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Returns (B, T, H) and the last state, each part (1, B, H), as the library's kernel has it."""
        raise NotImplementedError


class VanillaLayer(RecurrentLayer):
    """`h_t = f(W x_t + U h_(t-1) + b)`; `activation` is f, `settings` are those of `RecurrentLayer`."""

    gates = ("hidden",)

    def __init__(
        self, num_inputs: int, hidden: int, *, activation: Literal["tanh", "relu"] = "tanh", **settings: Any
    ) -> None:
        super().__init__(num_inputs, hidden, **settings)
        self.activation = activation

    def step(self, input_BG: Tensor, recurrent_BG: Tensor, state: LayerState) -> LayerState:
        """Returns the next hidden state."""
        sum_BH = input_BG + recurrent_BG
        return (sum_BH.tanh() if self.activation == "tanh" else sum_BH.relu(),)

    def kernel(self, x_BTI: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Runs torch's."""
        run = torch.rnn_tanh if self.activation == "tanh" else torch.rnn_relu
        return run(x_BTI, state[0], weights, *_one_layer())


class LSTMLayer(RecurrentLayer):
    """Long short-term memory; the forget gate's bias starts at `forget_bias` more, others as in `RecurrentLayer`."""

    gates = ("input", "forget", "candidate", "output")
    state_names = ("hidden", "cell")
    forget_bias: float = 0.0

    def __init__(self, num_inputs: int, hidden: int, *, forget_bias: float = 0.0, **settings: Any) -> None:
        super().__init__(num_inputs, hidden, **settings)
        self.forget_bias = forget_bias
        self._open_forget_gate()

    def headway_init(self, draw: Callable[[Tensor], object], bias: float, generator: torch.Generator | None) -> None:
        """Starts the weights, and the forget gate open."""
        super().headway_init(draw=draw, bias=bias, generator=generator)
        self._open_forget_gate()

    @torch.no_grad()
    def _open_forget_gate(self) -> None:
        torch.split(self.bias_input, self.hidden)[self.gates.index("forget")].add_(self.forget_bias)

    def step(self, input_BG: Tensor, recurrent_BG: Tensor, state: LayerState) -> LayerState:
        """Returns the next hidden state and cell."""
        input_BH, forget_BH, candidate_BH, output_BH = (input_BG + recurrent_BG).chunk(4, dim=1)
        cell_BH = forget_BH.sigmoid() * state[1] + input_BH.sigmoid() * candidate_BH.tanh()
        return output_BH.sigmoid() * cell_BH.tanh(), cell_BH

    def kernel(self, x_BTI: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Runs torch's."""
        return torch.lstm(x_BTI, state, weights, *_one_layer())


class GRULayer(RecurrentLayer):
    """Gated recurrent unit."""

    gates = ("reset", "update", "candidate")

    def step(self, input_BG: Tensor, recurrent_BG: Tensor, state: LayerState) -> LayerState:
        """Returns the next hidden state."""
        from_input, from_recurrent = input_BG.chunk(3, dim=1), recurrent_BG.chunk(3, dim=1)
        reset_BH, update_BH = ((a + b).sigmoid() for a, b in zip(from_input[:2], from_recurrent[:2], strict=True))
        candidate_BH = (from_input[2] + reset_BH * from_recurrent[2]).tanh()
        return ((1 - update_BH) * candidate_BH + update_BH * state[0],)

    def kernel(self, x_BTI: Tensor, state: list[Tensor], weights: list[Tensor]) -> tuple[Tensor, ...]:
        """Runs torch's."""
        return torch.gru(x_BTI, state[0], weights, *_one_layer())


def _one_layer() -> tuple[bool, int, float, bool, bool, bool]:
    """Returns biases, layers, dropout, training, both directions, rows first: the kernels' last arguments."""
    # A kernel of a GPU keeps what its backward needs only where it is told to train.
    return True, 1, 0.0, torch.is_grad_enabled(), False, True


def _in_one_piece(weights: list[Tensor]) -> list[Tensor]:
    """Returns the weights as views of one buffer, in the order in which cuDNN reads them without a copy."""
    flat = torch.cat([weight.flatten() for weight in weights])
    pieces = torch.split(flat, [weight.numel() for weight in weights])
    return [piece.view_as(weight) for piece, weight in zip(pieces, weights, strict=True)]
