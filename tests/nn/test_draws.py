"""A draw depends on (seed, step, layer, row) and on nothing else, and is as good as random."""

import itertools
import math

import pytest
import torch
from scipy import stats
from torch import nn

from headway.nn.draws import Draws, KeyedModule, name_streams
from headway.nn.dropout import Dropout

pytestmark = pytest.mark.quick

ROWS, SHAPE = 23, (7, 11)


def bits(seed=3, step=5, first=0, rows=ROWS, layer=13, shape=SHAPE):
    return Draws(seed, step, first, rows).bits(layer, shape)


# ---- the same whatever the slicing ---------------------------------------------------------------


@pytest.mark.parametrize("cuts", [[0, 23], [0, 1, 2, 23], [0, 11, 23], [0, 5, 10, 15, 20, 23], list(range(24))])
@pytest.mark.parametrize("draw", ["bits", "keep", "uniform", "normal"])
def test_a_row_draws_the_same_however_the_batch_is_cut(cuts, draw):
    rate = (0.3,) if draw == "keep" else ()

    def values(first, rows):
        return getattr(Draws(3, 5, first, rows), draw)(13, SHAPE, *rate)

    pieces = [values(first, last - first) for first, last in itertools.pairwise(cuts)]
    assert torch.equal(torch.cat(pieces), values(0, ROWS))


def test_a_draw_can_be_made_again_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = bits()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(bits(), first)


def test_the_order_in_which_layers_ask_changes_nothing():
    one, two = Draws(3, 5, 0, ROWS), Draws(3, 5, 0, ROWS)
    forth = [one.bits(layer, SHAPE) for layer in (1, 2)]
    back = [two.bits(layer, SHAPE) for layer in (2, 1)]
    assert torch.equal(forth[0], back[1])
    assert torch.equal(forth[1], back[0])


def test_a_draw_is_the_same_in_every_version():
    # Written down: another hash would change every run that is repeated from its recipe.
    assert bits(rows=2, shape=(3,)).tolist() == [[123364355, 408412460, 796087870], [1824701151, 26160853, 2030611982]]


@pytest.mark.parametrize("other", [{"seed": 4}, {"step": 6}, {"layer": 14}, {"first": ROWS}])
def test_another_seed_step_layer_or_row_draws_otherwise(other):
    same = (bits() == bits(**other)).sum()
    assert same <= 1


def test_rows_of_one_batch_differ():
    rows = bits(rows=101, shape=(53,))
    assert len(torch.unique(rows, dim=0)) == 101
    assert len(torch.unique(rows)) > 101 * 53 - 30


def test_negative_and_huge_seeds_are_seeds_too():
    drawn = [bits(seed=seed) for seed in (-1, 0, 2**63 - 1, 2**64 + 1)]
    assert len({tuple(draw.flatten().tolist()) for draw in drawn}) == 4


def test_a_sample_may_be_a_single_value():
    assert Draws(3, 5, 0, 5).keep(1, (), 0.5).shape == (5,)


# ---- as good as random ---------------------------------------------------------------------------


def p_value_of_buckets(values, buckets):
    counts = torch.histc(values.double(), bins=buckets, min=0, max=1)
    assert counts.sum() == values.numel()
    return stats.chisquare(counts.numpy()).pvalue


@pytest.mark.parametrize(("rows", "shape"), [(100_003, ()), (1009, (101,)), (2, (50_021,)), (31, (7, 11, 43))])
@pytest.mark.parametrize("buckets", [2, 17, 256])
def test_values_fall_evenly_into_buckets(rows, shape, buckets):
    assert p_value_of_buckets(Draws(3, 5, 0, rows).uniform(13, shape), buckets) > 1e-4


def test_low_bits_are_as_fair_as_high_ones():
    drawn = bits(rows=1009, shape=(101,)).flatten().to(torch.int64)
    assert drawn.min() >= 0
    for bit in range(31):
        ones = (drawn >> bit & 1).double().mean().item()
        assert abs(ones - 0.5) < 5 * 0.5 / math.sqrt(len(drawn)), bit


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_the_share_that_is_dropped_is_the_rate(rate):
    kept = Draws(3, 5, 0, 1009).keep(13, (211,), rate).double()
    deviation = math.sqrt(rate * (1 - rate) / kept.numel())
    assert abs(1 - kept.mean().item() - rate) < 5 * deviation
    # In every row and every place alike.
    for axis in (0, 1):
        means = kept.mean(axis)
        spread = math.sqrt(rate * (1 - rate) / kept.shape[axis])
        assert (means - (1 - rate)).abs().max() < 6 * spread
        assert 0.7 * spread < means.std() < 1.3 * spread


