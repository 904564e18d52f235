"""Sinusoidal positions: the formula of the paper, and what it was chosen for."""

import math

import pytest
import torch

from headway.nn.positions import sinusoidal_positions

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("width", [2, 7, 22])
def test_each_feature_is_the_wave_of_the_paper(width):
    position_TD = sinusoidal_positions(13, width)
    assert position_TD.shape == (13, width)
    for t in range(13):
        for feature in range(width):
            angle = t / 10_000 ** ((feature - feature % 2) / width)
            expected = math.cos(angle) if feature % 2 else math.sin(angle)
            assert position_TD[t, feature].item() == pytest.approx(expected, abs=1e-12)


def test_positions_that_start_later_are_the_same():
    torch.testing.assert_close(sinusoidal_positions(5, 22, first=8), sinusoidal_positions(13, 22)[8:], rtol=0, atol=0)


def test_a_shift_is_a_rotation_that_does_not_depend_on_the_position():
    position_TD = sinusoidal_positions(101, 22)
    # Section 3.5: the position t + k is a linear function of the position t.
    similarity_TT = position_TD @ position_TD.T
    for shift in (1, 5, 23):
        diagonal = similarity_TT.diagonal(shift)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-12)
