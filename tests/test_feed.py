"""The global batch is the same on one rank or many, and every sample comes once an epoch."""

import itertools

import pytest
import torch

from headway.config.contracts import Place
from headway.feed import Feed

pytestmark = pytest.mark.quick

SAMPLES, BATCH = 53, 11
WORLDS = [1, 2, 3, 4, 7]


class Numbers:
    """A split whose samples are their own index; it says in which epoch it was asked."""

    in_memory = True

    def __init__(self, samples=SAMPLES):
        self.samples = samples

    def __len__(self):
        return self.samples

    def gather(self, index_N, *, epoch):
        return {"input": index_N.clone(), "epoch": torch.full_like(index_N, epoch)}

    def to(self, device, dtype):
        return self


class Files(Numbers):
    in_memory = False


def feeds(world, *, split=None, batch_size=BATCH, micro_batch=None, seed=3, workers=0):
    split = split or Numbers()
    return [
        Feed(
            split, batch_size=batch_size, micro_batch=micro_batch, place=Place(rank, world), seed=seed, workers=workers
        )
        for rank in range(world)
    ]


def rows(share):
    return [index for micro in share.micro_batches if micro.counts for index in micro.batch["input"].tolist()]


def global_batch(ranks, position):
    return [index for feed in ranks for index in rows(feed.share(position))]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 3, 100])
def test_the_global_batch_is_the_same_on_any_number_of_ranks(world, micro_batch):
    alone, together = feeds(1), feeds(world, micro_batch=micro_batch)
    for position in range(2 * alone[0].batches_per_epoch + 1):
        assert global_batch(together, position) == global_batch(alone, position)
        assert {feed.share(position).num_rows for feed in together} == {len(global_batch(alone, position))}


@pytest.mark.parametrize("world", WORLDS)
def test_every_sample_comes_once_an_epoch(world):
    ranks = feeds(world)
    per_epoch = ranks[0].batches_per_epoch
    assert per_epoch == 5
    orders = []
    for epoch in range(3):
        seen = [index for batch in range(per_epoch) for index in global_batch(ranks, epoch * per_epoch + batch)]
        assert sorted(seen) == list(range(SAMPLES))
        orders.append(seen)
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != list(range(SAMPLES))


def test_a_batch_depends_on_seed_and_position_alone():
    there, back = feeds(1)[0], feeds(1)[0]
    forward = [rows(there.share(position)) for position in range(17)]
    torch.manual_seed(1)
    assert [rows(back.share(position)) for position in reversed(range(17))] == forward[::-1]
    assert rows(feeds(1, seed=4)[0].share(0)) != forward[0]


def test_the_split_hears_which_epoch_it_is():
    feed = feeds(1)[0]
    for position in range(11):
        (micro,) = feed.share(position).micro_batches
        assert set(micro.batch["epoch"].tolist()) == {position // 5}


def test_without_a_seed_samples_come_in_order():
    ranks = feeds(3, seed=None)
    seen = [index for batch in range(ranks[0].batches_per_epoch) for index in global_batch(ranks, batch)]
    assert seen == list(range(SAMPLES))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("micro_batch", [None, 1, 2, 3, 5, 11, 100])
def test_micro_batches_are_small_enough_and_equally_many_on_all_ranks(world, micro_batch):
    ranks = feeds(world, micro_batch=micro_batch)
    for position in range(5):
        shares = [feed.share(position) for feed in ranks]
        assert len({len(share.micro_batches) for share in shares}) == 1
        sizes = [micro.num_rows for share in shares for micro in share.micro_batches]
        assert max(sizes) <= (micro_batch or BATCH)
        if micro_batch is None:
            assert len(sizes) == world
        largest = -(-shares[0].num_rows // world)
        assert len(shares[0].micro_batches) == -(-largest // (micro_batch or largest))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_a_micro_batch_knows_its_place_in_the_global_batch(world, micro_batch):
    whole = rows(feeds(1)[0].share(2))
    for feed in feeds(world, micro_batch=micro_batch):
        for micro in feed.share(2).micro_batches:
            if micro.counts:
                place = slice(micro.first_row, micro.first_row + micro.num_rows)
                assert micro.batch["input"].tolist() == whole[place]


def test_the_last_batch_is_short():
    assert [feeds(1)[0].share(position).num_rows for position in range(6)] == [11, 11, 11, 11, 9, 11]


@pytest.mark.parametrize("world", [2, 3, 4, 7])
def test_ranks_without_a_sample_take_part_with_a_stand_in_that_counts_for_nothing(world):
    ranks = feeds(world, split=Numbers(7), batch_size=3)
    for position in range(3):
        shares = [feed.share(position) for feed in ranks]
        sizes = [len(rows(share)) for share in shares]
        assert sum(sizes) == shares[0].num_rows == [3, 3, 1][position]
        assert max(sizes) - min(sizes) <= 1
        for share, size in zip(shares, sizes, strict=True):
            assert len(share.micro_batches) == 1
            assert len(share.micro_batches[0].batch["input"]) == max(size, 1)
            assert share.micro_batches[0].counts == (size > 0)
            assert share.micro_batches[0].num_rows == max(size, 1)


@pytest.mark.parametrize("batch_size", [SAMPLES, SAMPLES + 1, 10**30])
def test_a_batch_larger_than_the_split_is_the_split(batch_size):
    ranks = feeds(2, batch_size=batch_size)
    assert ranks[0].batches_per_epoch == 1
    assert sorted(global_batch(ranks, 0)) == list(range(SAMPLES))
    assert global_batch(ranks, 0) != global_batch(ranks, 1)


def test_shares_follow_each_other_from_any_position():
    feed = feeds(1)[0]
    got = [rows(share) for share in feed.shares(3, 9)]
    assert got == [rows(feed.share(position)) for position in range(3, 9)]
    assert list(feed.shares(3, 3)) == []


def assert_same_shares(one, two):
    for a, b in itertools.zip_longest(one, two):
        assert a.num_rows == b.num_rows
        for left, right in zip(a.micro_batches, b.micro_batches, strict=True):
            assert (left.first_row, left.num_rows, left.counts) == (right.first_row, right.num_rows, right.counts)
            assert left.batch.keys() == right.batch.keys()
            assert all(torch.equal(left.batch[name], right.batch[name]) for name in left.batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_split_of_files_gives_the_same_shares(workers):
    for rank in (0, 2):
        held = feeds(3, micro_batch=2)[rank]
        read = feeds(3, split=Files(), micro_batch=2, workers=workers)[rank]
        assert_same_shares(held.shares(3, 13), read.shares(3, 13))


@pytest.mark.parametrize("split", [Numbers(), Files()])
def test_making_batches_leaves_the_global_generator_alone(split):
    state = torch.get_rng_state()
    list(feeds(1, split=split)[0].shares(0, 7))
    assert torch.equal(torch.get_rng_state(), state)
