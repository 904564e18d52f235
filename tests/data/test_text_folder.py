"""Texts of classes: whole texts are held out, windows are framed and padded, labels are taken in turn."""

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import text_folder
from headway.data._framing import frame
from headway.data._vocabulary import SpecialTokens
from headway.data.text_folder import PACKAGES

T = 11


def load(**settings):
    tree = {"kind": "text_folder", "seed": 3, "vocab_size": 307, "sequence_length": T, **settings}
    return validate_section(text_folder.Config, tree, path="data").load()


@pytest.fixture
def folder(tmp_path):
    """Returns three classes of 7, 11 and 13 texts; each text says which it is."""
    for name, count in (("apple", 7), ("bread", 11), ("cheese", 13)):
        (tmp_path / name).mkdir()
        for number in range(count):
            text = f"{name} number {number:02} of many, and a {name} it is. " * 7
            (tmp_path / name / f"{number:02}.txt").write_text(text, encoding="utf-8")
    return tmp_path


def texts_of(split, data):
    return [data.decode(row[row > 2].tolist()) for row in split.tensors["input"]]


def test_every_sample_has_the_class_of_its_folder(folder):
    data = load(path=str(folder))
    assert data.spec.class_names == ("apple", "bread", "cheese")
    assert data.spec.num_classes == 3
    assert data.spec.vocab_size <= 307
    for split in (data.train, data.validation, data.test):
        for text, label in zip(texts_of(split, data), split.tensors["target"].tolist(), strict=True):
            others = {"apple", "bread", "cheese"} - {data.spec.class_names[label]}
            assert not any(other in text for other in others)


def test_a_text_is_in_one_part_only(folder):
    data = load(path=str(folder), validation=0.2, test=0.3)
    found = [
        {word for text in texts_of(split, data) for word in text.split() if word.isdigit() and len(word) == 2}
        for split in (data.train, data.validation, data.test)
    ]
    # Numbers are shared among classes; class and number together are not. One class at a time:
    assert all(found)
    for label in range(3):
        numbers = []
        for split in (data.train, data.validation, data.test):
            own = split.tensors["target"] == label
            rows = [data.decode(row[row > 2].tolist()) for row in split.tensors["input"][own]]
            numbers.append({word for text in rows for word in text.split() if word.isdigit() and len(word) == 2})
        assert not (numbers[0] & numbers[1] or numbers[0] & numbers[2] or numbers[1] & numbers[2])


def test_windows_are_framed_and_what_is_left_over_is_dropped():
    special = SpecialTokens(first=1, end=2, hidden=3)
    whole = frame(np.arange(10, 10 + 2 * (T - 2) + 3, dtype=np.int32), T, special)
    assert whole.tolist() == [[1, *range(10, 19), 2], [1, *range(19, 28), 2]]
    assert frame(np.arange(10, 14, dtype=np.int32), T, special).tolist() == [[1, 10, 11, 12, 13, 2, 0, 0, 0, 0, 0]]
    assert frame(np.arange(10, 19, dtype=np.int32), T, special).tolist() == [[1, *range(10, 19), 2]]


@pytest.mark.parametrize("labels", [3, 7, 12])
def test_labels_are_taken_from_the_classes_in_turn(folder, labels):
    data = load(path=str(folder), labels=labels)
    counts = torch.bincount(data.train.tensors["target"], minlength=3)
    assert counts.sum() == labels
    assert counts.max() - counts.min() <= 1
    everything = load(path=str(folder))
    assert torch.equal(data.test.tensors["input"], everything.test.tensors["input"])
    assert data.reading == everything.reading, "the vocabulary is that of all training texts"
    more = load(path=str(folder), labels=labels + 2)
    few, many = ({tuple(row) for row in made.train.tensors["input"].tolist()} for made in (data, more))
    assert few <= many


def test_another_seed_holds_out_other_texts(folder):
    one, two = (load(path=str(folder), seed=seed) for seed in (3, 5))
    assert one.fingerprint != two.fingerprint
    assert not torch.equal(one.test.tensors["input"], two.test.tensors["input"])
    assert load(path=str(folder)).fingerprint == one.fingerprint


def test_the_packages_of_python_are_there():
    data = load(labels=60, sequence_length=64, vocab_size=512)
    assert data.spec.class_names == PACKAGES
    assert len(data.train) == 60
    assert data.train.tensors["input"].shape == (60, 64)
    for split in (data.validation, data.test):
        assert set(split.tensors["target"].tolist()) == set(range(6))
    assert set(data.reading) == {"vocabulary", "special"}


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"path": "{folder}/none"}, "data.path: {folder}/none is not there; name a folder with one folder a class"),
        ({"path": "{folder}/apple"}, "data.path: {folder}/apple has 0 folders, and each class needs one"),
        ({"path": "{folder}", "labels": 2}, "data.labels: 2 is less than one of each of 3 classes; raise it"),
        ({"path": "{folder}", "test": 0.7, "validation": 0.29}, "data.path: {folder}/apple has 7 texts, and each part"),
        ({"path": "{folder}", "vocabulary": "character"}, "data.vocabulary: should have [PAD], [CLS], [SEP], [MASK]"),
    ],
)
def test_what_does_not_do_is_refused(folder, settings, line):
    filled = {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in settings.items()}
    with pytest.raises(UserError) as caught:
        load(**filled)
    assert str(caught.value).startswith(line.format(folder=folder))
