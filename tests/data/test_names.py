"""Names in six languages: those to read and those to tell apart share nothing, and each part of the latter neither."""

import importlib.util

import pytest
import torch

from headway.config.section import validate_section
from headway.data import masked_text, text_folder
from headway.data._names import LANGUAGES, english_names, names_to_read, names_to_tell_apart, translate_names

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(importlib.util.find_spec("pycountry") is None, reason="pycountry is not installed"),
]


def test_a_name_that_is_read_is_told_apart_in_no_language():
    read = {line for text in names_to_read() for line in text.splitlines()}
    told = {name for names in names_to_tell_apart() for name in names.values()}
    assert len(read) > 5000
    assert len(told) > 2500
    # What is left is spelled alike in two languages under two English names, such as a language and its family.
    assert len(read & told) < 0.02 * len(told)


def test_a_text_to_read_is_in_one_language():
    of_language = {language: set(filter(None, translate_names(english_names(), language))) for language in LANGUAGES}
    for text in names_to_read()[::17]:
        lines = set(text.splitlines())
        assert 1 <= len(lines) <= 20
        assert any(lines <= of_language[language] for language in LANGUAGES)


def test_a_name_to_tell_apart_is_in_the_language_it_is_filed_under():
    told = names_to_tell_apart()
    everything = [name for by_language in told for name in by_language.values()]
    assert len(everything) == len(set(everything))
    for language in LANGUAGES:
        names = translate_names(english_names(), language)
        assert {by_language[language] for by_language in told if language in by_language} <= set(names)


def load_names(**settings):
    tree = {"kind": "text_folder", "source": "names", "seed": 5, "vocab_size": 261, "sequence_length": 200, **settings}
    return validate_section(text_folder.Config, tree, path="data").load()


def test_parts_share_no_name_and_every_language_is_in_each():
    data, other = load_names(), load_names(seed=6)
    parts = [split.tensors for split in (data.train, data.validation, data.test)]
    assert data.spec.class_names == LANGUAGES
    for one in parts:
        assert torch.bincount(one["target"], minlength=len(LANGUAGES)).min() > 10
    rows = [{tuple(row) for row in part["input"].tolist()} for part in parts]
    assert not rows[0] & rows[1]
    assert not rows[0] & rows[2]
    assert not rows[1] & rows[2]
    assert data.fingerprint != other.fingerprint


def test_labels_are_as_many_of_each_language():
    target_N = load_names(labels=30).train.tensors["target"]
    assert torch.bincount(target_N).tolist() == [5] * 6


def test_the_names_to_read_are_a_text():
    tree = {"kind": "masked_text", "source": "names", "seed": 5, "vocab_size": 261, "sequence_length": 32}
    data = validate_section(masked_text.Config, tree, path="data").load()
    assert data.spec.masked
    assert len(data.train) > 2000
