"""The lesson of depth: plain layers that are too many to be trained, and the shortcuts that mend it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_a_plain_net_of_56_layers_trains_worse_than_a_residual_one_and_than_a_shallower_one(train) -> None:
    changes = {"trainer.max_epochs": 3, "trainer.validate_every": 60}
    plain = train("deep-plain", changes).metrics
    residual = train("deep-residual", changes).metrics
    shallower = train("deep-plain", {**changes, "model.depth": 20}).metrics
    assert residual["test/accuracy"] > plain["test/accuracy"] + 0.25
    # On what they are trained on: this is no overfitting.
    assert residual["train/loss"] < plain["train/loss"] - 0.5
    assert shallower["train/loss"] < plain["train/loss"] - 0.5
