"""Recurrent layers of several nets at once against the cells written out, net by net."""

import pytest
import torch
from torch.func import functional_call

from headway.fused.recurrent import run_rows
from headway.nn.recurrent import GRULayer, LSTMLayer, VanillaLayer

pytestmark = pytest.mark.quick

K, T, B, I, H = 2, 5, 3, 7, 11  # noqa: E741
KINDS = {
    "tanh": VanillaLayer,
    "relu": lambda *sizes, **settings: VanillaLayer(*sizes, activation="relu", **settings),
    "lstm": LSTMLayer,
    "gru": GRULayer,
}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_each_net_has_the_outputs_and_gradients_that_it_has_alone(kind, shared, masked):
    generator = torch.Generator().manual_seed(3)
    layer = KINDS[kind](I, H, fused=False).double()

    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=generator).mul_(0.5).requires_grad_()

    weights = {name: draw(K, *weight.shape) for name, weight in layer.named_parameters()}
    x = draw(B, T, I) if shared else draw(K, B, T, I)
    state = [draw(K, B, H) for _ in layer.state_names]
    keep = torch.rand(K, B, H, dtype=torch.float64, generator=generator).gt(0.5) * 2.0 if masked else None
    wanted = [x, *weights.values(), *state]
    alone_K = [
        loss_of(layer, {name: weight[row] for name, weight in weights.items()}, x if shared else x[row],
                  [part[row] for part in state], keep[row] if masked else None)
        for row in range(K)
    ]  # fmt: skip
    expected = torch.autograd.grad(sum(alone_K), wanted)
    layer.runner = run_rows
    axes = (0, None if shared else 0, 0, 0 if masked else None)
    together_K = torch.vmap(lambda *arguments: loss_of(layer, *arguments), in_dims=axes)(weights, x, state, keep)
    torch.testing.assert_close(together_K, torch.stack(alone_K), rtol=1e-12, atol=1e-12)
    for one, two in zip(torch.autograd.grad(together_K.sum(), wanted), expected, strict=True):
        assert two.abs().sum() > 0
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


def loss_of(layer, weights, x, state, keep):
    return functional_call(
        _Loss(layer), {f"layer.{name}": weight for name, weight in weights.items()}, (x, state, keep)
    )


class _Loss(torch.nn.Module):
    """A layer and a loss in which every output and every part of the last state counts differently."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, state, keep):
        run = self.layer.runner or type(self.layer)._run_steps
        out, last = run(self.layer, x, tuple(state), keep)
        return sum(
            (value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)).sum()
            for value in (out, *last)
        )
