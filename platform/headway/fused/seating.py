"""Seats rows: lets them go on one after another, and makes the steps that they wait for together."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch

from headway.fused.rows import Row
from headway.fused.stack import Stack
from headway.fused.validation import sum_splits


class Array:
    """Rows that are trained side by side, on one device.

    Args:
        num_threads: of the steps that are made together; every core when absent.
    """

    def __init__(self, num_threads: int | None = None) -> None:
        self.num_threads = num_threads or len(os.sched_getaffinity(0))
        self._stacks: dict[tuple[Row, ...], Stack] = {}

    def advance(self, rows: Sequence[Row], *, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Goes on with rows until at least one has a report or has ended; each that waits for steps is among them.

        Args:
            rows: who goes on.
            stop_requested: asked between steps that are made together; where it is True they stay where they are.
        """
        while True:
            for row in rows:
                if not row.wanted and row.report is None and not row.ended:
                    row.resume()
            if any(row.feed for row in rows):
                self._sum_splits([row for row in rows if row.feed])
                continue
            if not rows or any(row.report is not None or row.ended for row in rows) or stop_requested():
                return
            self._make_steps(rows)

    def _sum_splits(self, rows: Sequence[Row]) -> None:
        """Validates or tests the rows that wait for it, those that could share a stack together."""
        torch.set_num_threads(self.num_threads)
        groups: dict[object, list[Row]] = defaultdict(list)
        for row in rows:
            assert row.feed is not None
            groups[row.key, id(row.feed.split), row.feed.batch_size].append(row)
        for group in groups.values():
            feed = group[0].feed
            assert feed is not None
            objectives = [row.objective for row in group if row.objective is not None]
            for row, sums in zip(group, sum_splits(objectives, feed), strict=True):
                row.take_sums(sums)

    def _make_steps(self, rows: Sequence[Row]) -> None:
        """Makes as many steps as the least that a row of each stack waits for."""
        # Rows set the number of threads of a run alone; the array has all cores to itself.
        torch.set_num_threads(self.num_threads)
        groups: dict[object, list[Row]] = defaultdict(list)
        for row in rows:
            assert row.objective is not None, "a row waits for steps of its objective"
            # A last short batch has a shape of its own.
            feed = row.objective.train_feed
            last = row.objective.step % feed.batches_per_epoch == feed.batches_per_epoch - 1
            groups[row.key, last].append(row)
        stacks = {}
        for group in map(tuple, groups.values()):
            stack = stacks[group] = self._stack(group)
            num_steps = min(self._same_shape(row) for row in group)
            for row, made in zip(group, stack.make_steps(num_steps), strict=True):
                row.take_steps(made)
        self._stacks = stacks

    def _same_shape(self, row: Row) -> int:
        """Returns how many of the steps that a row waits for have batches of one size."""
        assert row.objective is not None
        feed = row.objective.train_feed
        until_last = feed.batches_per_epoch - 1 - row.objective.step % feed.batches_per_epoch
        return min(row.wanted, until_last or 1)

    def _stack(self, rows: tuple[Row, ...]) -> Stack:
        """Returns the rows' stack: the one of the steps before, where nothing has changed."""
        stack = self._stacks.get(rows)
        if stack is None or not stack.is_current():
            objectives = [row.objective for row in rows if row.objective is not None]
            stack = Stack(objectives, [objective.optimizer for objective in objectives])
        return stack
