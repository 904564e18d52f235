"""Recurrent layers of K nets at once, with a gradient of their own: a step in time is one batched product and few more.

`torch.vmap` has no rule for the library's kernels, and a layer that goes step by step through autograd pays for every
small operation twice and adds up the gradient of the recurrent matrix at every step. Here the steps write into
buffers that hold the whole sequence. What the gradient needs of gates and states is made for all steps at once, so
that the way back has little left to do at each; the recurrent matrix has its gradient from one product at the end
(`docs/backpropagation.md` derives it for the vanilla RNN).

The equations are those of `step` in `nn/recurrent.py`, to which a test holds these.

Shapes: K nets, T steps, B sequences, H hidden, G = gates * H.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from headway.nn.recurrent import GRULayer, LayerState, LSTMLayer, RecurrentLayer, VanillaLayer


def run_rows(
    layer: RecurrentLayer, x_BTI: Tensor, state: LayerState, keep_BH: Tensor | None
) -> tuple[Tensor, LayerState]:
    """Returns what a layer gives, (B, T, H), and its state after the last step; for a layer under `torch.vmap`.

    Args:
        layer: whose weights are batched over nets.
        x_BTI: its input.
        state: before the first step.
        keep_BH: the mask on the hidden state on its way to the next step; None for none.
    """
    num_sequences, num_steps, _ = x_BTI.shape
    x_NI = x_BTI.transpose(0, 1).flatten(0, 1)
    input_TBG = F.linear(x_NI, layer.weight_input, layer.bias_input).view(num_steps, num_sequences, -1)
    out_TBH, *last = _OverNets.apply(  # type: ignore[no-untyped-call]
        layer, input_TBG, layer.weight_recurrent, layer.bias_recurrent, keep_BH, *state
    )
    # In one piece: of anything else a linear layer under vmap makes a product a sequence, each with a copy of weights.
    return out_TBH.transpose(0, 1).contiguous(), tuple(last)


class _OverNets(torch.autograd.Function):
    """Where `torch.vmap` hands over all nets at once."""

    @staticmethod
    def forward(*_arguments: Any) -> Any:
        raise AssertionError("a layer of one net has its own forward")

    @staticmethod
    def setup_context(_context: Any, _inputs: Any, _output: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], layer: RecurrentLayer, *tensors: Tensor | None) -> Any:
        """Returns the outcome of all nets, each tensor with K as its first axis."""
        stacked = [
            tensor if tensor is None else _first_axis(tensor, axis, info.batch_size)
            for tensor, axis in zip(tensors, in_dims[1:], strict=True)
        ]
        outcome = _Sequence.apply(layer, *stacked)  # type: ignore[no-untyped-call]
        return outcome, (0,) * len(outcome)


def _first_axis(tensor: Tensor, axis: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if axis is None else tensor.movedim(axis, 0)


class _Sequence(torch.autograd.Function):
    """A layer of K nets over T steps."""

    @staticmethod
    def forward(
        context: Any,
        layer: RecurrentLayer,
        input_KTBG: Tensor,
        weight_KGH: Tensor,
        bias_KG: Tensor,
        keep_KBH: Tensor | None,
        *start: Tensor,
    ) -> tuple[Tensor, ...]:
        """Returns what the layer gives, (K, T, B, H), and its state after the last step, each part (K, B, H)."""
        cell = _CELLS[type(layer)](layer, input_KTBG, bias_KG, start)
        # What each step sees of the one before: a buffer of its own only where a mask is in between.
        seen_KTBH = cell.hidden_KTBH[:, :-1] if keep_KBH is None else torch.empty_like(cell.hidden_KTBH[:, :-1])
        weight_KHG = weight_KGH.transpose(1, 2)
        # In one piece, without which a CPU goes net by net.
        product_KBG = torch.empty_like(input_KTBG[:, 0], memory_format=torch.contiguous_format)
        for t in range(input_KTBG.shape[1]):
            if keep_KBH is not None:
                torch.mul(cell.hidden_KTBH[:, t], keep_KBH, out=seen_KTBH[:, t])
            torch.bmm(seen_KTBH[:, t], weight_KHG, out=product_KBG)
            cell.go(t, product_KBG)
        context.cell, context.seen_KTBH = cell, seen_KTBH
        context.save_for_backward(weight_KGH, keep_KBH)
        return cell.hidden_KTBH[:, 1:], *(part[:, -1].clone() for part in cell.state)

    @staticmethod
    def backward(context: Any, by_out_KTBH: Tensor, *by_last: Tensor) -> Any:
        """Returns the gradients of `forward`'s arguments."""
        cell: _Cell = context.cell
        weight_KGH, keep_KBH = context.saved_tensors
        by_product_KTBG = cell.prepare_backward()
        by_hidden_KBH, *by_rest = (part.clone() for part in by_last)
        for t in reversed(range(by_out_KTBH.shape[1])):
            by_hidden_KBH.add_(by_out_KTBH[:, t])
            through_KBH = cell.go_back(t, by_hidden_KBH, by_rest)
            by_hidden_KBH = torch.bmm(by_product_KTBG[:, t], weight_KGH)
            if keep_KBH is not None:
                by_hidden_KBH.mul_(keep_KBH)
            if through_KBH is not None:
                by_hidden_KBH.add_(through_KBH)
        by_product_KNG = by_product_KTBG.flatten(1, 2)
        by_weight_KGH = torch.bmm(by_product_KNG.transpose(1, 2), context.seen_KTBH.flatten(1, 2))
        # The buffers go with the graph's other tensors.
        context.cell = context.seen_KTBH = None
        return None, cell.by_input(by_product_KTBG), by_weight_KGH, by_product_KNG.sum(1), None, by_hidden_KBH, *by_rest


