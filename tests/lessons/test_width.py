"""The lesson of width: a learning rate that was chosen for a narrow net, and what a wide one makes of it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_wide_net_keeps_a_narrow_ones_rate_in_mup_and_not_without(average) -> None:
    wide = {"model.hidden": [512, 512]}
    seeds = (0, 1)
    narrow = average("width-standard", "val/loss", seeds=seeds)
    assert average("width-mup", "val/loss", seeds=seeds) == pytest.approx(narrow, rel=1e-3)
    standard = average("width-standard", "val/loss", wide, seeds=seeds)
    mup = average("width-mup", "val/loss", wide, seeds=seeds)
    assert mup < 0.8 * standard
    assert mup < 1.2 * narrow
