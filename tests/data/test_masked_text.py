"""BERT's samples: two segments, a fixed share hidden, the same however a batch is cut."""

import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import masked_text
from headway.data._masked_windows import MaskedWindows
from headway.data._vocabulary import SpecialTokens
from headway.data._windows import TokenStream

pytestmark = pytest.mark.quick

T, S, V = 23, 4999, 5003
FIRST, END, HIDDEN = SpecialTokens(1, 2, 3)
SETTINGS = {"length": T, "special": SpecialTokens(FIRST, END, HIDDEN), "vocab_size": V, "share": 0.15, "pairs": True}


def windows(*, seed=3, held_out=False, **settings):
    """Returns samples of a text whose token at each place is the place itself, counted from 4."""
    stream = TokenStream(torch.arange(4, S + 4, dtype=torch.int32))
    return MaskedWindows(stream, **{**SETTINGS, **settings}, seed=seed, held_out=held_out)


def whole(split, epoch=0):
    batch = split.gather(torch.arange(len(split)), epoch=epoch)
    batch["text"] = torch.where(batch["target"] >= 0, batch["target"], batch["input"])
    return batch


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_sample_is_two_stretches_of_the_text_between_special_tokens(epoch):
    batch = whole(windows(), epoch)
    followed = 0
    starts = []
    for text, segment, is_next in zip(batch["text"], batch["segment"], batch["is_next"], strict=True):
        (ends,) = (text == END).nonzero(as_tuple=True)
        middle, last = ends.tolist()
        assert text[0] == FIRST
        assert last == T - 1
        assert segment.tolist() == [0] * (middle + 1) + [1] * (T - 1 - middle)
        one, two = text[1:middle], text[middle + 1 : -1]
        assert min(len(one), len(two)) >= (T - 3) // 4
        for part in (one, two):
            assert torch.equal(part, torch.arange(part[0], part[0] + len(part)))
        assert bool(two[0] == one[-1] + 1) == bool(is_next)
        followed += bool(is_next)
        starts.append(int(one[0]))
    assert torch.equal(torch.tensor(starts).diff(), torch.full((len(starts) - 1,), T - 3))
    assert abs(followed / len(starts) - 0.5) < 0.12


def test_a_fixed_share_of_the_text_is_asked_for_and_no_special_token():
    batch = whole(windows())
    asked = batch["target"] >= 0
    assert asked.sum(1).eq(round(0.15 * (T - 3))).all()
    assert not (asked & ((batch["text"] == FIRST) | (batch["text"] == END))).any()
    # Every place but the first and the last is asked for somewhere.
    assert asked.any(0)[1:-1].all()
    assert whole(windows(share=0.01))["target"].ge(0).sum(1).eq(1).all()


def test_of_what_is_asked_for_most_is_hidden_some_replaced_and_some_left():
    split = windows(share=0.4)
    batches = [whole(split, epoch) for epoch in range(5)]
    given = torch.cat([batch["input"][batch["target"] >= 0] for batch in batches])
    truth = torch.cat([batch["target"][batch["target"] >= 0] for batch in batches])
    hidden, left = given == HIDDEN, given == truth
    count = len(given)
    for share, expected in ((hidden, 0.8), (left, 0.1), (~hidden & ~left, 0.1)):
        assert abs(share.double().mean().item() - expected) < 4 * (expected * (1 - expected) / count) ** 0.5
    replaced = given[~hidden & ~left]
    assert replaced.min() >= 1
    assert replaced.max() < V
    assert len(replaced.unique()) > 0.9 * len(replaced)


def test_what_is_not_asked_for_is_the_text_as_it_is():
    batch = whole(windows())
    untouched = batch["target"] == -100
    assert torch.equal(batch["input"][untouched], batch["text"][untouched])
    assert HIDDEN not in batch["input"][untouched]


def test_a_sample_is_the_same_in_whatever_batch_it_comes():
    split = windows()
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(5))
    ordered, shuffled = split.gather(torch.arange(len(split)), epoch=2), split.gather(order, epoch=2)
    alone = split.gather(order[7:8], epoch=2)
    for name, value in ordered.items():
        assert torch.equal(value[order], shuffled[name])
        assert torch.equal(alone[name], shuffled[name][7:8])


def test_every_epoch_hides_other_tokens_and_a_held_out_part_always_the_same():
    training, held_out = windows(), windows(held_out=True)
    index = torch.arange(11)
    one, two = (training.gather(index, epoch=epoch) for epoch in range(2))
    assert not torch.equal(one["input"], two["input"])
    assert not torch.equal(one["is_next"], two["is_next"])
    for name, value in held_out.gather(index, epoch=0).items():
        assert torch.equal(value, held_out.gather(index, epoch=7)[name])
    assert not torch.equal(windows(seed=5).gather(index, epoch=0)["target"], one["target"])


def test_one_segment_is_one_stretch():
    batch = whole(windows(pairs=False))
    assert set(batch) == {"input", "target", "text"}
    for text in batch["text"]:
        assert (text[0], text[-1]) == (FIRST, END)
        assert torch.equal(text[1:-1], torch.arange(text[1], text[1] + T - 2))
    assert batch["target"].ge(0).sum(1).eq(round(0.15 * (T - 2))).all()


def test_moving_the_split_keeps_its_samples():
    split = windows()
    moved = split.to(torch.device("cpu"), torch.float64)
    index = torch.tensor([5, 0, 3])
    for name, value in split.gather(index, epoch=1).items():
        assert torch.equal(value, moved.gather(index, epoch=1)[name])


def load(**settings):
    tree = {"kind": "masked_text", "seed": 3, "vocab_size": 307, "sequence_length": T, **settings}
    return validate_section(masked_text.Config, tree, path="data").load()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text("The lexical analyser reads the text, line by line [MASK];\na line ends where\n" * 71)
    return path


def test_the_parts_of_a_file_do_not_overlap_and_say_how_they_are_read(file):
    data = load(path=str(file))
    assert data.spec.masked
    assert data.spec.input_shape == (T,)
    assert data.spec.vocab_size <= 307
    assert data.reading["special"] == {"first": 1, "end": 2, "hidden": 3}
    assert set(data.reading) == {"vocabulary", "special"}
    lengths = [len(split.tokens) for split in (data.train, data.validation, data.test)]
    assert lengths[0] > 5 * max(lengths[1:])
    for split, held_out in ((data.train, False), (data.validation, True), (data.test, True)):
        batch = split.gather(torch.arange(len(split)), epoch=0)
        assert batch["input"].ge(1).all(), "nothing is padding"
        assert torch.equal(batch["input"], split.gather(torch.arange(len(split)), epoch=1)["input"]) == held_out


def test_mapped_samples_are_the_same_as_those_in_memory(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path / "home"))
    held, mapped = load(path=str(file)), load(path=str(file), memory_map_above=0)
    index = torch.arange(len(held.train))
    assert torch.equal(held.train.gather(index, epoch=1)["input"], mapped.train.gather(index, epoch=1)["input"])


def test_a_part_without_two_samples_is_refused(file):
    with pytest.raises(
        UserError, match=r"^data\.sequence_length: 199 needs 398 tokens in each part, and .* gives \d+ for"
    ):
        load(path=str(file), sequence_length=199)


def test_a_vocabulary_without_special_tokens_is_refused(file):
    with pytest.raises(UserError, match=r"^data\.vocabulary: should have \[PAD\]"):
        load(path=str(file), vocabulary="character")
