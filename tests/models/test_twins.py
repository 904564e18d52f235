"""Nets against torch.nn.Sequential with the weights carried over, and what each refuses."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import kaiming
from headway.init.base import initialize
from headway.models import convnet, logistic, mlp
from headway.nn.activation import Activation

pytestmark = pytest.mark.quick

B, CLASSES = 3, 5
FEATURES = DataSpec(input_kind="features", input_shape=(7,), num_classes=CLASSES)
IMAGES = DataSpec(input_kind="image", input_shape=(2, 13, 11), num_classes=CLASSES)
REAL = DataSpec(input_kind="features", input_shape=(7,), target_size=3)
TEXT = DataSpec(input_kind="tokens", input_shape=(7,), vocab_size=11)


class Absolute(nn.Module):
    """torch has the function and no module of it."""

    def forward(self, x):
        return x.abs()


TWINS = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "abs": Absolute,
    "gelu": nn.GELU,
}
POOLINGS = {"max": nn.MaxPool2d, "average": nn.AvgPool2d, "l2": lambda *sizes: nn.LPPool2d(2, *sizes)}


def build(module, spec, **settings):
    kind = module.__name__.rpartition(".")[2]
    return validate_section(module.Config, {"kind": kind, **settings}, path="model").build(spec)


def assert_twins(ours, theirs, *shape):
    """Carries the weights over in order and compares logits, and gradients of weights and input."""
    ours, theirs = ours.double(), theirs.double()
    assert [weight.shape for weight in ours.parameters()] == [weight.shape for weight in theirs.parameters()]
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(own.normal_(0.0, 0.5, generator=generator))
    one = torch.randn(B, *shape, dtype=torch.float64, generator=generator, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    out, expected = ours(one), theirs(two)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    target = torch.arange(B) % out.shape[1]
    for logits in (out, expected):
        nn.functional.cross_entropy(logits, target, reduction="sum").backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-12)
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert own.grad.abs().sum() > 0
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_logistic_is_one_linear_layer(bias):
    assert_twins(build(logistic, FEATURES, bias=bias), nn.Sequential(nn.Linear(7, CLASSES, bias=bias)), 7)


def test_logistic_flattens_an_image():
    assert_twins(build(logistic, IMAGES), nn.Sequential(nn.Flatten(), nn.Linear(2 * 13 * 11, CLASSES)), 2, 13, 11)


def test_every_activation_has_a_twin():
    assert set(TWINS) == set(get_args(Activation))


@pytest.mark.parametrize("activation", TWINS)
@pytest.mark.parametrize("hidden", [[], [13], [11, 3], [11, 3, 13, 7]])
def test_an_mlp_is_linear_layers_with_activations_between(activation, hidden):
    layers = [
        part
        for before, after in zip([7, *hidden], hidden, strict=False)
        for part in (nn.Linear(before, after), TWINS[activation]())
    ]
    theirs = nn.Sequential(*layers, nn.Linear([7, *hidden][-1], CLASSES))
    assert_twins(build(mlp, FEATURES, hidden=hidden, activation=activation), theirs, 7)


def test_an_mlp_has_as_many_outputs_as_there_are_targets():
    assert build(mlp, REAL, hidden=[11])(torch.zeros(B, 7)).shape == (B, 3)
    assert build(mlp, REAL, hidden=[11])(torch.zeros(B, 7)).shape == build(logistic, REAL)(torch.zeros(B, 7)).shape


@pytest.mark.parametrize("hidden", [None, 17])
@pytest.mark.parametrize("activation", ["relu", "tanh", "prelu"])
def test_a_convnet_is_two_stages_and_a_classifier(hidden, activation):
    twin = TWINS[activation]
    features = 7 * 3 * 2
    head = (
        [nn.Linear(features, CLASSES)] if hidden is None else [nn.Linear(features, 17), twin(), nn.Linear(17, CLASSES)]
    )
    theirs = nn.Sequential(
        *(nn.Conv2d(2, 3, 3, padding=1), twin(), nn.MaxPool2d(2)),
        *(nn.Conv2d(3, 7, 3, padding=1), twin(), nn.MaxPool2d(2)),
        *(nn.Flatten(), *head),
    )  # fmt: skip
    assert_twins(build(convnet, IMAGES, filters=[3, 7], hidden=hidden, activation=activation), theirs, 2, 13, 11)


def test_a_convnet_with_other_sizes_is_its_twin_too():
    theirs = nn.Sequential(
        *(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.MaxPool2d(3), nn.Conv2d(3, 5, 2), nn.ReLU(), nn.MaxPool2d(3), nn.Flatten()),
        nn.Linear(5, CLASSES),
    )
    settings = {"filters": [3, 5], "filter_size": 2, "padding": 0, "pool_size": 3}
    spec = DataSpec(input_kind="image", input_shape=(2, 17, 13), num_classes=CLASSES)
    assert_twins(build(convnet, spec, **settings), theirs, 2, 17, 13)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("stride", "pool_stride"), [(1, None), (2, None), (1, 1), (2, 1)])
def test_a_convnet_strides_pools_and_normalizes_as_torch_does(pooling, batch_norm, stride, pool_stride):
    def stage(before, after):
        norm = [nn.BatchNorm2d(after)] if batch_norm else []
        filters = nn.Conv2d(before, after, 3, stride=stride, padding=2)
        return [filters, *norm, nn.Tanh(), POOLINGS[pooling](2, pool_stride or 2)]

    features = nn.Sequential(*stage(2, 3), *stage(3, 5), nn.Flatten())
    with torch.no_grad():
        width = features.eval()(torch.zeros(B, 2, 23, 19)).shape[1]
    settings = {"filters": [3, 5], "padding": 2, "stride": stride, "pooling": pooling, "pool_stride": pool_stride}
    spec = DataSpec(input_kind="image", input_shape=(2, 23, 19), num_classes=CLASSES)
    ours = build(convnet, spec, **settings, batch_norm=batch_norm, activation="tanh")
    theirs = nn.Sequential(features, nn.Linear(width, CLASSES)).train()
    assert_twins(ours, theirs, 2, 23, 19)
    # What was seen in training is what both normalize by afterwards.
    x = torch.randn(B, 2, 23, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("filter_size", [1, 2, 3, 7])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("pool_size", [1, 2, 3])
def test_the_number_of_features_is_what_torch_makes_of_an_image(filter_size, padding, pool_size):
    settings = {"filters": [2, 3], "filter_size": filter_size, "padding": padding, "pool_size": pool_size}
    built = 0
    for height, width in [(1, 1), (2, 3), (5, 7), (8, 8), (11, 13), (28, 28), (53, 47), (71, 73)]:
        spec = DataSpec(input_kind="image", input_shape=(1, height, width), num_classes=2)
        stage = [nn.Conv2d(1, 1, filter_size, padding=padding, device="meta"), nn.MaxPool2d(pool_size)]
        try:
            left = nn.Sequential(*stage, *stage)(torch.empty(1, 1, height, width, device="meta")).shape
        except RuntimeError:  # torch: nothing is left of the image
            with pytest.raises(UserError, match=rf"an image of {height}x{width} has nothing left after two stages"):
                build(convnet, spec, **settings)
            continue
        with torch.device("meta"):
            net = build(convnet, spec, **settings)
            assert net.output.in_features == 3 * left.numel()
            assert net(torch.empty(B, 1, height, width)).shape == (B, 2)
        built += 1
    assert built >= 2


@pytest.mark.parametrize(
    ("module", "spec", "settings"),
    [(logistic, FEATURES, {}), (mlp, FEATURES, {"hidden": [101, 53]}), (convnet, IMAGES, {"filters": [11, 13]})],
)
def test_loss_at_initialization_is_near_that_of_guessing(module, spec, settings):
    net = initialize(build(module, spec, **settings), kaiming.Config(kind="kaiming", seed=3, gain=0.5))
    x = torch.randn(211, *spec.input_shape, generator=torch.Generator().manual_seed(5))
    loss = nn.functional.cross_entropy(net(x), torch.arange(211) % CLASSES)
    assert abs(loss.item() - math.log(CLASSES)) < 0.25


@pytest.mark.parametrize(("module", "settings"), [(logistic, {}), (mlp, {"hidden": [3]})])
def test_text_has_no_class_to_predict(module, settings):
    with pytest.raises(UserError, match=r"^model\.kind: \w+ predicts a class or real values, .*; use a gpt$"):
        build(module, TEXT, **settings)


def test_a_convnet_wants_images():
    with pytest.raises(UserError, match=r"^model\.kind: convnet needs images; this data gives features"):
        build(convnet, FEATURES)


def test_the_objective_follows_the_target():
    for module, settings in ((logistic, {}), (mlp, {"hidden": [3]}), (convnet, {})):
        config = module.Config(kind="x", **settings)
        assert config.default_objective(FEATURES) == "classify"
        assert config.default_objective(REAL) == "regress"


def test_two_hidden_units_and_one_output_tell_two_classes_apart():
    spec = DataSpec(input_kind="features", input_shape=(2,), num_classes=2)
    net = build(mlp, spec, hidden=[2], activation="tanh", form="sigmoid")
    assert sum(weight.numel() for weight in net.parameters()) == 2 * 2 + 2 + 2 + 1
    x = torch.randn(B, 2, dtype=torch.float64)
    logits = net.double()(x)
    one = net.output(torch.tanh(net.hidden[0].linear(x)))
    assert torch.equal(logits[:, 0], torch.zeros(B, dtype=torch.float64))
    torch.testing.assert_close(logits.softmax(1)[:, 1:], torch.sigmoid(one), rtol=0, atol=1e-12)
    with pytest.raises(UserError, match=r"^model\.form: sigmoid tells two classes apart, and this data has 5"):
        build(mlp, FEATURES, hidden=[2], form="sigmoid")
