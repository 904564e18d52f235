"""Next-token prediction: the chain rule turned into a loss (Bengio et al. 2003, equation 1).

The loss is in nats a token. A target of -100 counts for nothing. Where the rows of a batch go on where the last
batch ended (`fresh` is in it), the net's state is carried over, and cut out of the gradient.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Outcome, State
from headway.config.errors import UserError
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective

IGNORED = -100


class Config(BuiltIn):
    """Configures `CausalLM`."""

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.vocab_size is None or spec.input_kind != "tokens" or spec.masked or spec.num_classes:
            raise UserError(
                "objective.kind: causal_lm needs tokens with the next one as target, which this data has not; "
                "use data: {kind: text}"
            )

    def build(self, net: nn.Module, **parts: Any) -> CausalLM:
        """Returns the objective."""
        return CausalLM.make(net, **parts)


class CausalLM(Objective):
    """Cross-entropy over the tokens that are not ignored."""

    counts_rows = False

    def count(self, batch: Batch) -> Tensor:
        """Returns the number of tokens that count."""
        return (batch["target"] != IGNORED).sum()

    def outcome(self, net: nn.Module, batch: Batch, state: State | None, rng: Draws | None) -> Outcome:
        """Returns the cross-entropy summed over tokens, in nats, and the state that the next stretch starts from."""
        if "fresh" in batch:
            logits_BTV, state = net(batch["input"], rng, _without(state, batch["fresh"]), carry=True)
            # Cut here: no gradient flows into the stretch before (truncated back-propagation through time).
            state = {name: value.detach() for name, value in state.items()}
        else:
            logits_BTV, state = net(batch["input"], rng), None
        loss_sum = F.cross_entropy(
            logits_BTV.flatten(0, 1), batch["target"].flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return Outcome(loss_sum, self.count(batch), state, {})


def _without(state: State | None, fresh_B: Tensor) -> State | None:
    """Returns the state with nothing in the rows that start anew."""
    if state is None:
        return None
    return {name: value.masked_fill(fresh_B.view(-1, *[1] * (value.ndim - 1)), 0) for name, value in state.items()}
