"""Dropout with keyed masks: the expectation stays, evaluation changes nothing."""

import math

import pytest
import torch

from headway.nn.draws import Draws
from headway.nn.dropout import Dropout

pytestmark = pytest.mark.quick


def draws(rows, step=0):
    return Draws(3, step, 0, rows)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_expectation_stays(rate):
    x = torch.linspace(-2, 3, 211, dtype=torch.float64).expand(4001, 211)
    mean = Dropout(rate)(x, draws(4001)).mean(0)
    spread = x[0].abs() * math.sqrt(rate / (1 - rate) / 4001)
    assert ((mean - x[0]).abs() <= 5 * spread + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_exactly_in_its_own_precision(dtype):
    x = torch.full((31, 53), 3.0, dtype=dtype)
    out = Dropout(0.3)(x, draws(31))
    scaled = torch.tensor(3.0, dtype=dtype) * torch.tensor(1.0, dtype=dtype).mul_(1.0 / 0.7)
    assert out.dtype == dtype
    assert set(out.unique().tolist()) == {0.0, scaled.item()}
    if dtype == torch.float64:
        assert abs(scaled.item() - 3 / 0.7) < 1e-15


def test_the_gradient_goes_where_values_went():
    x = torch.ones(7, 11, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.5)(x, draws(7))
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())
    assert 0 < (x.grad == 0).sum() < 77


@pytest.mark.parametrize("rng", [None, "keyed"])
def test_evaluation_changes_nothing(rng):
    x = torch.randn(7, 11)
    assert Dropout(0.5).eval()(x, draws(7) if rng else None) is x


@pytest.mark.parametrize("rng", [None, "keyed"])
def test_a_rate_of_zero_changes_nothing(rng):
    x = torch.randn(7, 11)
    assert Dropout(0.0)(x, draws(7) if rng else None) is x


def test_without_draws_it_is_the_librarys_own():
    x = torch.ones(31, 53)
    torch.manual_seed(5)
    out = Dropout(0.3)(x)
    torch.manual_seed(5)
    assert torch.equal(out, torch.nn.functional.dropout(x, 0.3))


def test_two_layers_and_two_steps_drop_other_values():
    x = torch.ones(31, 53)
    one, two = Dropout(0.5), Dropout(0.5)
    two.stream = 1
    assert not torch.equal(one(x, draws(31)), two(x, draws(31)))
    assert not torch.equal(one(x, draws(31)), one(x, draws(31, step=1)))
    assert torch.equal(one(x, draws(31)), one(x, draws(31)))


def test_a_sequence_has_a_mask_of_its_own_for_every_token():
    out = Dropout(0.5)(torch.ones(5, 13, 53), draws(5))
    assert len(torch.unique(out.flatten(0, 1), dim=0)) == 65


def test_it_shows_its_rate():
    assert repr(Dropout(0.25)) == "Dropout(rate=0.25)"


def test_a_compiled_net_draws_the_same_masks():
    net, x = Dropout(0.5), torch.ones(3, 7)
    expected = net(x, draws(3))
    net.compile(backend="eager")
    assert torch.equal(net(x, draws(3)), expected)
