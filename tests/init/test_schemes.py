"""Each scheme's distribution, and a draw that no other layer changes."""

import math
from types import ModuleType

import pytest
import torch
from torch import nn

from headway.config.contracts import INIT, DataSpec
from headway.init import constant, kaiming, normal, orthogonal, uniform_fan_in, xavier
from headway.init.base import initialize
from headway.models import convnet, mlp

pytestmark = pytest.mark.quick

SCHEMES = {
    "uniform_fan_in": uniform_fan_in,
    "normal": normal,
    "xavier": xavier,
    "kaiming": kaiming,
    "orthogonal": orthogonal,
}
SHAPES = {"linear": (101, 211), "wide": (13, 1009), "filters": (31, 7, 3, 5), "embedding": (211, 101)}


def config(module: ModuleType, **settings):
    return module.Config(kind=module.__name__.rpartition(".")[2], **{"seed": 3, **settings})


def filled(module, shape, **settings):
    weight = torch.empty(shape)
    config(module, **settings).fill(weight, generator=torch.Generator().manual_seed(5))
    return weight


def assert_is_normal(weight, std):
    count = weight.numel()
    assert abs(weight.mean().item()) < 5 * std / math.sqrt(count)
    assert abs(weight.std().item() / std - 1) < 5 / math.sqrt(2 * count)
    # A uniform with the same spread would reach no further than sqrt(3) of it.
    assert weight.abs().max() > 2.5 * std


def assert_is_uniform(weight, bound):
    count = weight.numel()
    assert weight.abs().max() <= bound
    assert weight.max() > bound * (1 - 20 / count)
    assert weight.min() < -bound * (1 - 20 / count)
    assert abs(weight.mean().item()) < 5 * bound / math.sqrt(3 * count)
    assert abs(weight.std().item() / (bound / math.sqrt(3)) - 1) < 5 / math.sqrt(count)


def test_every_scheme_is_held_here():
    # The rest know weights rather than draw them: their tests are with the nets they start.
    assert set(SCHEMES) == set(INIT.names()) - {"constant", "from_run", "huggingface", "mup"}


