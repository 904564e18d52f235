"""Lessons of learning before the labels come: from images without any, from code, from images that nobody took."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow


def test_an_autoencoder_helps_where_labels_are_few(train) -> None:
    autoencoder = train("few-labels-autoencoder")
    pretrained, scratch = [], []
    for seed in (0, 1):
        # The split is that of the autoencoder: its test images are those of the classifier.
        changes = {"data.seed": 0}
        start = {**changes, "init.run": autoencoder.run_dir}
        pretrained.append(train("few-labels-pretrained", start, seed=seed).metrics["test/accuracy"])
        scratch.append(train("few-labels-scratch", changes, seed=seed).metrics["test/accuracy"])
    assert sum(pretrained) / 2 > sum(scratch) / 2 + 0.05


def test_a_bert_that_has_read_names_tells_their_languages_better(train) -> None:
    read = train("bert-pretrained", {"trainer.max_steps": 700, "trainer.validate_every": 700}).run_dir
    fine_tuned = train("bert-fine-tuned", {"data.vocabulary": read, "init.run": read}).metrics
    scratch = train("bert-scratch", {"data.vocabulary": read}).metrics
    assert fine_tuned["test/accuracy"] > scratch["test/accuracy"] + 0.05


def test_many_images_that_nobody_took_teach_more_than_a_few_real_ones(train) -> None:
    synthetic = train("glyphs-synthetic").metrics["test/accuracy"]
    few = train("glyphs-few").metrics["test/accuracy"]
    assert synthetic > 0.8
    assert synthetic > few + 0.04
