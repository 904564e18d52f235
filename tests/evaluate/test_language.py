"""Generation and scores of text: the chain rule, distributions that sum to one, characters that come whole."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from headway.config.errors import UserError
from headway.data._vocabulary import BytePairVocabulary, CharacterVocabulary
from headway.evaluate.generation import generate
from headway.evaluate.language import log_probabilities, next_log_probabilities, whole_characters
from headway.evaluate.scoring import score

KINDS = ["gpt", "bpe", "lstm", "ngram"]


@pytest.mark.parametrize("name", KINDS)
def test_a_score_is_the_sum_of_each_tokens_log_probability_given_those_before_it(runs, name):
    loaded = runs.load(name)
    text = "was the cat on the log?\nthe dog sat"
    found = score(loaded, text)
    assert found.given == "\n"
    vocabulary = runs_vocabulary(loaded)
    tokens = vocabulary.encode("\n").tolist()
    total = 0.0
    for token, row in zip(vocabulary.encode(text).tolist(), found.tokens, strict=True):
        log_probability_V = next_log_probabilities(loaded.net, tokens)
        assert log_probability_V.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
        assert row.log_probability == pytest.approx(log_probability_V[token].item(), abs=1e-5)
        total += log_probability_V[token].item()
        assert row.cumulative == pytest.approx(total, abs=1e-4)
        tokens.append(token)
    assert found.nats == pytest.approx(total, abs=1e-4)
    assert found.bits == pytest.approx(found.nats / math.log(2))
    assert found.perplexity == pytest.approx(math.exp(-total / len(found.tokens)), rel=1e-5)
    assert found.bits_per_character == pytest.approx(-found.bits / len(text))


def runs_vocabulary(loaded):
    from headway.data._reading import vocabulary_of

    return vocabulary_of(loaded.reading)


@pytest.mark.parametrize("name", ["gpt", "lstm", "ngram"])
def test_a_sequences_loss_as_torch_has_it_is_minus_its_score(runs, name):
    loaded = runs.load(name)
    token_T = torch.randint(1, loaded.spec.vocab_size, (11,), generator=torch.Generator().manual_seed(3))
    loss = F.cross_entropy(loaded.net(token_T[None, :-1])[0].double(), token_T[1:], reduction="sum")
    assert log_probabilities(loaded.net, token_T.tolist()).sum().item() == pytest.approx(-loss.item(), rel=1e-6)
    assert len(log_probabilities(loaded.net, [3])) == 0


@pytest.mark.parametrize(
    "model", [{"kind": "gpt", "num_layers": 1, "num_heads": 2, "width": 6}, {"kind": "lstm", "hidden": 7}]
)
def test_the_probabilities_of_all_continuations_of_two_tokens_sum_to_one(runs, tmp_path, model):
    (tmp_path / "ab.txt").write_text("abba\n" * 40)
    data = {"kind": "text", "path": str(tmp_path / "ab.txt"), "sequence_length": 5}
    name = f"tiny-{model['kind']}"
    runs.fit(name, {"model": model, "data": data, "trainer": {"max_steps": 5}})
    loaded = runs.load(name)
    every = [score(loaded, text, given="ab") for text in map("".join, itertools.product("ab\n\u2603", repeat=2))]
    assert sum(math.exp(found.nats) for found in every) == pytest.approx(1.0, abs=1e-6)
    assert {found.unknown for found in every} == {"", "\u2603"}


def test_what_is_likely_scores_higher_than_what_is_not(runs):
    result = runs.fit("trained", {
        "model": {"kind": "ngram", "context": 5, "embedding": 11, "hidden": 31},
        "data": {"kind": "text", "sequence_length": 11},
        "trainer": {"max_steps": 200},
    })  # fmt: skip
    assert result.metrics["test/loss"] < 0.7
    loaded = runs.load("trained")
    assert score(loaded, "the cat sat on the mat.").nats > score(loaded, "the mat tas no eht cat.").nats + 5
    after = score(loaded, "the cat sat o", num_next=3).next
    assert after.likeliest[0][0] == "n"
    assert sum(probability for _, probability in after.likeliest) + after.others == pytest.approx(1.0)
    text = "".join(generate(loaded, "the ", num_tokens=60, temperature=0.0).pieces)
    assert "sat on the" in text


def test_the_first_token_is_not_scored_where_nothing_is_given(runs):
    found = score(runs.load("lstm"), "cat", given="")
    assert found.given == ""
    assert [row.log_probability is None for row in found.tokens] == [True, False, False]
    assert found.tokens[0].cumulative == 0.0
    assert found.nats == pytest.approx(score(runs.load("lstm"), "at", given="c").nats, abs=1e-6)
    with pytest.raises(UserError, match="TEXT: 'c' is one token, and nothing precedes it; give it more, or --given"):
        score(runs.load("lstm"), "c", given="")
    with pytest.raises(UserError, match="TEXT: '' is empty"):
        score(runs.load("lstm"), "")


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_generates_the_same_text_and_another_another(runs, name):
    loaded = runs.load(name)
    first, again, other = (
        "".join(generate(loaded, "the cat", num_tokens=40, seed=seed).pieces) for seed in (3, 3, 4)
    )  # fmt: skip
    assert first == again != other
    assert name == "bpe" or len(first) == 40


def test_text_comes_token_by_token(runs):
    loaded = runs.load("lstm")
    calls = []
    loaded.net.register_forward_hook(lambda *_: calls.append(1))
    pieces = generate(loaded, "the", num_tokens=7, seed=1).pieces
    assert calls == []
    next(pieces)
    assert len(calls) <= 2
    assert len("".join(pieces)) in (5, 6)
    assert len(calls) == 7


def test_a_character_of_several_bytes_comes_when_it_is_whole():
    vocabulary = BytePairVocabulary.of("abc", size=257)
    text = "a\u00e9\u20ac\U0001f600z\ufffdb"
    tokens = vocabulary.encode(text).tolist()
    assert len(tokens) == len(text.encode())
    pieces = list(whole_characters(iter(tokens), vocabulary))
    assert "".join(pieces) == text
    assert [piece for piece in pieces if piece != "\ufffd"][:4] == ["a", "\u00e9", "\u20ac", "\U0001f600"]
    # What is no text at all still comes out, at the latest at the end.
    broken = [tokens[1], tokens[3], tokens[4], tokens[0], tokens[1]]
    assert "".join(whole_characters(iter(broken), vocabulary)) == vocabulary.decode(broken)
    letters = CharacterVocabulary.of("abc")
    assert list(whole_characters(iter([1, 2, 0, 3, 0]), letters)) == ["a", "b", "\ufffdc", "\ufffd"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ""}, "--prompt: is empty"),
        ({"num_tokens": 0}, "--tokens: is 0; it should be 1 or more"),
        ({"temperature": -1.0}, "temperature: is -1.0"),
        ({"top_k": 0}, "top_k: is 0"),
        ({"top_p": 1.5}, "top_p: is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(runs, settings, message):
    with pytest.raises(UserError, match=message):
        list(generate(runs.load("lstm"), **{"prompt": "the", **settings}).pieces)


@pytest.mark.parametrize("verb", [generate, score])
def test_a_run_that_predicts_no_text_is_refused(runs, verb):
    name = verb.__name__
    with pytest.raises(UserError, match=rf"{name}: mlp is a mlp on features that does not predict the next token"):
        verb(runs.load("mlp"), "text")
    runs.fit(
        "copy", {"model": {"kind": "lstm", "hidden": 5}, "data": {"kind": "copying", "length": 3, "num_samples": 97}}
    )
    with pytest.raises(UserError, match=rf"{name}: copy reads tokens that are no text; use a run on data"):
        verb(runs.load("copy"), "abc")


def test_characters_that_the_run_never_saw_are_named(runs):
    assert generate(runs.load("lstm"), "the \u00e9\u00e0", num_tokens=1).unknown == "\u00e0\u00e9"
    assert score(runs.load("lstm"), "\u00e9t\u00e9").unknown == "\u00e9"
    assert score(runs.load("bpe"), "\u00e9t\u00e9").unknown == ""
