"""Text in streams: each row goes on where it ended, every batch is full, and nothing is read twice in an epoch."""

import itertools

import pytest
import torch

from headway.config.contracts import CarriedSplit, Place
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import text
from headway.data._streams import CarriedWindows
from headway.data._windows import TokenStream
from headway.feed import Feed

pytestmark = pytest.mark.quick

B, T = 3, 7


def split(count=101, length=T):
    return CarriedWindows(TokenStream(torch.arange(count, dtype=torch.int32)), length=length, seed=5)


def feed(rank=0, world=1, *, micro_batch=None, rows=B, count=101):
    return Feed(split(count), batch_size=rows, micro_batch=micro_batch, place=Place(rank, world), seed=3)


def batches(feed, first, last):
    return [share.micro_batches[0].batch for share in feed.shares(first, last)]


def test_it_is_what_a_feed_lays_out():
    assert isinstance(split(), CarriedSplit)
    assert feed().carries
    assert split().ordered


def test_each_row_goes_on_where_it_ended_in_the_batch_before():
    made = feed()
    assert made.batches_per_epoch == 4
    for epoch in range(3):
        steps = batches(made, 4 * epoch, 4 * epoch + 4)
        for step in steps:
            assert step["input"].shape == step["target"].shape == (B, T)
            assert torch.equal(step["target"], step["input"] + 1)
            assert step["input"].dtype == step["target"].dtype == torch.int64
        for before, after in itertools.pairwise(steps):
            assert torch.equal(after["input"][:, 0], before["target"][:, -1])


def test_rows_start_anew_at_the_start_of_an_epoch_and_nowhere_else():
    fresh = [batch["fresh"].tolist() for batch in batches(feed(), 0, 9)]
    assert fresh == [[position % 4 == 0] * B for position in range(9)]


def test_streams_follow_each_other_in_the_text_and_share_no_token():
    read = torch.cat([batch["input"] for batch in batches(feed(), 0, 4)], 1)
    start = split().lay_out(B).offset(0)
    assert read.flatten().tolist() == list(range(start, start + 4 * B * T))


@pytest.mark.parametrize(("count", "windows"), [(22, 1), (42, 1), (43, 2), (101, 4), (1009, 48)])
def test_every_batch_is_full_and_as_much_is_read_as_fits(count, windows):
    laid_out = split(count).lay_out(B)
    assert len(laid_out) == windows * B
    seen = {laid_out.offset(epoch) for epoch in range(211)}
    assert min(seen) >= 0
    assert max(seen) + windows * B * T + 1 <= count
    if count == 42:
        assert seen == set(range(21))


def test_epochs_start_elsewhere_and_depend_on_the_seed():
    tokens = TokenStream(torch.arange(1009, dtype=torch.int32))
    one, two = (CarriedWindows(tokens, length=101, seed=seed).lay_out(2) for seed in (5, 6))
    assert len({one.offset(epoch) for epoch in range(11)}) > 7
    assert [one.offset(epoch) for epoch in range(5)] != [two.offset(epoch) for epoch in range(5)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_ranks_and_micro_batches_keep_their_rows(world, micro_batch):
    alone = feed(rows=5)
    together = [feed(rank, world, micro_batch=micro_batch, rows=5) for rank in range(world)]
    places = []
    for position in range(2 * alone.batches_per_epoch):
        (whole,) = batches(alone, position, position + 1)
        micros = [micro for made in together for micro in made.share(position).micro_batches]
        for name in ("input", "target", "fresh"):
            assert torch.equal(torch.cat([micro.batch[name] for micro in micros]), whole[name])
        places.append([micro.first_row for micro in micros])
    assert all(place == places[0] for place in places)


def test_a_text_too_short_for_the_batch_is_refused():
    with pytest.raises(UserError) as caught:
        feed(rows=5, count=35)
    assert str(caught.value) == (
        "trainer.batch_size: 5 rows of 7 tokens with data.carry need 36 tokens, and the training part has 35; "
        "make it or data.sequence_length smaller"
    )
    assert feed(rows=5, count=36).batches_per_epoch == 1


def test_moving_a_split_keeps_its_samples():
    one = split().lay_out(B)
    two = one.to(torch.device("cpu"), torch.float64)
    index = torch.arange(len(one))
    for name, value in one.gather(index, epoch=2).items():
        assert torch.equal(value, two.gather(index, epoch=2)[name])


def test_text_is_carried_where_the_recipe_says_so():
    def load(**settings):
        tree = {"kind": "text", "seed": 3, "sequence_length": T, "max_characters": 10_007, **settings}
        return validate_section(text.Config, tree, path="data").load()

    carried, plain = load(carry=True), load()
    assert carried.spec.carried
    assert not plain.spec.carried
    assert isinstance(carried.train, CarriedSplit)
    assert not isinstance(plain.train, CarriedSplit)
    index = torch.arange(5)
    assert torch.equal(
        carried.validation.gather(index, epoch=0)["input"], plain.validation.gather(index, epoch=0)["input"]
    )
    row = carried.train.lay_out(B).gather(torch.tensor([1]), epoch=0)
    assert carried.decode(row["input"][0, 1:].tolist()) == carried.decode(row["target"][0, :-1].tolist())


def test_held_out_text_may_be_read_in_longer_stretches():
    tree = {
        "kind": "text",
        "seed": 3,
        "sequence_length": T,
        "max_characters": 10_007,
        "carry": True,
        "eval_length": 101,
    }
    data = validate_section(text.Config, tree, path="data").load()
    assert data.train.lay_out(B).gather(torch.tensor([0]), epoch=0)["input"].shape == (1, T)
    for part in (data.validation, data.test):
        assert part.gather(torch.tensor([0]), epoch=0)["input"].shape == (1, 101)
    with pytest.raises(UserError) as caught:
        validate_section(text.Config, {**tree, "carry": False}, path="data")
    assert str(caught.value).startswith("data: eval_length 101 is for nets that carry their state over any length; set")
