"""Back-propagation through time, written out for the vanilla RNN, whole and truncated.

Source: Werbos 1990; truncated: Williams and Peng 1990. `docs/backpropagation.md` derives every line.

The net is `h_t = tanh(W x_t + U h_(t-1) + b)` with logits `o_t = V h_t + c` at every step, and the loss is the
cross-entropy summed over steps, a mean over rows. Like `by_hand.py` this is for reading and for checking.

Shapes: B rows, T steps, I inputs, H hidden, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from headway.nn.by_hand import cross_entropy


class RNN(NamedTuple):
    """The weights. As a gradient: what the loss is differentiated to by each of them."""

    input: Tensor
    """W, (H, I)."""
    recurrent: Tensor
    """U, (H, H)."""
    bias: Tensor
    """b, (H,)."""
    output: Tensor
    """V, (C, H)."""
    output_bias: Tensor
    """c, (C,)."""


class Backward(NamedTuple):
    """What a pass over a sequence, there and back, gives."""

    loss: Tensor
    gradient: RNN
    by_input: Tensor
    """The loss's gradient by the input, (B, T, I)."""
    by_start: Tensor
    """The loss's gradient by the state that the sequence started from, (B, H)."""
    end: Tensor
    """The state after the last step, (B, H): a value, not a gradient."""


def run(x_BTI: Tensor, start_BH: Tensor, net: RNN) -> list[Tensor]:
    """Returns the states h_0, which is the start, to h_T, each (B, H)."""
    states = [start_BH]
    for x_BI in x_BTI.unbind(1):
        states.append(torch.tanh(x_BI @ net.input.T + states[-1] @ net.recurrent.T + net.bias))
    return states


def back_propagate_through_time(x_BTI: Tensor, target_BT: Tensor, start_BH: Tensor, net: RNN) -> Backward:
    """Returns the loss of a sequence and its gradient, with nothing cut.

    What reaches h_t comes from its own output and from the next step:
    `dE/dh_t = V^T (p_t - t_t) + U^T delta_(t+1)`, and below the tanh `delta_t = (1 - h_t^2) * dE/dh_t`.
    """
    states = run(x_BTI, start_BH, net)
    gradient = RNN(*(torch.zeros_like(weight) for weight in net))
    by_input_BTI = torch.zeros_like(x_BTI)
    loss = x_BTI.new_zeros(())
    from_next_BH = torch.zeros_like(start_BH)
    for t in reversed(range(x_BTI.shape[1])):
        before_BH, h_BH = states[t], states[t + 1]
        loss_t, error_BC = cross_entropy(h_BH @ net.output.T + net.output_bias, target_BT[:, t])
        loss += loss_t
        by_h_BH = error_BC @ net.output + from_next_BH
        delta_BH = (1 - h_BH.square()) * by_h_BH
        gradient.output.add_(error_BC.T @ h_BH)
        gradient.output_bias.add_(error_BC.sum(dim=0))
        gradient.input.add_(delta_BH.T @ x_BTI[:, t])
        gradient.recurrent.add_(delta_BH.T @ before_BH)
        gradient.bias.add_(delta_BH.sum(dim=0))
        by_input_BTI[:, t] = delta_BH @ net.input
        from_next_BH = delta_BH @ net.recurrent
    return Backward(loss, gradient, by_input_BTI, from_next_BH, states[-1])


def back_propagate_truncated(x_BTI: Tensor, target_BT: Tensor, start_BH: Tensor, net: RNN, *, window: int) -> Backward:
    """Returns the same loss and a gradient that is cut between windows: values go on, gradients stop.

    Each window of at most `window` steps starts from the value of the last one's end, taken for a constant. So
    what a step does to the loss of a later window is missing from the gradient; nothing else is.
    """
    windows: list[Backward] = []
    state_BH = start_BH
    for x, target in zip(torch.split(x_BTI, window, dim=1), torch.split(target_BT, window, dim=1), strict=True):
        windows.append(back_propagate_through_time(x, target, state_BH, net))
        state_BH = windows[-1].end
    summed = (torch.stack(parts).sum(0) for parts in zip(*(part.gradient for part in windows), strict=True))
    return Backward(
        loss=torch.stack([part.loss for part in windows]).sum(),
        gradient=RNN(*summed),
        by_input=torch.cat([part.by_input for part in windows], dim=1),
        by_start=windows[0].by_start,
        end=state_BH,
    )
