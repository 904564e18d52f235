"""Text: in order, every held-out token scored once, epochs cut elsewhere, tokens back to text."""

import itertools
import random

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import text as text_module
from headway.data._vocabulary import BytePairVocabulary, CharacterVocabulary, vocabulary_from_json
from headway.data._windows import IGNORED, ScoredWindows, TokenStream, TrainWindows

pytestmark = pytest.mark.quick

WORDS = ["the", "tree", "über", "sees", "a", "sea,", "naïve", "waves", "then", "she\n", "\U0001f600", "reads."]


def load(path=None, **settings):
    section = {"kind": "text", "seed": 5, "sequence_length": 7, **settings}
    if path is not None:
        section["path"] = str(path)
    return validate_section(text_module.Config, section, path="data").load()


@pytest.fixture
def prose():
    return " ".join(random.Random(3).choices(WORDS, k=1501))


@pytest.fixture
def file(tmp_path, prose):
    path = tmp_path / "prose.txt"
    path.write_text(prose, encoding="utf-8")
    return path


def scored_text(split, decode):
    targets = [split.gather(torch.tensor([row]), epoch=0)["target"] for row in range(len(split))]
    kept = torch.cat(targets).flatten()
    return decode(kept[kept != IGNORED].tolist())


def stream(count):
    return TokenStream(torch.arange(count, dtype=torch.int32))


def test_the_parts_follow_each_other_in_the_text(file, prose):
    data = load(file, validation=0.2, test=0.1)
    first = len(prose) - round(0.2 * len(prose)) - round(0.1 * len(prose))
    second = len(prose) - round(0.1 * len(prose))
    train = data.train.tokens.windows(torch.tensor([0]), len(data.train.tokens))[0]
    assert data.decode(train.tolist()) == prose[:first]
    # The first token of a part has nothing before it and is not scored.
    assert scored_text(data.validation, data.decode) == prose[first + 1 : second]
    assert scored_text(data.test, data.decode) == prose[second + 1 :]


@pytest.mark.parametrize("count", [2, 6, 7, 8, 9, 13, 15, 43])
def test_every_held_out_token_but_the_first_is_scored_exactly_once(count):
    split = ScoredWindows(stream(count), length=7)
    batch = split.gather(torch.arange(len(split)), epoch=4)
    scored = batch["target"] != IGNORED
    assert batch["target"][scored].tolist() == list(range(1, count))
    assert batch["input"][scored].tolist() == list(range(count - 1))
    assert batch["input"][~scored].eq(0).all()
    assert batch["input"].shape == (len(split), 7)


def test_a_training_sample_is_a_window_at_the_epochs_offset():
    split = TrainWindows(stream(101), length=7, seed=5)
    for epoch in range(3):
        offset = split.offset(epoch)
        batch = split.gather(torch.tensor([2, 0]), epoch=epoch)
        assert batch["input"].tolist() == [list(range(offset + 14, offset + 21)), list(range(offset, offset + 7))]
        assert torch.equal(batch["target"], batch["input"] + 1)
        assert batch["input"].dtype == torch.int64
        assert batch["input"].is_contiguous()


def test_epochs_are_cut_at_every_offset_and_are_equally_long():
    split = TrainWindows(stream(101), length=7, seed=5)
    assert {split.offset(epoch) for epoch in range(101)} == set(range(7))
    assert len(split) == 101 // 7 - 1
    last = [split.gather(torch.tensor([len(split) - 1]), epoch=epoch)["target"].max() for epoch in range(101)]
    assert max(last) <= 100


@pytest.mark.parametrize("count", range(8, 31))
def test_windows_of_a_short_stream_never_run_past_its_end(count):
    split = TrainWindows(stream(count), length=7, seed=5)
    for epoch in range(23):
        batch = split.gather(torch.arange(len(split)), epoch=epoch)
        assert torch.equal(batch["target"], batch["input"] + 1)


