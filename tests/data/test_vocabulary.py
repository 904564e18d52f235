"""Vocabularies that come from elsewhere: a tokenizer.json, a run; and what transformers makes of ours."""

import importlib.util
import json

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import text as text_module
from headway.data._vocabulary import (
    SPECIAL,
    BytePairVocabulary,
    CharacterVocabulary,
    load_vocabulary,
    save_tokenizer,
    special_tokens,
    vocabulary_from_json,
)

pytestmark = pytest.mark.quick

PROSE = "The lexical analyser reads the text, line by line; a line ends\nwhere the text says so [MASK] [SEP].\n" * 29
transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed here"
)


def load_text(**settings):
    return validate_section(text_module.Config, {"kind": "text", "seed": 3, **settings}, path="data").load()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "prose.txt"
    path.write_text(PROSE, encoding="utf-8")
    return path


@transformers
@pytest.mark.parametrize("kind", ["character", "bpe", "special"])
def test_a_saved_tokenizer_gives_the_same_tokens_in_transformers(tmp_path, kind):
    from transformers import AutoTokenizer

    vocabulary = (
        CharacterVocabulary.of(PROSE)
        if kind == "character"
        else BytePairVocabulary.of(PROSE, size=307, special=kind == "special")
    )
    save_tokenizer(vocabulary, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    sentence = "a line of\n\n the text, unseen: §"
    tokens = vocabulary.encode(sentence).tolist()
    assert theirs(sentence, add_special_tokens=False)["input_ids"] == tokens
    # Theirs is asked for what ours always gives: nothing cleaned up.
    decoded = theirs.decode(tokens, clean_up_tokenization_spaces=False)
    assert decoded == vocabulary.decode(tokens).replace("\ufffd", "<unk>")
    if kind == "special":
        pair = theirs("line", "text", return_token_type_ids=True)
        one, two = (vocabulary.encode(word).tolist() for word in ("line", "text"))
        assert pair["input_ids"] == [1, *one, 2, *two, 2]
        assert pair["token_type_ids"] == [0] * (2 + len(one)) + [1] * (1 + len(two))
        assert (theirs.pad_token_id, theirs.cls_token_id, theirs.sep_token_id, theirs.mask_token_id) == (0, 1, 2, 3)


def test_a_tokenizer_json_gives_the_tokens_it_was_saved_for(file, tmp_path):
    made = BytePairVocabulary.of(PROSE * 3, size=293)
    (tmp_path / "model").mkdir()
    save_tokenizer(made, tmp_path / "model")
    for place in (tmp_path / "model", tmp_path / "model" / "tokenizer.json"):
        data = load_text(path=str(file), vocabulary=str(place), sequence_length=7)
        assert data.spec.vocab_size == made.size
        window = data.train.gather(torch.tensor([0]), epoch=0)["input"][0].tolist()
        assert made.decode(window) in PROSE
        assert made.encode(made.decode(window)).tolist() == window


@pytest.mark.parametrize("kind", ["character", "bpe"])
def test_a_run_gives_the_vocabulary_it_read_its_text_with(file, tmp_path, kind):
    first = load_text(path=str(file), vocabulary=kind, vocab_size=293)
    run = tmp_path / "run"
    run.mkdir()
    (run / "data.json").write_text(json.dumps({"spec": {}, "reading": first.reading}))
    other = tmp_path / "other.txt"
    other.write_text("line by line the text ends " * 29, encoding="utf-8")
    second = load_text(path=str(other), vocabulary=str(run))
    assert second.vocabulary.to_json() == first.vocabulary.to_json()


def test_mapped_tokens_are_of_the_vocabulary_that_was_named(file, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(tmp_path / "home"))
    sizes = set()
    for size in (263, 293):
        save_tokenizer(BytePairVocabulary.of(PROSE, size=size), tmp_path)
        sizes.add(load_text(path=str(file), vocabulary=str(tmp_path), memory_map_above=0).spec.vocab_size)
    assert sizes == {263, 293}


def test_a_place_that_is_relative_is_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = validate_section(text_module.Config, {"kind": "text", "vocabulary": "gpt2"}, path="data")
    assert config.vocabulary == str(tmp_path / "gpt2")
    assert validate_section(text_module.Config, {"kind": "text", "vocabulary": "bpe"}, path="data").vocabulary == "bpe"


def test_padding_and_truncation_of_a_tokenizer_are_left_out(tmp_path):
    tokenizer = BytePairVocabulary.of(PROSE, size=293).tokenizer()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=11)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    loaded = load_vocabulary(str(tmp_path))
    assert loaded.decode(loaded.encode(PROSE).tolist()) == PROSE


def test_numbers_that_a_vocabulary_leaves_out_are_counted(tmp_path):
    tree = json.loads(CharacterVocabulary("ab").tokenizer().to_str())
    tree["model"]["vocab"]["b"] = 17
    (tmp_path / "tokenizer.json").write_text(json.dumps(tree))
    assert load_vocabulary(str(tmp_path)).size == 18


def test_special_tokens_are_the_first_and_no_text_has_them():
    vocabulary = BytePairVocabulary.of(PROSE, size=307, special=True)
    assert [vocabulary.number(name) for name in SPECIAL] == [0, 1, 2, 3]
    assert special_tokens(vocabulary) == (1, 2, 3)
    for one in (vocabulary, vocabulary_from_json(vocabulary.to_json(), literal=True)):
        tokens = one.encode(PROSE)
        assert tokens.min() > 3
        assert one.decode(tokens.tolist()) == PROSE
    # Whoever asks a net to fill a gap writes the gap.
    asked = vocabulary_from_json(vocabulary.to_json())
    assert 3 in asked.encode("the [MASK] says").tolist()


def test_the_special_tokens_of_a_published_bert_are_found_where_they_are(tmp_path):
    from tokenizers import AddedToken, Tokenizer, models

    words = {"[PAD]": 0, "[UNK]": 1, **{f"unused{place}": place for place in range(2, 7)}}
    words |= {"[CLS]": 7, "[SEP]": 8, "[MASK]": 9, "line": 10}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")])
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    loaded = load_vocabulary(str(tmp_path), literal=True)
    assert special_tokens(loaded) == (7, 8, 9)
    assert loaded.encode("line").tolist() == [10]
    assert loaded.encode("line").dtype == np.int32


@pytest.mark.parametrize("vocabulary", [CharacterVocabulary("ab"), BytePairVocabulary.of(PROSE, size=293)])
def test_a_vocabulary_without_special_tokens_is_refused_where_they_are_needed(vocabulary):
    with pytest.raises(UserError, match=r"^data\.vocabulary: should have \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        special_tokens(vocabulary)


def test_a_place_without_a_vocabulary_is_named(tmp_path):
    for place in (tmp_path, tmp_path / "none", tmp_path / "none.json"):
        with pytest.raises(
            UserError, match=rf"^data\.vocabulary: there is no {place}; it should be character or bpe, a"
        ):
            load_vocabulary(str(place))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=rf"^data\.vocabulary: {tmp_path} cannot be read"):
        load_vocabulary(str(tmp_path))