class _Cell(ABC):
    """The buffers of a sequence, and what one step does to them besides the product with the recurrent matrix."""

    def __init__(self, input_KTBG: Tensor, start: Sequence[Tensor]) -> None:
        num_nets, num_steps, num_sequences, _ = input_KTBG.shape
        self.state = [part.new_empty(num_nets, 1 + num_steps, num_sequences, part.shape[2]) for part in start]
        for part, before in zip(self.state, start, strict=True):
            part[:, 0] = before
        self.hidden_KTBH = self.state[0]

    @abstractmethod
    def go(self, t: int, product_KBG: Tensor) -> None:
        """Makes the state after a step, of what the hidden state before it tells the gates."""

    @abstractmethod
    def prepare_backward(self) -> Tensor:
        """Makes, of all steps at once, what the gradient needs besides what comes from later steps.

        Returns:
            (K, T, B, G): where `go_back` writes.
        """

    @abstractmethod
    def go_back(self, t: int, by_hidden_KBH: Tensor, by_rest: Sequence[Tensor]) -> Tensor | None:
        """Writes the gradient by what the hidden state before a step tells the gates.

        Args:
            t: the step.
            by_hidden_KBH: the gradient by the hidden state after it; may be overwritten.
            by_rest: the gradients by the other parts of the state; become those by the state before.

        Returns:
            What reaches the hidden state before the step other than through the product; None for nothing.
        """

    def by_input(self, by_product_KTBG: Tensor) -> Tensor:
        """Returns the gradient by what the input tells the gates, (K, T, B, G), where every step is written."""
        return by_product_KTBG


