"""Translation: each token of the other sentence is predicted from the source and from the tokens before it.

Source: Vaswani et al. 2017; label smoothing as in Szegedy et al. 2016, section 7: while training, a share of the
target is spread evenly over the whole vocabulary. Held-out losses are without it, in nats a token. A target of
-100 (padding) counts for nothing.

Shapes: B pairs, T target tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import Batch, DataSpec, Outcome
from headway.config.errors import UserError
from headway.nn.beam_search import PADDING
from headway.nn.draws import Draws
from headway.objectives.base import BuiltIn, Objective
from headway.objectives.causal_lm import IGNORED


class Config(BuiltIn):
    """Configures `Seq2Seq`."""

    metric_names: ClassVar[tuple[str, ...]] = ("accuracy",)

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of the target that is spread over all tokens while training."""

    def check(self, spec: DataSpec) -> None:
        """Refuses data without the target."""
        if spec.input_kind != "pairs":
            raise UserError(
                "objective.kind: seq2seq needs pairs of sentences, which this data has not; "
                "use data: {kind: translation}"
            )

    def build(self, net: nn.Module, **parts: Any) -> Seq2Seq:
        """Returns the objective."""
        return Seq2Seq.make(net, label_smoothing=self.label_smoothing, **parts)


class Seq2Seq(Objective):
    """Cross-entropy and accuracy over the target's tokens, given those before them."""

    metric_names = Config.metric_names
    counts_rows = False
    filled_with: ClassVar[Mapping[str, int]] = {"input": PADDING, "decoder_input": PADDING, "target": IGNORED}

    def __init__(self, net: nn.Module, *, label_smoothing: float, **parts: Any) -> None:
        super().__init__(net, **parts)
        self.label_smoothing = label_smoothing

    def count(self, batch: Batch) -> Tensor:
        """Returns the number of tokens that count."""
        return (batch["target"] != IGNORED).sum()

    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the cross-entropy summed over tokens, in nats, and how many were the likeliest."""
        logits_BTV = net(batch["input"], batch["decoder_input"], rng)
        target_BT = batch["target"]
        loss_sum = F.cross_entropy(
            logits_BTV.flatten(0, 1),
            target_BT.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing if net.training else 0.0,
        )
        hits = (logits_BTV.detach().argmax(2) == target_BT).sum()
        return Outcome(loss_sum, self.count(batch), None, {"accuracy": hits})