def test_a_rate_of_nothing_keeps_all():
    assert Draws(3, 5, 0, ROWS).keep(13, (1009,), 0.0).all()


def test_uniform_values_have_the_moments_of_uniform_ones():
    drawn = Draws(3, 5, 0, 1009).uniform(13, (211,), dtype=torch.float64)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for power in (1, 2, 3, 4):
        assert abs(drawn.pow(power).mean().item() - 1 / (power + 1)) < 5 / math.sqrt(drawn.numel())


def test_normal_values_have_the_distribution_of_normal_ones():
    drawn = Draws(3, 5, 0, 1009).normal(13, (211,), dtype=torch.float64).flatten()
    assert drawn.isfinite().all()
    assert stats.kstest(drawn.numpy()[:50_021], "norm").pvalue > 1e-4
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs(drawn.pow(power).mean().item() - moment) < 40 / math.sqrt(drawn.numel()), power


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_values_come_in_the_dtype_asked_for(dtype):
    drawn = Draws(3, 5, 0, ROWS)
    assert drawn.uniform(13, SHAPE, dtype=dtype).dtype == dtype
    assert drawn.normal(13, SHAPE, dtype=dtype).dtype == dtype


def correlations(a, b):
    """Returns how many standard deviations the correlation of each pair of lines is from nothing."""
    a, b = (x.double() - x.double().mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)) * math.sqrt(a.shape[1])


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("rows", lambda: (bits(rows=499, shape=(1009,))[:-1], bits(rows=499, shape=(1009,))[1:])),
        (
            "rows a power of two apart",
            lambda: (bits(rows=512, shape=(1009,))[:256], bits(rows=512, shape=(1009,))[256:]),
        ),
        ("places", lambda: (bits(rows=499, shape=(1010,))[:, :-1], bits(rows=499, shape=(1010,))[:, 1:])),
        ("layers", lambda: (bits(rows=499, shape=(1009,), layer=1), bits(rows=499, shape=(1009,), layer=2))),
        ("steps", lambda: (bits(rows=499, shape=(1009,), step=1), bits(rows=499, shape=(1009,), step=2))),
        ("seeds", lambda: (bits(rows=499, shape=(1009,), seed=1), bits(rows=499, shape=(1009,), seed=2))),
        (
            "a row and the next step's",
            lambda: (bits(rows=499, shape=(1009,), step=1)[1:], bits(rows=499, shape=(1009,), step=2)[:-1]),
        ),
    ],
)
def test_what_should_be_independent_is_not_correlated(name, pair):
    found = correlations(*pair())
    assert found.abs().max() < 5
    assert abs(found.mean().item()) < 5 / math.sqrt(len(found))
    assert 0.8 < found.std() < 1.2


def test_the_same_place_over_many_steps_is_random_too():
    over_steps = torch.stack([Draws(3, step, 0, 2).uniform(13, (3,)) for step in range(3001)])
    for row in range(2):
        for place in range(3):
            assert p_value_of_buckets(over_steps[:, row, place], 16) > 1e-4


# ---- streams -------------------------------------------------------------------------------------


def test_every_layer_that_draws_gets_a_stream_of_its_own():
    net = nn.Sequential(Dropout(0.5), nn.Linear(3, 3), nn.Sequential(Dropout(0.5), Dropout(0.5)))
    assert name_streams(net) is net
    streams = [module.stream for module in net.modules() if isinstance(module, KeyedModule)]
    assert len(set(streams)) == 3


def test_a_stream_is_named_after_the_place_in_the_net():
    def streams():
        net = name_streams(nn.ModuleDict({"a": Dropout(0.5), "b": nn.Linear(2, 2), "c": Dropout(0.3)}))
        return {name: module.stream for name, module in net.named_modules() if isinstance(module, KeyedModule)}

    assert streams() == streams()
    without = name_streams(nn.ModuleDict({"c": Dropout(0.3)}))
    assert without["c"].stream == streams()["c"]