class _Vanilla(_Cell):
    def __init__(self, layer: VanillaLayer, input_KTBG: Tensor, bias_KG: Tensor, start: Sequence[Tensor]) -> None:
        super().__init__(input_KTBG, start)
        self._is_tanh = layer.activation == "tanh"
        self._sum_KTBH = input_KTBG + bias_KG[:, None, None]
        self._sum, self._hidden = self._sum_KTBH.unbind(1), self.hidden_KTBH.unbind(1)

    def go(self, t: int, product_KBG: Tensor) -> None:
        torch.add(self._sum[t], product_KBG, out=self._hidden[t + 1])
        self._hidden[t + 1].tanh_() if self._is_tanh else self._hidden[t + 1].relu_()

    def prepare_backward(self) -> Tensor:
        hidden_KTBH = self.hidden_KTBH[:, 1:]
        if self._is_tanh:
            _through_tanh(torch.ones_like(hidden_KTBH), hidden_KTBH, out=self._sum_KTBH)
        else:
            torch.gt(hidden_KTBH, 0, out=self._sum_KTBH)
        return self._sum_KTBH

    def go_back(self, t: int, by_hidden_KBH: Tensor, by_rest: Sequence[Tensor]) -> Tensor | None:
        self._sum[t].mul_(by_hidden_KBH)
        return None


class _LSTM(_Cell):
    def __init__(self, _layer: LSTMLayer, input_KTBG: Tensor, bias_KG: Tensor, start: Sequence[Tensor]) -> None:
        super().__init__(input_KTBG, start)
        self._gates_KTBG = input_KTBG + bias_KG[:, None, None]
        self._gates = self._gates_KTBG.unbind(1)
        self._parts = [part.unbind(1) for part in self._gates_KTBG.chunk(4, dim=3)]
        self._input_and_forget = self._gates_KTBG.chunk(2, dim=3)[0].unbind(1)
        self._hidden, self._cell = (part.unbind(1) for part in self.state)
        self._shown_KTBH = torch.empty_like(self.hidden_KTBH[:, 1:])
        self._shown = self._shown_KTBH.unbind(1)

    def go(self, t: int, product_KBG: Tensor) -> None:
        self._gates[t].add_(product_KBG)
        input_KBH, forget_KBH, candidate_KBH, output_KBH = (part[t] for part in self._parts)
        self._input_and_forget[t].sigmoid_()
        candidate_KBH.tanh_()
        output_KBH.sigmoid_()
        torch.mul(forget_KBH, self._cell[t], out=self._cell[t + 1]).addcmul_(input_KBH, candidate_KBH)
        torch.tanh(self._cell[t + 1], out=self._shown[t])
        torch.mul(output_KBH, self._shown[t], out=self._hidden[t + 1])

    def prepare_backward(self) -> Tensor:
        input_KTBH, forget_KTBH, candidate_KTBH, output_KTBH = self._gates_KTBG.chunk(4, dim=3)
        by_product_KTBG = torch.empty_like(self._gates_KTBG)
        by_input, by_forget, by_candidate, by_output = by_product_KTBG.chunk(4, dim=3)
        _through_sigmoid(candidate_KTBH, input_KTBH, out=by_input)
        _through_sigmoid(self.state[1][:, :-1], forget_KTBH, out=by_forget)
        _through_tanh(input_KTBH, candidate_KTBH, out=by_candidate)
        _through_sigmoid(self._shown_KTBH, output_KTBH, out=by_output)
        self._cell_by_hidden = _through_tanh(output_KTBH, self._shown_KTBH, out=self._shown_KTBH).unbind(1)
        # The first three gates have their gradient from the cell's, the last from the hidden state's.
        self._by_cell = by_product_KTBG.view(*by_input.shape[:3], 4, -1)[..., :3, :].unbind(1)
        self._by_output = by_output.unbind(1)
        return by_product_KTBG

    def go_back(self, t: int, by_hidden_KBH: Tensor, by_rest: Sequence[Tensor]) -> Tensor | None:
        (by_cell_KBH,) = by_rest
        by_cell_KBH.addcmul_(by_hidden_KBH, self._cell_by_hidden[t])
        self._by_cell[t].mul_(by_cell_KBH.unsqueeze(2))
        self._by_output[t].mul_(by_hidden_KBH)
        by_cell_KBH.mul_(self._parts[1][t])
        return None


