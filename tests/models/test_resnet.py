"""Residual nets against torchvision's, with the weights carried over."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models import resnet

IMAGENET = DataSpec("image", (3, 224, 224), num_classes=1000)
SMALL = DataSpec("image", (3, 16, 16), num_classes=7)


def build(spec, **settings):
    return resnet.Config(kind="resnet", **settings).build(spec)


@pytest.mark.quick
@pytest.mark.parametrize(("depth", "count"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160)])
def test_each_depth_has_the_published_number_of_weights(depth, count):
    with torch.device("meta"):
        net = build(IMAGENET, depth=depth, stem="imagenet")
    assert sum(weight.numel() for weight in net.parameters()) == count


@pytest.mark.quick
def test_the_nets_for_cifar_have_as_many_layers_as_their_depth_says():
    for depth in (20, 32, 56):
        with torch.device("meta"):
            net = build(SMALL, depth=depth, shortcut="zero_pad")
        layers = [module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        assert len(layers) == depth
    # Table 6 of the paper: 0.27 million weights at depth 20.
    with torch.device("meta"):
        net = build(DataSpec("image", (3, 32, 32), num_classes=10), depth=20, shortcut="zero_pad")
    assert round(sum(weight.numel() for weight in net.parameters()) / 1e6, 2) == 0.27


def twins(torchvision_models, depth):
    """Returns torchvision's net and ours, in float64, with the same weights and statistics."""
    torch.manual_seed(5)
    theirs = getattr(torchvision_models, f"resnet{depth}")(num_classes=7).double()
    ours = build(DataSpec("image", (3, 37, 37), num_classes=7), depth=depth, stem="imagenet").double()
    values = [value for name, value in theirs.state_dict().items() if "num_batches" not in name]
    with torch.no_grad():
        for own, value in zip(ours.state_dict().values(), values, strict=True):
            own.copy_(value)
    return theirs, ours


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_torchvisions_weights_give_its_logits_gradients_and_statistics(torchvision_models, depth):
    theirs, ours = twins(torchvision_models, depth)
    images = torch.randn(3, 3, 37, 37, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for net in (theirs, ours):
        net(images).square().sum().backward()
    for own, value in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own.grad, value.grad)
    statistics = [value for name, value in theirs.named_buffers() if "num_batches" not in name]
    for own, value in zip(ours.buffers(), statistics, strict=True):
        torch.testing.assert_close(own, value)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@pytest.mark.quick
def test_zero_padded_shortcut_keeps_every_other_pixel_and_adds_empty_channels():
    x = torch.randn(2, 3, 5, 5)
    out = resnet.ZeroPad(4, 2)(x)
    assert out.shape == (2, 7, 3, 3)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert out[:, 3:].eq(0).all()


@pytest.mark.quick
def test_a_plain_net_is_the_residual_one_without_what_is_carried():
    plain, residual = (build(SMALL, depth=8, shortcut=shortcut, width=3) for shortcut in ("none", "zero_pad"))
    assert [weight.shape for weight in plain.parameters()] == [weight.shape for weight in residual.parameters()]
    residual.load_state_dict(plain.state_dict())
    block, same = residual.blocks[0], plain.blocks[0]
    x = torch.randn(2, 3, 16, 16).relu()
    for net in (block, same):
        net.eval()
    with torch.no_grad():
        inner = block.banks[1](block.banks[0](x).relu())
        torch.testing.assert_close(block(x), (inner + x).relu())
        torch.testing.assert_close(same(x), inner.relu())


@pytest.mark.quick
def test_what_cannot_be_built_is_refused_in_a_line():
    with pytest.raises(ValidationError, match="depth 19 is no residual net's"):
        resnet.Config(kind="resnet", depth=19)
    with pytest.raises(UserError, match=r"model.stem: imagenet at depth 18 strides over 32 pixels.*16x16"):
        build(SMALL, depth=18, stem="imagenet")
    with pytest.raises(UserError, match=r"model.kind: resnet needs images; this data gives features"):
        build(DataSpec("features", (64,), num_classes=7), depth=18)
