"""BLEU: how many of a translation's runs of one to four words are in a reference, and whether it is as long.

Source: Papineni et al. 2002, as sacrebleu counts it (Post 2018), so that figures of different systems can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from headway.config.errors import UserError


def corpus_bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Returns BLEU between 0 and 100 over all sentences together, one reference each.

    Raises:
        UserError: sacrebleu is not installed.
    """
    try:
        import sacrebleu
    except ImportError:
        raise UserError("BLEU: needs sacrebleu, which is not here; run pip install 'headway[translation]'") from None
    return float(sacrebleu.corpus_bleu(list(translations), [list(references)]).score)