def test_constant_sets_every_weight_to_its_value():
    assert filled(constant, (3, 5), value=0.3).eq(0.3).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_other_distribution_of_a_scheme_has_the_same_variance(shape):
    inputs, field = math.prod(shape[1:]), math.prod(shape[2:])
    assert_is_uniform(filled(kaiming, shape, distribution="uniform"), math.sqrt(6 / inputs))
    assert_is_normal(filled(xavier, shape, distribution="normal"), math.sqrt(2 / ((shape[0] + shape[1]) * field)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_uniform_fan_in_is_bounded_by_one_over_root_of_the_inputs(shape):
    assert_is_uniform(filled(uniform_fan_in, shape), 1 / math.sqrt(math.prod(shape[1:])))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("std", [0.02, 0.7])
def test_normal_has_its_deviation_whatever_the_shape(shape, std):
    assert_is_normal(filled(normal, shape, std=std), std)


def test_normal_without_deviation_is_zero():
    assert filled(normal, (3, 5), std=0.0).eq(0).all()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("gain", [math.sqrt(2), 1.0])
def test_kaiming_has_variance_of_gain_squared_over_inputs(shape, gain):
    assert_is_normal(filled(kaiming, shape, gain=gain), gain / math.sqrt(math.prod(shape[1:])))
    assert config(kaiming).gain == math.sqrt(2)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("gain", [1.0, 5 / 3])
def test_xavier_is_bounded_by_inputs_and_outputs(shape, gain):
    field = math.prod(shape[2:])
    assert_is_uniform(filled(xavier, shape, gain=gain), gain * math.sqrt(6 / ((shape[0] + shape[1]) * field)))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("gain", [1.0, 1.7])
def test_orthogonal_has_every_singular_value_at_its_gain(shape, gain):
    matrix = filled(orthogonal, shape, gain=gain).flatten(1).double()
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    torch.testing.assert_close(
        matrix @ matrix.T, gain**2 * torch.eye(len(matrix), dtype=torch.float64), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("module", "twin"),
    [
        (kaiming, lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g)),
        (xavier, lambda w, g: nn.init.xavier_uniform_(w, generator=g)),
        (orthogonal, lambda w, g: nn.init.orthogonal_(w, generator=g)),
        (normal, lambda w, g: nn.init.normal_(w, std=0.02, generator=g)),
        (uniform_fan_in, lambda w, g: nn.init.kaiming_uniform_(w, a=math.sqrt(5), generator=g)),
    ],
)
@pytest.mark.parametrize("shape", [(31, 53), (7, 5, 3, 3)])
def test_a_scheme_draws_what_torchs_own_draws(module, twin, shape):
    expected = twin(torch.empty(shape), torch.Generator().manual_seed(5))
    torch.testing.assert_close(filled(module, shape), expected, rtol=1e-6, atol=1e-7)


# ---- a whole net ---------------------------------------------------------------------------------

SPEC = DataSpec(input_kind="image", input_shape=(2, 11, 7), num_classes=5)


def net(**settings):
    return convnet.Config(kind="convnet", **{"filters": (3, 7), "hidden": 13, **settings}).build(SPEC)


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(one, two):
    return {name for name in one.keys() & two.keys() if torch.equal(one[name], two[name])}


@pytest.mark.parametrize("module", SCHEMES.values(), ids=SCHEMES)
def test_the_same_seed_gives_the_same_weights_whatever_else_was_drawn(module):
    torch.manual_seed(1)
    one = weights(initialize(net(), config(module)))
    torch.manual_seed(2)
    state = torch.get_rng_state()
    built = net()
    state = torch.get_rng_state()
    two = weights(initialize(built, config(module)))
    assert same(one, two) == set(one)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("module", SCHEMES.values(), ids=SCHEMES)
def test_another_seed_gives_other_weights(module):
    one, two = (weights(initialize(net(), config(module, seed=seed))) for seed in (3, 4))
    assert same(one, two) == {name for name in one if name.endswith("bias")}


def test_a_layer_that_is_left_out_changes_no_other_layers_draw():
    one, two = weights(initialize(net(), config(kaiming))), weights(initialize(net(hidden=None), config(kaiming)))
    assert same(one, two) == one.keys() & two.keys() - {"output.weight"}
    assert "stages.1.filters.weight" in same(one, two)


def test_the_order_of_layers_changes_nothing():
    def layers(names):
        return weights(initialize(nn.ModuleDict({name: nn.Linear(5, 3) for name in names}), config(xavier)))

    one, two = layers("abc"), layers("cab")
    assert same(one, two) == set(one)
    assert not torch.equal(one["a.weight"], one["b.weight"])


@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_every_bias_starts_at_the_constant(bias):
    built = initialize(net(), config(kaiming, bias=bias))
    found = [value for name, value in built.named_parameters() if name.endswith("bias")]
    assert len(found) == 4
    assert all(value.eq(bias).all() for value in found)


def test_a_layer_that_shares_its_weight_has_a_bias_of_its_own():
    tied = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    tied[1].weight = tied[0].weight
    initialize(tied, config(normal, bias=0.3))
    assert tied[1].bias.eq(0.3).all()


def test_norms_and_slopes_start_as_their_layer_made_them():
    built = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.PReLU())
    initialize(built, config(normal, bias=0.3))
    assert built[1].weight.eq(1).all()
    assert built[1].bias.eq(0).all()
    assert built[2].weight.eq(0.25).all()
    assert built[0].bias.eq(0.3).all()


def test_a_scale_of_a_layer_multiplies_its_draw():
    plain, scaled = nn.ModuleDict({"a": nn.Linear(5, 3)}), nn.ModuleDict({"a": nn.Linear(5, 3)})
    scaled["a"].init_scale = 0.5
    initialize(plain, config(xavier))
    initialize(scaled, config(xavier))
    assert torch.equal(scaled["a"].weight, 0.5 * plain["a"].weight)


def test_weights_in_fp64_are_those_in_fp32():
    def built():
        return mlp.Config(kind="mlp", hidden=(5,)).build(DataSpec("features", (7,), num_classes=3))

    one, two = initialize(built(), config(kaiming)), initialize(built().double(), config(kaiming))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a.double(), b)


def test_biases_are_random_around_their_constant_where_asked_for():
    built = initialize(
        nn.ModuleDict({"a": nn.Linear(3, 9973), "b": nn.Linear(3, 9973)}), config(normal, bias=0.2, bias_std=0.1)
    )
    assert_is_normal(built["a"].bias - 0.2, 0.1)
    assert not torch.equal(built["a"].bias, built["b"].bias)


def test_a_layer_with_weights_of_its_own_draws_them_by_the_scheme():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(31, 53))
            self.offset = nn.Parameter(torch.zeros(3))

        def headway_init(self, *, draw, bias, generator):
            draw(self.table)
            self.offset.fill_(bias)

    built = initialize(nn.ModuleDict({"own": Own()}), config(normal, std=0.5, bias=0.1))
    assert_is_normal(built["own"].table, 0.5)
    assert built["own"].offset.eq(0.1).all()