class _GRU(_Cell):
    def __init__(self, _layer: GRULayer, input_KTBG: Tensor, bias_KG: Tensor, start: Sequence[Tensor]) -> None:
        super().__init__(input_KTBG, start)
        self._width = start[0].shape[2]
        sizes = [2 * self._width, self._width]
        self._bias_K1G = bias_KG.unsqueeze(1)
        gates_KTBG, candidate_KTBH = torch.split(input_KTBG, sizes, dim=3)
        self._input = [part.unbind(1) for part in (gates_KTBG, candidate_KTBH)]
        self._gates_KTBG, self._candidate_KTBH, self._recalled_KTBH = (
            torch.empty_like(part, memory_format=torch.contiguous_format)
            for part in (gates_KTBG, candidate_KTBH, candidate_KTBH)
        )
        self._gates, self._candidate = self._gates_KTBG.unbind(1), self._candidate_KTBH.unbind(1)
        self._reset, self._update = (part.unbind(1) for part in self._gates_KTBG.chunk(2, dim=3))
        self._recalled = self._recalled_KTBH.unbind(1)
        self._hidden = self.hidden_KTBH.unbind(1)

    def go(self, t: int, product_KBG: Tensor) -> None:
        product_KBG.add_(self._bias_K1G)
        gates_KBG, recalled_KBH = torch.split(product_KBG, [2 * self._width, self._width], dim=2)
        torch.add(self._input[0][t], gates_KBG, out=self._gates[t]).sigmoid_()
        # The reset gate acts on what the product and its bias say, apart from the input.
        self._recalled[t].copy_(recalled_KBH)
        torch.addcmul(self._input[1][t], self._reset[t], recalled_KBH, out=self._candidate[t]).tanh_()
        torch.lerp(self._candidate[t], self._hidden[t], self._update[t], out=self._hidden[t + 1])

    def prepare_backward(self) -> Tensor:
        reset_KTBH, update_KTBH = self._gates_KTBG.chunk(2, dim=3)
        # By reset, by update, by what is recalled, by what the input tells the candidate.
        by_all_KTBG = reset_KTBH.new_empty(*reset_KTBH.shape[:3], 4 * self._width)
        by_reset, by_update, by_recalled, by_candidate = by_all_KTBG.chunk(4, dim=3)
        _through_tanh(1 - update_KTBH, self._candidate_KTBH, out=by_candidate)
        torch.mul(by_candidate, reset_KTBH, out=by_recalled)
        _through_sigmoid(self._recalled_KTBH.mul_(by_candidate), reset_KTBH, out=by_reset)
        _through_sigmoid(self.hidden_KTBH[:, :-1] - self._candidate_KTBH, update_KTBH, out=by_update)
        self._by_all = by_all_KTBG.view(*reset_KTBH.shape[:3], 4, -1).unbind(1)
        self._by_input = by_all_KTBG[..., : 2 * self._width], by_candidate
        return by_all_KTBG[..., : 3 * self._width]

    def go_back(self, t: int, by_hidden_KBH: Tensor, by_rest: Sequence[Tensor]) -> Tensor | None:
        self._by_all[t].mul_(by_hidden_KBH.unsqueeze(2))
        return by_hidden_KBH.mul_(self._update[t])

    def by_input(self, by_product_KTBG: Tensor) -> Tensor:
        return torch.cat(self._by_input, dim=3)


_CELLS: dict[type[RecurrentLayer], Callable[..., _Cell]] = {VanillaLayer: _Vanilla, LSTMLayer: _LSTM, GRULayer: _GRU}


def _through_sigmoid(gradient: Tensor, value: Tensor, *, out: Tensor) -> Tensor:
    """Writes `gradient * value * (1 - value)`: what reaches a sigmoid's argument where it gave `value`."""
    return cast(Tensor, torch.ops.aten.sigmoid_backward.grad_input(gradient, value, grad_input=out))


def _through_tanh(gradient: Tensor, value: Tensor, *, out: Tensor) -> Tensor:
    """Writes `gradient * (1 - value^2)`."""
    return cast(Tensor, torch.ops.aten.tanh_backward.grad_input(gradient, value, grad_input=out))
