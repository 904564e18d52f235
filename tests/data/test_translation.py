"""Pairs of sentences: where they come from, that no part sees another's sentences, and what a net is given."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import _store, translation
from headway.data._pair_sources import paragraphs, read_handbook, read_names
from headway.data._pairs import PairVocabulary, Sentences
from headway.data._windows import IGNORED
from headway.nn.beam_search import BEGIN, END, PADDING

pytestmark = pytest.mark.quick

PARTS = ("train", "validation", "test")
WORDS = [("one", "eins"), ("two", "zwei"), ("three", "drei"), ("four", "vier"), ("seven", "sieben"), ("ten", "zehn")]
PAIRS = [(f"{a} and {b} {c}", f"{x} und {y} {z}") for a, x in WORDS for b, y in WORDS for c, z in WORDS if a != c]

needs_pycountry = pytest.mark.skipif(
    importlib.util.find_spec("pycountry") is None, reason="pycountry is not installed here"
)


def load(**settings):
    return validate_section(
        translation.Config, {"kind": "translation", "seed": 5, "vocab_size": 307, **settings}, path="data"
    ).load()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{source}\t{target}\n" for source, target in PAIRS), encoding="utf-8")
    return str(path)


# ---- the parts -------------------------------------------------------------------------------------


def test_every_pair_is_in_one_part_and_comes_back_as_text(file):
    data = load(path=file)
    seen = []
    for part in PARTS:
        split = getattr(data, part)
        batch = split.gather(torch.arange(len(split)), epoch=3)
        texts = [
            tuple(data.vocabulary.decode(row.tolist()) for row in rows)
            for rows in zip(batch["input"], batch["target"], strict=True)
        ]
        assert texts == data.pairs[part]
        seen += texts
    assert sorted(seen) == sorted(PAIRS)
    assert len(data.test) == round(0.15 * len(PAIRS))


def test_no_sentence_that_is_held_out_is_read_in_training(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"{a}\t{b}\n{a}\t{b}!\n{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    data = load(path=str(path))
    sources = [{source for source, _ in data.pairs[part]} for part in PARTS]
    assert sum(map(len, sources)) == len(set().union(*sources)) == len(PAIRS)
    assert sum(len(data.pairs[part]) for part in PARTS) == 2 * len(PAIRS)


def test_the_decoder_reads_each_target_one_token_late(file):
    data = load(path=file)
    batch = data.train.gather(torch.tensor([7, 3, 11]), epoch=0)
    for row, (source, target) in enumerate(data.pairs["train"][place] for place in (7, 3, 11)):
        expected = data.vocabulary.encode(target).tolist()
        rest = batch["target"].shape[1] - len(expected)
        assert expected[-1] == END
        assert batch["target"][row].tolist() == expected + [IGNORED] * rest
        assert batch["decoder_input"][row].tolist() == [BEGIN, *expected[:-1]] + [PADDING] * rest
        read = data.vocabulary.encode(source).tolist()
        assert batch["input"][row].tolist() == read + [PADDING] * (batch["input"].shape[1] - len(read))
    assert {value.dtype for value in batch.values()} == {torch.int64}


def test_a_batch_is_as_long_as_its_longest_sentence_and_the_spec_as_all():
    encoded = [np.arange(3, 3 + length, dtype=np.int32) for length in (5, 2, 7, 3)]
    sentences = Sentences.of(encoded)
    assert len(sentences) == 4
    assert sentences.gather(torch.tensor([3, 1]), filled_with=0).tolist() == [[3, 4, 5], [3, 4, 0]]
    moved = sentences.to(torch.device("cpu"))
    assert moved.gather(torch.tensor([2]), filled_with=0).tolist() == [list(range(3, 10))]


def test_the_spec_says_what_a_transformer_needs(file):
    data = load(path=file)
    whole = [getattr(data, part).gather(torch.arange(len(getattr(data, part))), epoch=0) for part in PARTS]
    assert data.spec.input_kind == "pairs"
    assert data.spec.input_shape == (max(batch["input"].shape[1] for batch in whole),)
    assert data.spec.target_length == max(batch["target"].shape[1] for batch in whole)
    assert data.spec.vocab_size == data.vocabulary.size <= 307


def test_long_sentences_are_left_out_and_counted(file, capsys, monkeypatch):
    whole = load(path=file)
    assert capsys.readouterr().err == ""
    longest = max(whole.spec.input_shape[0], whole.spec.target_length)
    monkeypatch.setenv("RANK", "1")
    data = load(path=file, max_length=longest - 1)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    load(path=file, max_length=longest - 1)
    kept = sum(len(data.pairs[part]) for part in PARTS)
    assert 0 < kept < len(PAIRS)
    assert max(data.spec.input_shape[0], data.spec.target_length) == longest - 1
    assert capsys.readouterr().err == (
        f"headway: {len(PAIRS) - kept} of {len(PAIRS)} pairs have a sentence of more than {longest - 1} tokens and are "
        "left out (data.max_length)\n"
    )
    with pytest.raises(UserError, match=r"^data\.max_length: 2 leaves none of \d+ pairs for train; raise it$"):
        load(path=file, max_length=2)


def test_the_fingerprint_is_of_the_content_and_not_of_the_split(file):
    data = load(path=file)
    assert data.fingerprint == load(path=file, seed=6, vocab_size=283).fingerprint
    assert data.pairs == load(path=file).pairs != load(path=file, seed=6).pairs


def test_splits_move_with_their_tokens(file):
    split = load(path=file).test
    index = torch.tensor([5, 2])
    moved = split.to(torch.device("cpu"), torch.float64)
    assert all(
        torch.equal(value, moved.gather(index, epoch=0)[name]) for name, value in split.gather(index, epoch=0).items()
    )


# ---- the vocabulary --------------------------------------------------------------------------------


def test_the_run_folder_has_all_that_a_translation_needs(file):
    data = load(path=file, languages=["English", "German"])
    kept = json.loads(json.dumps(data.reading))["pairs"]
    again = PairVocabulary.from_json(kept["vocabulary"])
    assert kept["languages"] == ["English", "German"]
    assert again.size == data.vocabulary.size
    for text in ("seven and ten", "nie gesehen: \U0001f680 漢字", ""):
        assert again.encode(text).tolist() == data.vocabulary.encode(text).tolist()
        assert again.decode(again.encode(text).tolist()) == text
        assert again.encode(text).tolist()[-1] == END
        assert min(again.encode(text).tolist()[:-1], default=3) >= 3


def test_the_vocabulary_is_that_of_both_languages_in_the_training_part(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("qqqqqq\tqqqqqq!\n" + "".join(f"{a}\t{b}\n" for a, b in PAIRS), encoding="utf-8")
    seen = set()
    for seed in range(11):
        data = load(path=str(path), seed=seed, vocab_size=1009)
        trained = ("qqqqqq", "qqqqqq!") in data.pairs["train"]
        # Without a merge of its letters each of the six is a token, and so is <eos>.
        assert (len(data.vocabulary.encode("qqqqqq")) < 7) == trained
        assert len(data.vocabulary.encode("three")) == len(data.vocabulary.encode("sieben")) == 2
        seen.add(trained)
    assert seen == {True, False}


# ---- a file of one's own ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a\tb\nno tab\n", r"pairs\.tsv line 2 is not two sentences with a tab between them$"),
        ("a\tb\n\n \tb\n", r"pairs\.tsv line 3 is not two sentences"),
        ("a\tb\na\t\tc\n", r"pairs\.tsv line 2 is not two sentences"),
        ("", r"pairs\.tsv has no pairs of en and de$"),
        ("a\tb\nc\td\n", r"^data\.validation: 0\.15 of 2 samples is none"),
    ],
)
def test_a_file_without_pairs_is_refused(tmp_path, content, line):
    path = tmp_path / "pairs.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=line):
        load(path=str(path))


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"^data\.path: .*none\.tsv cannot be read \(No such file or directory\); name a"
    ):
        load(path=str(tmp_path / "none.tsv"))
    (tmp_path / "picture").write_bytes(b"abc\xff\xfe\t")
    with pytest.raises(UserError, match=r"^data\.path: .*picture is no UTF-8 text \(byte 3\)"):
        load(path=str(tmp_path / "picture"))


def test_a_third_column_windows_line_ends_and_repeated_lines_do_no_harm(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes("".join(f"{a} \t{b}\tby {a}\r\n" for a, b in [*PAIRS, *PAIRS]).encode("utf-8-sig"))
    data = load(path=str(path))
    assert sorted(pair for part in PARTS for pair in data.pairs[part]) == sorted(PAIRS)


# ---- names -----------------------------------------------------------------------------------------


@needs_pycountry
@pytest.mark.parametrize(
    ("languages", "pair", "least"),
    [
        (("en", "de"), ("Germany", "Deutschland"), 2500),
        (("en", "fr"), ("Greek languages", "Grecques, langues"), 2500),
        (("en", "es"), ("Swiss Franc", "Franco suizo"), 700),
        (("de", "fr"), ("Republik Chile", "République du Chili"), 1500),
        (("pt-BR", "en"), ("Alemanha", "Germany"), 500),
    ],
)
def test_names_are_translated(languages, pair, least):
    pairs = read_names(languages)
    assert pair in pairs
    assert len(pairs) == len(set(pairs)) > least
    assert all(source != target for source, target in pairs)


@needs_pycountry
def test_names_load_without_a_setting():
    data = translation.Config(kind="translation", seed=5).load()
    assert len(data.train) > 1500
    assert data.spec.vocab_size == 1000
    assert {type(text) for text in data.pairs["test"][0]} == {str}


@needs_pycountry
def test_an_unknown_language_is_refused():
    with pytest.raises(UserError, match=r"^data\.languages: deu is not a language of pycountry's; de, fr, it and nl"):
        load(languages=["en", "deu"])


def test_without_pycountry_the_command_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycountry", None)
    with pytest.raises(UserError, match=r"^data\.source: names needs pycountry, .* run pip install 'headway\[transl"):
        load()


# ---- the handbook ----------------------------------------------------------------------------------


PAGE = """<html><head><title>t</title><style>p {{ color: red }}</style></head><body><h2 class="title">{0}</h2>
<div class="para">{1} <a href="x">{2}</a> &amp;
 more</div><pre>apt <p>install</p></pre><p class="x">{3}</p><param name="no">{4}</body></html>"""
ENGLISH = ("The first steps of all", "Read the manual", "before you start", "Nobody has translated this one")


@pytest.fixture
def fake_handbook(tmp_path):
    """A folder that is laid out like the package's, with four paragraphs of our own."""
    translated = {
        "en-US": ENGLISH,
        "fr-FR": ("Les tout premiers pas", "Lisez le manuel", "avant de commencer", ENGLISH[3]),
        "de-DE": ("Die ersten Schritte", "Lesen Sie das Handbuch", "vor dem Anfang", "Das hat nur einer übersetzt"),
        "pt-BR": ENGLISH,
        "pt-PT": ENGLISH,
    }
    for language, texts in translated.items():
        (tmp_path / language).mkdir()
        (tmp_path / language / "a.html").write_text(PAGE.format(*texts, ""), encoding="utf-8")
        extra = "<p>One paragraph more than in English there is</p>" if language == "de-DE" else ""
        (tmp_path / language / "b.html").write_text(PAGE.format(*texts, extra), encoding="utf-8")
    return tmp_path


