"""What an encoder-decoder makes of sentences of the language that it was trained to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headway.config.errors import UserError
from headway.data._pairs import PairVocabulary
from headway.evaluate.loading import LoadedRun
from headway.nn.beam_search import translate as search


@dataclass(frozen=True)
class Translation:
    """A sentence and what became of it."""

    text: str
    translation: str

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return asdict(self)


def translate(run: LoadedRun, texts: Sequence[str], *, beam: int = 4) -> list[Translation]:
    """Returns the translation of each text.

    Args:
        run: of a transformer on pairs of sentences.
        texts: of the language that it reads.
        beam: beginnings that are searched at once; 1 takes the likeliest token at each step.

    Raises:
        UserError: the run does not translate, or there is nothing to translate.
    """
    run.selection.refuse_unless_pairs("translate")
    if beam < 1:
        raise UserError(f"--beam: is {beam}; it should be 1 or more")
    for text in texts:
        if not text.strip():
            raise UserError(f"TEXT: {text!r} has nothing to translate")
    vocabulary = PairVocabulary.from_json(run.reading["pairs"]["vocabulary"])
    found = search(run.net, vocabulary, texts, beam=min(beam, vocabulary.size))
    return [Translation(text, translation) for text, translation in zip(texts, found, strict=True)]


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Returns sacrebleu's BLEU of a whole text, from 0 to 100 (Papineni et al. 2002; Post 2018)."""
    import sacrebleu

    return float(sacrebleu.corpus_bleu(list(translations), [list(references)]).score)
