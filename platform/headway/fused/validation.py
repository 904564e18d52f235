"""Validations and tests of several rows at once: one batched forward where there would be one for each row."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from headway.config.contracts import Batch
from headway.feed import Feed, Share
from headway.fused.stack import RowNet
from headway.fused.template import build_template
from headway.nn.batch_norm import BatchNorm
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
    template = build_template([objective.net for objective in objectives])[0].eval()
    found: list[Sums] = []
    for start in range(0, len(objectives), at_once):
        found += _sum_splits(objectives[start : start + at_once], template, feed)
    return found


def _sum_splits(objectives: Sequence[Objective], template: nn.Module, feed: Feed) -> list[Sums]:
    named = [_weights_and_statistics(objective.net) for objective in objectives]
    weights = {name: torch.stack([net[name].detach() for net in named]) for name in named[0]}
    first = copy.copy(objectives[0])
    first.is_stacked = True
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


def _weights_and_statistics(net: nn.Module) -> dict[str, Tensor]:
    """Returns what a row's net has of its own: its weights, and the running statistics of batch normalizations."""
    statistics = {
        f"{name}.{part}": value
        for name, module in net.named_modules()
        if isinstance(module, BatchNorm)
        for part, value in module.named_buffers(recurse=False)
    }
    return dict(net.named_parameters()) | statistics
