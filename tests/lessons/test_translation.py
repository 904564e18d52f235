"""The lesson of translation: a small Transformer learns real names, and more of them than copying gets right."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway.evaluate.loading import load_run
from headway.evaluate.selection import select
from headway.evaluate.translation import bleu, translate
from headway.recipe import load_recipe

pytestmark = pytest.mark.slow

NUM_JUDGED = 120


def test_a_transformer_translates_names_better_than_copying_and_than_an_untrained_one(train) -> None:
    changes = {"trainer.max_steps": 400, "trainer.validate_every": 400}
    trained = train("translation-names", changes)
    untrained = train("translation-names", {**changes, "trainer.max_steps": 1, "trainer.validate_every": 1})
    assert trained.metrics["test/loss"] < 0.6 * untrained.metrics["test/loss"]

    pairs = load_recipe(Path(trained.run_dir) / "recipe.yaml").data.load().pairs["test"][:NUM_JUDGED]
    sources, references = zip(*pairs, strict=True)
    run = load_run(select(trained.run_dir))
    translations = [found.translation for found in translate(run, sources, beam=1)]
    assert bleu(translations, references) > bleu(sources, references) + 3
