"""Hidden units have no place of their own: any order is the same net, and units that start alike stay alike."""

import pytest
import torch
import torch.nn.functional as F

from headway.config.contracts import DataSpec
from headway.init import constant, xavier
from headway.init.base import initialize
from headway.models import mlp
from headway.optim import SGD, AdamW

pytestmark = pytest.mark.quick

SPEC = DataSpec("features", (5,), num_classes=3)
ROWS = 11


def build(start=None, activation="tanh"):
    net = mlp.Config(kind="mlp", hidden=(7, 13), activation=activation).build(SPEC).double()
    return initialize(net, start or xavier.Config(kind="xavier", bias_std=0.5, seed=3))


def batch():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(ROWS, 5, dtype=torch.float64, generator=generator)
    return x, torch.randint(3, (ROWS,), generator=generator)


def train(net, optim, steps):
    optimizer, (x, target) = optim.build(net), batch()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x), target).backward()
        optimizer.step()


@torch.no_grad()
def permute(net, *, flip):
    """Puts the hidden units of each layer in another order, and turns the sign of some, tanh being odd."""
    readers = [net.hidden[1].linear, net.output]
    for layer, reader in zip([layer.linear for layer in net.hidden], readers, strict=True):
        order = torch.randperm(layer.out_features, generator=torch.Generator().manual_seed(7))
        sign = torch.where(order % 3 == 0, -1.0, 1.0).double() if flip else torch.ones(len(order)).double()
        layer.weight.copy_(layer.weight[order] * sign[:, None])
        layer.bias.copy_(layer.bias[order] * sign)
        reader.weight.copy_(reader.weight[:, order] * sign)


@pytest.mark.parametrize(("activation", "flip"), [("tanh", False), ("tanh", True), ("relu", False), ("sigmoid", False)])
def test_hidden_units_in_another_order_are_the_same_function(activation, flip):
    net, permuted = build(activation=activation), build(activation=activation)
    permute(permuted, flip=flip)
    x, _ = batch()
    assert not torch.equal(net.output.weight, permuted.output.weight)
    torch.testing.assert_close(net(x), permuted(x), rtol=0, atol=1e-12)
    # And they learn the same, step by step.
    for each in (net, permuted):
        train(each, AdamW(kind="adamw", lr=0.01), steps=5)
    torch.testing.assert_close(net(x), permuted(x), rtol=0, atol=1e-9)


@pytest.mark.parametrize("optim", [SGD(kind="sgd", lr=0.5, momentum=0.9), AdamW(kind="adamw", lr=0.05)])
def test_units_that_start_alike_stay_alike_through_training(optim):
    def spread(net):
        return max(layer.linear.weight.std(0).max().item() for layer in net.hidden)

    alike, different = build(constant.Config(kind="constant", value=0.3, seed=3)), build()
    assert spread(alike) == 0
    before = alike.output.weight.detach().clone()
    train(alike, optim, steps=20)
    train(different, optim, steps=20)
    assert not torch.allclose(alike.output.weight, before)
    # One unit of each layer is as good as all of them.
    assert spread(alike) < 1e-12
    assert spread(different) > 0.1
