"""AlexNet against torchvision's and against the paper's arithmetic."""

import pytest
import torch

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models import alexnet

IMAGENET = DataSpec("image", (3, 224, 224), num_classes=1000)


def build(spec=IMAGENET, **settings):
    return alexnet.Config(kind="alexnet", **settings).build(spec)


def num_weights(**settings):
    with torch.device("meta"):
        return sum(weight.numel() for weight in build(**settings).parameters())


@pytest.mark.quick
def test_both_forms_have_the_published_number_of_weights():
    assert num_weights() == 61_100_840
    assert num_weights(form="two_groups", local_response_norm=True) == 60_965_224


def test_torchvisions_weights_give_torchvisions_logits(torchvision_models):
    theirs = torchvision_models.alexnet().eval()
    ours = build().eval()
    carried = zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True)
    with torch.no_grad():
        for own, value in carried:
            own.copy_(value)
        images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.quick
def test_groups_see_only_their_half_of_the_channels():
    net = build(DataSpec("image", (3, 67, 67), num_classes=5), form="two_groups", scale=0.05)
    x = torch.randn(2, net.stages[0].filters.out_channels, 13, 13, requires_grad=True)
    half = x.shape[1] // 2
    net.stages[1].filters(x)[:, : net.stages[1].filters.out_channels // 2].sum().backward()
    assert x.grad[:, half:].eq(0).all()
    assert x.grad[:, :half].ne(0).any()


@pytest.mark.quick
def test_normalization_is_the_papers_formula():
    norm = build(DataSpec("image", (3, 67, 67), num_classes=5), local_response_norm=True, scale=0.1).stages[0].norm
    x = torch.rand(2, 11, 3, 3, dtype=torch.float64) * 30
    energy = torch.nn.functional.pad(x.square(), (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
    torch.testing.assert_close(norm(x), x / (2 + 1e-4 * energy) ** 0.75)


@pytest.mark.quick
def test_small_images_have_a_stem_of_their_own():
    net = build(DataSpec("image", (3, 32, 32), num_classes=7), stem="cifar", scale=0.02)
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    with pytest.raises(UserError, match=r"model.stem: imagenet leaves nothing of an image of 32x32; use stem cifar"):
        build(DataSpec("image", (3, 32, 32), num_classes=7))
    with pytest.raises(UserError, match=r"model.kind: alexnet needs images"):
        build(DataSpec("features", (64,), num_classes=7))
