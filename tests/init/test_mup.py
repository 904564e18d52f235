"""muP: what grows with the width, and what does not."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits

from headway.config.contracts import DataSpec, Scale
from headway.config.errors import UserError
from headway.init import kaiming, mup
from headway.init.base import initialize
from headway.models import autoencoder, gpt, mlp, ngram
from headway.optim import AdamW, parameter_groups

SPEC = DataSpec("features", (64,), num_classes=10)
BASE = 64


def build(width, scheme="mup", *, seed=3, depth=3):
    """Returns a net of this width, started by muP or by its like without it."""
    config = mlp.Config(kind="mlp", hidden=(width,) * depth)
    net = config.build(SPEC)
    if scheme == "kaiming":
        return initialize(net, kaiming.Config(kind="kaiming", seed=seed))
    start = mup.Config(kind="mup", base_width=BASE, seed=seed)
    with torch.device("meta"):
        wider = config.widened(2).build(SPEC)
    scales = start.scales(net, wider, width=width)
    net.lr_scales = {name: scale.lr for name, scale in scales.items()}
    return initialize(net, start, scales=scales)


def digits():
    bunch = load_digits()
    x = torch.tensor(bunch.data, dtype=torch.float32)
    return (x - x.mean()) / x.std(), torch.tensor(bunch.target)


def train(net, rate, steps, batch=128):
    """Trains by hand and returns the mean loss over the later half of the steps."""
    x, target = digits()
    optimizer = AdamW(kind="adamw", lr=rate).build(net)
    losses = []
    for step in range(steps):
        rows = torch.randint(len(x), (batch,), generator=torch.Generator().manual_seed(step))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        loss = F.cross_entropy(net(x[rows]), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[steps // 2 :]) / len(losses[steps // 2 :])


@pytest.mark.quick
def test_each_weight_is_scaled_by_which_of_its_axes_grow():
    config = mlp.Config(kind="mlp", hidden=(256, 256))
    with torch.device("meta"):
        net, wider = config.build(SPEC), config.widened(2).build(SPEC)
    found = mup.Config(kind="mup", base_width=64).scales(net, wider, width=256)
    assert found == {"hidden.1.linear.weight": Scale(lr=1 / 4), "output.weight": Scale(draw=1 / 2, lr=1 / 4)}


@pytest.mark.quick
def test_at_the_base_width_it_is_the_net_that_it_is_without():
    for one, two in zip(build(BASE).parameters(), build(BASE, "kaiming").parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.quick
def test_groups_carry_the_scale_of_their_rate():
    groups = parameter_groups(build(256), 0.1)
    found = [(group.get("lr_scale", 1.0), group["weight_decay"]) for group in groups]
    assert found == [(1.0, 0.1), (0.25, 0.1), (1.0, 0.0)]
    sizes = [sum(weight.numel() for weight in group["params"]) for group in groups]
    assert sizes == [64 * 256, 2 * 256 * 256 + 256 * 10, 3 * 256 + 10]


@pytest.mark.quick
def test_an_embedding_does_not_shrink_and_a_tied_output_is_refused():
    spec = DataSpec("tokens", (5,), vocab_size=1009)

    def scales(**settings):
        config = gpt.Config(kind="gpt", num_layers=1, num_heads=2, width=256, **settings)
        with torch.device("meta"):
            net, wider = config.build(spec), config.widened(2).build(spec)
        return mup.Config(kind="mup", base_width=64).scales(net, wider, width=256)

    assert scales(tied=False)["token_embedding.weight"] == Scale(draw=2.0)
    with pytest.raises(UserError, match=r"init.kind: mup wants output weights of their own, .* set model.tied=false"):
        scales(tied=True)


@pytest.mark.quick
def test_an_embedding_of_a_width_of_its_own_is_left_alone():
    config, spec = (
        ngram.Config(kind="ngram", embedding=7, hidden=256, context=3),
        DataSpec("tokens", (5,), vocab_size=11),
    )
    with torch.device("meta"):
        net, wider = config.build(spec), config.widened(2).build(spec)
    found = mup.Config(kind="mup", base_width=64).scales(net, wider, width=256)
    assert found == {"output.weight": Scale(draw=1 / 2, lr=1 / 4)}


@pytest.mark.quick
def test_a_decoder_that_is_the_encoder_transposed_is_refused():
    config = autoencoder.Config(kind="autoencoder", hidden=(256,), tied=True)
    with torch.device("meta"):
        net, wider = config.build(SPEC), config.widened(2).build(SPEC)
    with pytest.raises(UserError, match="this Autoencoder uses its input's once more"):
        mup.Config(kind="mup", base_width=64).scales(net, wider, width=256)


def test_coordinates_do_not_grow_with_the_width_and_do_without_it():
    """The coordinate check of Tensor Programs V, appendix D: sizes of activations after a few steps."""

    def growth(scheme):
        sizes = []
        for width in (64, 512):
            net = build(width, scheme)
            before = net(digits()[0][:64]).detach()
            train(net, 0.002, steps=4)
            sizes.append((net(digits()[0][:64]).detach() - before).abs().mean().item())
        return sizes[1] / sizes[0]

    assert growth("mup") < 1.2
    assert growth("kaiming") > 2


def best_rate(width, scheme, *, seeds):
    """Returns which rate of a grid has the least loss, summed over seeds."""
    losses = {
        2.0**power: sum(train(build(width, scheme, seed=seed), 2.0**power, steps=40) for seed in seeds)
        for power in range(-11, -3)
    }
    return min(losses, key=lambda rate: losses[rate])


@pytest.mark.slow
def test_the_best_rate_of_a_narrow_net_is_that_of_one_eight_times_as_wide():
    narrow, wide = (best_rate(width, "mup", seeds=[3]) for width in (64, 512))
    assert 0.5 <= wide / narrow <= 2


@pytest.mark.soak
def test_the_best_rate_shrinks_with_the_width_unless_it_is_scaled():
    narrow, wide, unscaled = (
        best_rate(width, scheme, seeds=[3, 4, 5]) for width, scheme in [(64, "mup"), (512, "mup"), (512, "kaiming")]
    )
    assert 0.5 <= wide / narrow <= 2
    assert unscaled <= narrow / 4