def test_the_offset_depends_on_the_seed():
    one, two = (TrainWindows(stream(1009), length=101, seed=seed) for seed in (5, 6))
    assert [one.offset(epoch) for epoch in range(5)] != [two.offset(epoch) for epoch in range(5)]


def test_tokens_above_32767_come_back_from_two_bytes():
    stored = torch.from_numpy(np.array([1, 40_000, 65_535], np.uint16).view(np.int16))
    assert TokenStream(stored).windows(torch.tensor([0]), 3).tolist() == [[1, 40_000, 65_535]]


def test_the_embedded_text_is_the_reference_of_python():
    data = load(sequence_length=61)
    assert data.spec.input_kind == "tokens"
    assert data.spec.input_shape == (61,)
    assert 80 < data.spec.vocab_size < 200
    assert len(data.train) > 5_000
    assert data.fingerprint == load(sequence_length=31, seed=6).fingerprint


def test_the_standard_library_is_read_up_to_a_number_of_characters():
    data = load(source="python_source", max_characters=10_007)
    assert len(data.train.tokens) + len(data.validation.tokens) + len(data.test.tokens) == 10_007
    assert "import" in data.decode(data.train.tokens.windows(torch.tensor([0]), 8_000)[0].tolist())


def test_a_character_that_training_lacks_is_unknown(tmp_path):
    path = tmp_path / "end.txt"
    path.write_text("abcab" * 20 + "abcZ" * 10, encoding="utf-8")
    data = load(path, validation=0.1, test=0.2, sequence_length=3)
    assert data.spec.vocab_size == 4
    assert "Z" not in data.vocabulary.characters
    assert scored_text(data.test, data.decode).count("\ufffd") == 7


def test_characters_of_every_plane_survive_the_round_trip():
    vocabulary = CharacterVocabulary.of("naïve \U0001f600 über\n")
    assert vocabulary.decode(vocabulary.encode("über \U0001f600\n").tolist()) == "über \U0001f600\n"
    assert vocabulary.encode("ü\ud800").tolist()[1] == 0


@pytest.mark.parametrize("method", ["character", "bpe"])
def test_a_saved_vocabulary_encodes_the_same(method, prose):
    vocabulary = BytePairVocabulary.of(prose, size=307) if method == "bpe" else CharacterVocabulary.of(prose)
    again = vocabulary_from_json(vocabulary.to_json())
    assert again.size == vocabulary.size
    assert np.array_equal(again.encode(prose), vocabulary.encode(prose))


def test_byte_pairs_give_any_text_back_whole(prose):
    vocabulary = BytePairVocabulary.of(prose, size=307)
    for text in (prose, "  never  seen: 漢字 \U0001f680\t\n\n", "\ufeffé"):
        assert vocabulary.decode(vocabulary.encode(text).tolist()) == text
    assert len(vocabulary.encode(prose)) < len(prose.encode()) / 2
    assert 256 < vocabulary.size <= 307


def test_byte_pairs_are_the_same_every_time_they_are_trained(prose):
    one, two = (BytePairVocabulary.of(prose, size=307).to_json() for _ in range(2))
    assert one == two


def test_byte_pairs_of_a_text_of_many_chunks_come_back_whole(monkeypatch, prose):
    monkeypatch.setattr("headway.data._vocabulary._CHUNK_CHARACTERS", 89)
    vocabulary = BytePairVocabulary.of(prose, size=307)
    assert vocabulary.decode(vocabulary.encode(prose).tolist()) == prose


def test_byte_pairs_of_a_long_text_are_as_many_as_asked_for():
    data = load(vocabulary="bpe", vocab_size=1009, max_characters=100_003)
    assert data.spec.vocab_size == 1009
    assert len(data.train.tokens) < 40_000


def test_byte_pairs_are_learned_from_the_training_part_only(tmp_path):
    path = tmp_path / "end.txt"
    path.write_text("abc " * 500 + "qqqqzzzz " * 200, encoding="utf-8")
    data = load(path, vocabulary="bpe", vocab_size=261, validation=0.3, test=0.3)
    assert "qq" not in data.vocabulary.to_json()
    assert "zz" in scored_text(data.test, data.decode)


