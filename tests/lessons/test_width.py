"""The lesson of width: a learning rate that was chosen for a narrow net, and what a wide one makes of it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_wide_net_keeps_a_narrow_ones_rate_in_mup_and_not_without(average) -> None:
    narrow, seeds = {"model.hidden": [64, 64]}, (0, 1)
    rate_suits = average("width-standard", "val/loss", narrow, seeds=seeds)
    assert average("width-mup", "val/loss", narrow, seeds=seeds) == pytest.approx(rate_suits, rel=1e-3)
    mup = average("width-mup", "val/loss", seeds=seeds)
    assert mup < 0.8 * average("width-standard", "val/loss", seeds=seeds)
    assert mup < 1.2 * rate_suits
