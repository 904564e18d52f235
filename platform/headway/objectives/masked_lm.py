"""Naming hidden tokens, and saying whether one segment follows the other: BERT's pre-training.

Source: Devlin et al. 2018, sections 3.1 and A.2. The loss is the sum of two means, in nats: over the hidden tokens, and
over the rows. A batch is divided among ranks and micro-batches, and both means are to be those of the whole batch. A
hidden token counts as one; in the second mean each row weighs as much as it has hidden tokens. So one count
divides both, whatever the rows are dealt out to, and where all rows hide equally many, as those of `masked_text` do,
the second mean is the plain one.

Shapes: B rows, T tokens, N hidden tokens (in a stack of runs all of them), V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Outcome
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective

IGNORED = -100


class Config(BuiltIn):
    """Configures `MaskedLM`."""

    metric_names: ClassVar[tuple[str, ...]] = ("token_loss", "token_accuracy", "next_loss", "next_accuracy")

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if not spec.masked:
            raise UserError(
                "objective.kind: masked_lm needs hidden tokens, which this data has not; use data: {kind: masked_text}"
            )

    def build(self, net: nn.Module, **parts: Any) -> MaskedLM:
        """Returns the objective."""
        return MaskedLM.make(net, **parts)


class MaskedLM(Objective):
    """Cross-entropy over the hidden tokens, and over the rows where they are pairs of segments.

    The metrics of the second are 0 for data without pairs.
    """

    metric_names = Config.metric_names
    counts_rows = False

    def count(self, batch: Batch) -> Tensor:
        """Returns the number of hidden tokens."""
        return (batch["target"] != IGNORED).sum()

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns both losses summed over hidden tokens, and what was right, summed likewise."""
        asked_BT = batch["target"] != IGNORED
        # Several runs at once ask for different tokens; all of them have a shape in common.
        asked = None if self.is_stacked else asked_BT
        token_logits, next_logits_B2 = net(batch["input"], rng, batch.get("segment"), asked_BT=asked)
        token_logits_NV = token_logits.flatten(0, -2)
        target_N = batch["target"].flatten() if self.is_stacked else batch["target"][asked_BT]
        token_loss = F.cross_entropy(token_logits_NV, target_N, ignore_index=IGNORED, reduction="sum")
        token_hits = (token_logits_NV.detach().argmax(1) == target_N).sum()
        # Nothing, but of every weight, so that no rank waits for a gradient that never comes.
        next_loss = next_logits_B2.sum() * 0.0
        next_hits = token_loss.new_zeros(())
        if "is_next" in batch:
            # As published checkpoints have it: 0 follows, 1 is from elsewhere.
            elsewhere_B = (~batch["is_next"].bool()).long()
            weight_B = asked_BT.sum(1).to(next_logits_B2.dtype)
            next_loss = (F.cross_entropy(next_logits_B2, elsewhere_B, reduction="none") * weight_B).sum()
            next_hits = ((next_logits_B2.detach().argmax(1) == elsewhere_B) * weight_B).sum()
        sums = {
            "token_loss": token_loss.detach(),
            "token_accuracy": token_hits,
            "next_loss": next_loss.detach(),
            "next_accuracy": next_hits,
        }
        return Outcome(token_loss + next_loss, self.count(batch), None, sums)
