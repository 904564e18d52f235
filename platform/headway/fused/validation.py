"""Validations and tests of several rows at once: one batched forward where there would be one for each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from headway.config.contracts import Batch
from headway.feed import Feed, Share
from headway.fused.stack import RowNet, build_template
from headway.objectives._sums import Sums
from headway.objectives.base import Objective


@torch.no_grad()
def sum_splits(objectives: Sequence[Objective], feed: Feed) -> list[Sums]:
    """Returns what each row counts on a split, as `Objective.evaluate` alone would.

    Args:
        objectives: of rows that could share a stack.
        feed: of the split; the rows' are alike.
    """
    # No more at once than a training step of all of them holds.
    at_once = max(1, len(objectives) * objectives[0].train_feed.batch_size // feed.batch_size)
    template = build_template(objectives).eval()
    found: list[Sums] = []
    for start in range(0, len(objectives), at_once):
        found += _sum_splits(objectives[start : start + at_once], template, feed)
    return found


def _sum_splits(objectives: Sequence[Objective], template: nn.Module, feed: Feed) -> list[Sums]:
    named = [dict(objective.net.named_parameters()) for objective in objectives]
    weights = {name: torch.stack([net[name].detach() for net in named]) for name in named[0]}
    first = objectives[0]
    sums: Sums = {}

    def outcome(weights: dict[str, Tensor], batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        net = RowNet(template, weights, training=False)
        found = first.outcome(cast(nn.Module, net), batch, None, None)
        return found.loss_sum, found.sums

    def add(share: Share) -> None:
        for micro in share.micro_batches:
            loss_K, metrics = torch.vmap(outcome, in_dims=(0, None))(weights, micro.batch)
            counted: Sums = {"loss": loss_K, "count": float(first.count(micro.batch)), **metrics}
            for name, value in counted.items():
                sums[name] = sums[name] + value if name in sums else value

    for share in feed.shares(0, feed.batches_per_epoch):
        add(share)
    columns = {name: value.tolist() if isinstance(value, Tensor) else None for name, value in sums.items()}
    return [
        {name: sums[name] if column is None else column[row] for name, column in columns.items()}
        for row in range(len(objectives))
    ]