def test_the_files_of_a_folder_are_read_in_the_order_of_their_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name, letter in (("c.txt", "C"), ("a.txt", "A"), ("b/z.txt", "B"), (".hidden", "H")):
        (tmp_path / name).write_text(letter * 10, encoding="utf-8")
    data = load(tmp_path, sequence_length=2)
    train = data.train.tokens.windows(torch.tensor([0]), len(data.train.tokens))[0]
    assert data.decode(train.tolist()) == "A" * 10 + "\n" + "B" * 10 + "\n" + "C" * 4


@pytest.mark.parametrize("method", ["character", "bpe"])
def test_mapped_tokens_are_the_same_as_those_in_memory(file, tmp_path, monkeypatch, method):
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path / "home"))
    settings = {"vocabulary": method, "vocab_size": 307}
    held = load(file, **settings)
    for _ in ("made", "found"):
        mapped = load(file, memory_map_above=0, **settings)
        for part in ("train", "validation", "test"):
            one, two = (
                getattr(data, part).gather(torch.arange(len(getattr(data, part))), epoch=1) for data in (held, mapped)
            )
            assert torch.equal(one["input"], two["input"])
            assert torch.equal(one["target"], two["target"])
        assert mapped.spec == held.spec
    (folder,) = (tmp_path / "home" / "tokens").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        *("test.npy", "train.npy", "validation.npy", "vocabulary.json"),
    ]


def test_other_text_gets_a_cache_of_its_own(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path / "home"))
    load(file, memory_map_above=0)
    load(file, memory_map_above=0, test=0.2)
    file.write_text(file.read_text(encoding="utf-8") + "more", encoding="utf-8")
    load(file, memory_map_above=0)
    assert len(list((tmp_path / "home" / "tokens").iterdir())) == 3


def test_a_damaged_cache_is_named(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path / "home"))
    load(file, memory_map_above=0)
    (folder,) = (tmp_path / "home" / "tokens").iterdir()
    (folder / "test.npy").write_bytes((folder / "test.npy").read_bytes()[:150])
    with pytest.raises(UserError, match=rf"{folder}: is damaged .* remove it"):
        load(file, memory_map_above=0)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"^data\.path: {tmp_path}/none\.txt is not there"):
        load(tmp_path / "none.txt")


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"^data\.path: {tmp_path} has no files"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["", " \n\t"])
def test_empty_text_is_refused(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=rf"^data\.path: {path} holds no text"):
        load(path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "picture.txt"
    path.write_bytes(b"abc\xff\xfe")
    with pytest.raises(UserError, match=rf"^data\.path: {path} is no UTF-8 text \(byte 3\)"):
        load(path)


def test_text_of_one_sequence_is_enough_and_less_is_not(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("abcdefghij", encoding="utf-8")
    data = load(path, sequence_length=5, validation=0.2, test=0.2)
    assert len(data.train) == 1
    with pytest.raises(UserError, match=r"^data\.sequence_length: 6 needs a training part of 7 tokens"):
        load(path, sequence_length=6, validation=0.2, test=0.2)


def test_a_part_that_scores_no_token_is_refused(tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("abcdefghij", encoding="utf-8")
    with pytest.raises(UserError, match=r"^data\.validation: 0\.1 of .* is 1 tokens"):
        load(path, sequence_length=3, validation=0.1, test=0.2)


def test_fractions_that_leave_no_training_text_are_refused(file):
    with pytest.raises(UserError, match="leave nothing to train on"):
        load(file, validation=0.5, test=0.5)


def test_moving_a_stream_keeps_its_samples():
    for split in (TrainWindows(stream(43), length=5, seed=1), ScoredWindows(stream(43), length=5)):
        moved = split.to(torch.device("cpu"), torch.float64)
        for epoch, row in itertools.product(range(2), range(len(split))):
            index = torch.tensor([row])
            assert torch.equal(split.gather(index, epoch=epoch)["input"], moved.gather(index, epoch=epoch)["input"])
