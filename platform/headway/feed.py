"""Which samples a rank sees at which step: a pure function of (seed, step), whatever the number of ranks.

The global batch of a step is the same on one rank or many; a rank takes a contiguous slice of it
and cuts that into micro-batches, equally many on all ranks. A rank whose slice is empty (a last
short batch) passes one stand-in sample whose loss counts for nothing, so that every rank takes part
in every collective.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from headway.config.contracts import Batch, CarriedSplit, Place, Split
from headway.config.keys import derive


class MicroBatch(NamedTuple):
    """What goes through the net at once."""

    batch: Batch
    first_row: int
    """Place of the first sample in the global batch."""
    num_rows: int
    counts: bool = True
    """False for the stand-in of an empty slice."""


class Share(NamedTuple):
    """One rank's part of one global batch."""

    num_rows: int
    """Samples in the global batch."""
    micro_batches: list[MicroBatch]


class Feed:
    """The batches of one split for one rank.

    Args:
        split: where samples come from.
        batch_size: samples a global batch, over all ranks.
        micro_batch: samples of a rank that go through the net at once; None for its whole slice.
        place: this rank among the others.
        seed: seed of the order; None keeps the samples in order.
        workers: processes that read ahead where the split is not in memory.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        micro_batch: int | None,
        place: Place,
        seed: int | None,
        workers: int = 0,
    ) -> None:
        # A carried split's batches go on from one another: they keep their order.
        self.carries = isinstance(split, CarriedSplit)
        self.split = split = split.lay_out(batch_size) if isinstance(split, CarriedSplit) else split
        self.batch_size = min(batch_size, len(split))
        self.micro_batch = micro_batch
        self.place = place
        self.seed = None if self.carries else seed
        self.workers = workers
        self.batches_per_epoch = -(-len(split) // self.batch_size)
        self._order: tuple[int, Tensor] | None = None

    def shares(self, first: int, last: int) -> Iterator[Share]:
        """Yields this rank's share of the batches [first, last), counted over all epochs."""
        if self.split.in_memory:
            return (self.share(position) for position in range(first, last))
        # Batches are made in worker processes, in order. The loader wants a seed for them: not the global one.
        loader: DataLoader[Any] = DataLoader(
            _Positions(self),
            sampler=range(first, last),
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),
        )
        return iter(loader)

    def num_rows(self, position: int) -> int:
        """Returns the samples of one global batch, counted over all epochs."""
        return min(self.batch_size, len(self.split) - position % self.batches_per_epoch * self.batch_size)

    def num_samples(self, first: int, last: int) -> int:
        """Returns the samples of the global batches [first, last), counted over all epochs."""
        return self._samples_before(last) - self._samples_before(first)

    def _samples_before(self, position: int) -> int:
        epochs, batches = divmod(position, self.batches_per_epoch)
        return epochs * len(self.split) + batches * self.batch_size

    def share(self, position: int) -> Share:
        """Returns this rank's share of one batch, counted over all epochs."""
        epoch, batch = divmod(position, self.batches_per_epoch)
        index_N = self._epoch_order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        rows = len(index_N)
        world = self.place.world_size
        start, stop = rows * self.place.rank // world, rows * (self.place.rank + 1) // world
        largest = -(-rows // world)
        pieces = -(-largest // (self.micro_batch or largest))
        size = stop - start
        cuts = [start + size * piece // pieces for piece in range(pieces + 1)]
        return Share(
            num_rows=rows,
            micro_batches=[self._micro_batch(index_N, epoch, begin, end) for begin, end in pairwise(cuts)],
        )

    def _micro_batch(self, index_N: Tensor, epoch: int, begin: int, end: int) -> MicroBatch:
        if begin == end:
            stand_in = self.split.gather(index_N[:1], epoch=epoch)
            return MicroBatch(stand_in, first_row=0, num_rows=1, counts=False)
        return MicroBatch(self.split.gather(index_N[begin:end], epoch=epoch), begin, end - begin)

    def _epoch_order(self, epoch: int) -> Tensor:
        if self.seed is None:
            epoch = 0
        if self._order is None or self._order[0] != epoch:
            if self.seed is None:
                order = torch.arange(len(self.split))
            else:
                generator = torch.Generator().manual_seed(derive(self.seed, "order", epoch))
                order = torch.randperm(len(self.split), generator=generator)
            self._order = (epoch, order)
        return self._order[1]


class _Positions(Dataset[Share]):
    """Lets a DataLoader's workers make shares."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getitem__(self, position: int) -> Share:
        return self.feed.share(position)
