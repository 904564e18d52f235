"""The named non-linearities are torch's own."""

from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from headway.nn.activation import Activation, build_activation

pytestmark = pytest.mark.quick

TWINS = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.01),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)),
    "abs": torch.abs,
    "gelu": F.gelu,
}


def test_every_name_has_a_twin_here():
    assert set(TWINS) == set(get_args(Activation))


@pytest.mark.parametrize("name", TWINS)
def test_an_activation_is_torchs_own_with_its_gradient(name):
    # With zero itself, where rectifiers have a corner, and what an exponential does not reach.
    x = torch.cat([torch.linspace(-3, 3, 101), torch.tensor([0.0, -0.0, -1000.0, 1000.0])]).double().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    out, expected = build_activation(name).double()(x), TWINS[name](twin)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-15)
    out.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, twin.grad, rtol=0, atol=1e-15)


def test_each_prelu_learns_its_own_slope():
    one, two = build_activation("prelu"), build_activation("prelu")
    assert one.weight is not two.weight
    assert one.weight.numel() == 1
