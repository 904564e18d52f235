"""Lessons of regularization: what helps against learning by heart, and against an attack."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SEEDS = (0, 1)


def test_each_technique_costs_less_on_unseen_images_than_none(average) -> None:
    plain = average("few-samples-plain", "test/loss", seeds=SEEDS)
    for technique in ("l2", "dropout", "early-stopping", "augmentation"):
        assert average(f"few-samples-{technique}", "test/loss", seeds=SEEDS) < 0.93 * plain, technique


def test_a_small_change_breaks_a_net_and_adversarial_training_mends_it(train) -> None:
    changes = {"trainer.max_epochs": 10, "trainer.validate_every": 1000}
    plain = train("fgsm-plain", changes).metrics
    mended = train("fgsm-adversarial", changes).metrics
    assert plain["test/accuracy"] > 0.9
    assert plain["test/robust_accuracy"] < plain["test/accuracy"] - 0.4
    assert mended["test/robust_accuracy"] > plain["test/robust_accuracy"] + 0.2
    assert mended["test/accuracy"] > plain["test/accuracy"] - 0.05