def test_paragraphs_are_text_without_tags_and_code(fake_handbook):
    assert paragraphs(fake_handbook / "en-US" / "a.html") == [
        "The first steps of all",
        "Read the manual before you start & more",
        "Nobody has translated this one",
    ]


def test_paragraphs_that_are_translated_are_paired(fake_handbook):
    place = str(fake_handbook)
    first = ("The first steps of all", "Les tout premiers pas")
    second = ("Read the manual before you start & more", "Lisez le manuel avant de commencer & more")
    assert read_handbook(("en", "fr"), place) == [first, second]
    assert read_handbook(("fr-FR", "en"), place) == [first[::-1], second[::-1]]
    # b.html has another number of paragraphs in German and is left out; in French the third is English.
    assert len(read_handbook(("en", "de"), place)) == 3
    assert len(read_handbook(("fr", "de"), place)) == 2


@pytest.mark.parametrize(
    ("languages", "line"),
    [
        (("en", "it"), r"^data\.languages: it is not one of de-DE, en-US, fr-FR, pt-BR, pt-PT$"),
        (("en", "pt"), r"^data\.languages: pt is pt-BR or pt-PT; name one$"),
    ],
)
def test_a_language_that_the_handbook_lacks_is_refused(fake_handbook, languages, line):
    with pytest.raises(UserError, match=line):
        read_handbook(languages, str(fake_handbook))


def test_a_folder_that_is_no_handbook_is_named(tmp_path):
    with pytest.raises(UserError, match=r"^data\.folder: .* has no en-US; name the folder"):
        load(source="handbook", folder=str(tmp_path))


def test_without_the_handbook_the_command_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("headway.data._pair_sources.find_dataset", lambda name: _store.find_dataset(name, tmp_path))
    monkeypatch.setattr(_store, "_installed", lambda dataset: False)
    with pytest.raises(
        UserError,
        match=r"^data\.source: the handbook is not here; run headway data fetch debian_handbook, or install the Debian "
        r"package debian-handbook$",
    ):
        load(source="handbook")
