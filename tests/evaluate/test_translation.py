"""Translations of a run, and BLEU of a split, against what sacrebleu makes of them."""

from __future__ import annotations

import pytest

from headway.config.errors import UserError
from headway.evaluate.evaluation import evaluate
from headway.evaluate.translation import translate
from headway.recipe import load_recipe

NUMBERS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "acht"}


@pytest.fixture(scope="module")
def speaker(runs):
    """Returns a run that has learned word for word."""
    pairs = [((a, b), (NUMBERS[a], NUMBERS[b])) for a in NUMBERS for b in NUMBERS]
    (runs.folder / "pairs.tsv").write_text(
        "".join(f"{' '.join(source)}\t{' '.join(target)}\n" for source, target in pairs)
    )
    transformer = {"kind": "transformer", "num_layers": 1, "num_heads": 2, "width": 34, "dropout": 0.0}
    data = {"kind": "translation", "path": str(runs.folder / "pairs.tsv"), "vocab_size": 290, "test": 0.1}
    optim = {"kind": "adamw", "lr": 0.005}
    objective = {"kind": "seq2seq", "label_smoothing": 0.0}
    recipe = {"model": transformer, "data": data, "objective": objective, "optim": optim}
    runs.fit("speaker", {**recipe, "trainer": {"max_steps": 120, "validate_every": 120}})
    return runs.load("speaker")


@pytest.mark.parametrize("beam", [1, 4])
def test_sentences_that_were_trained_on_are_translated(speaker, beam):
    data = load_recipe(speaker.selection.run.recipe).data.load()
    sources, targets = zip(*data.pairs["train"], strict=True)
    found = translate(speaker, sources, beam=beam)
    assert [one.text for one in found] == list(sources)
    right = sum(one.translation == target for one, target in zip(found, targets, strict=True))
    assert right >= 0.9 * len(found)


def test_bleu_is_sacrebleus_over_the_split(speaker):
    import sacrebleu

    data = load_recipe(speaker.selection.run.recipe).data.load()
    sources, targets = zip(*data.pairs["train"], strict=True)
    found = evaluate(speaker.selection, split="train", with_bleu=True).metrics
    expected = sacrebleu.corpus_bleu([one.translation for one in translate(speaker, sources)], [list(targets)])
    assert found["train/bleu"] == expected.score
    assert set(found) == {"train/loss", "train/accuracy", "train/bleu"}


def test_what_cannot_be_translated_is_refused(runs, speaker):
    with pytest.raises(UserError, match="TEXT: ' ' has nothing to translate"):
        translate(speaker, ["one", " "])
    with pytest.raises(UserError, match="--beam: is 0; it should be 1 or more"):
        translate(speaker, ["one"], beam=0)
    with pytest.raises(UserError, match="translate: mlp is a mlp on features; use a run of a transformer"):
        translate(runs.load("mlp"), ["one"])
    with pytest.raises(UserError, match="--bleu: judges translations, and this data gives features"):
        evaluate(runs.select("mlp"), with_bleu=True)
