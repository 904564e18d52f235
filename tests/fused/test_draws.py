"""The masks of a stack are those that its rows would draw alone."""

import pytest
import torch

from headway.fused.draws import StackDraws
from headway.nn.draws import Draws

pytestmark = pytest.mark.quick

N, SHAPE, LAYER = 7, (3, 5), 12345


@pytest.mark.parametrize("keys", [[(3, 11), (3, 11), (5, 11), (3, 2)], [(3, 11)] * 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_row_has_the_mask_that_it_draws_alone(keys, dtype):
    rates = [0.0, 0.1, 0.5, 0.9]
    draws = StackDraws({LAYER: torch.tensor(rates, dtype=torch.float64)})
    draws.begin(keys, N)
    for row, ((seed, step), rate) in enumerate(zip(keys, rates, strict=True)):
        draws.row = torch.tensor(row)
        alone = Draws(seed, step, 0, N).scale(LAYER, SHAPE, rate, dtype)
        assert torch.equal(draws.scale(LAYER, SHAPE, 0.3, dtype), alone)


def test_under_vmap_each_row_multiplies_by_its_own():
    draws = StackDraws({LAYER: torch.tensor([0.5, 0.5], dtype=torch.float64)})
    draws.begin([(1, 0), (2, 0)], N)

    def masked(x, row):
        draws.row = row
        return x * draws.scale(LAYER, SHAPE, 0.5, x.dtype)

    found = torch.vmap(masked, in_dims=(None, 0))(torch.ones(N, *SHAPE), torch.arange(2))
    for row, seed in enumerate((1, 2)):
        assert torch.equal(found[row], Draws(seed, 0, 0, N).scale(LAYER, SHAPE, 0.5, torch.float32))
