"""Next-token prediction: the chain rule turned into a loss (Bengio et al. 2003, equation 1).

The loss is in nats a token. A target of -100 counts for nothing.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Outcome
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective

IGNORED = -100


class Config(BuiltIn):
    """Configures `CausalLM`."""

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.vocab_size is None:
            raise UserError("objective.kind: causal_lm needs tokens, which this data has not; use data: {kind: text}")

    def build(self, net: nn.Module, **parts: Any) -> CausalLM:
        """Returns the objective."""
        return CausalLM(net, **parts)


class CausalLM(Objective):
    """Cross-entropy over the tokens that are not ignored."""

    counts_rows = False

    def count(self, batch: Batch) -> Tensor:
        """Returns the number of tokens that count."""
        return (batch["target"] != IGNORED).sum()

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the cross-entropy summed over tokens, in nats."""
        logits_BTV = net(batch["input"], rng)
        loss_sum = F.cross_entropy(
            logits_BTV.flatten(0, 1), batch["target"].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return Outcome(loss_sum, self.count(batch), None, {})
