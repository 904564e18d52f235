"""Lessons of sequences: what is remembered, how far a gradient goes back, and what has to wait for what."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GUESSING = math.log(4)
"""Loss of the copying problem with four symbols for a net that remembers nothing."""


def test_a_vanilla_rnn_forgets_what_an_orthogonal_one_and_an_lstm_remember(train) -> None:
    changes = {"data.length": 20, "model.hidden": 32, "optim.lr": 5e-3, "trainer.max_steps": 400}
    changes["trainer.validate_every"] = 400
    vanilla, orthogonal, lstm = (
        train(f"memory-{net}", changes).metrics["test/loss"] for net in ("rnn", "orthogonal", "lstm")
    )
    assert vanilla > 0.9 * GUESSING
    assert orthogonal < 0.4 * GUESSING
    assert lstm < 0.7 * GUESSING


def test_a_carried_state_makes_up_for_most_of_a_cut_gradient(train) -> None:
    full, carried, reset = (train(f"truncation-{how}").metrics["test/loss"] for how in ("full", "carried", "reset"))
    assert reset > full + 0.1
    assert abs(carried - full) < 0.7 * (reset - full)


def test_nets_that_remember_need_fewer_bits_a_character_than_a_trigram(train) -> None:
    changes = {"trainer.max_steps": 600, "trainer.validate_every": 600}
    ngram, rnn, lstm, gpt = (
        train(f"language-{net}", changes).metrics["test/loss"] / math.log(2) for net in ("ngram", "rnn", "lstm", "gpt")
    )
    assert max(rnn, lstm, gpt) < ngram - 0.1
    assert lstm < rnn - 0.05


def test_operations_that_wait_grow_with_the_sequence_for_a_rnn_and_not_for_attention() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "sequence_length.py"
    specification = importlib.util.spec_from_file_location("sequence_length", path)
    benchmark = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(benchmark)
    rnn = [benchmark.count("rnn", length) for length in (17, 34, 51)]
    attention = [benchmark.count("attention", length) for length in (17, 34, 51)]
    assert len(set(attention)) == 1
    assert rnn[2] - rnn[1] == rnn[1] - rnn[0] >= 17


def test_both_sides_of_the_sequence_lesson_learn(train) -> None:
    changes = {"trainer.max_steps": 60, "trainer.validate_every": 60, "data.max_characters": 100_000}
    for side in ("rnn", "attention"):
        assert train(f"steps-{side}", changes).metrics["val/loss"] < 3.4


@pytest.mark.soak
@pytest.mark.parametrize("length", [20, 50, 100])
def test_memory_at_full_size(train, length: int) -> None:
    steps = max(1000, 20 * length)
    changes = {"data.length": length, "trainer.max_steps": steps, "trainer.validate_every": steps}
    vanilla, orthogonal = (train(f"memory-{net}", changes).metrics["test/loss"] for net in ("rnn", "orthogonal"))
    assert vanilla > 0.9 * GUESSING
    assert orthogonal < 0.5 * GUESSING


@pytest.mark.soak
def test_bits_a_character_at_full_size(train) -> None:
    ngram, rnn, lstm, gpt = (
        train(f"language-{net}").metrics["test/loss"] / math.log(2) for net in ("ngram", "rnn", "lstm", "gpt")
    )
    assert max(rnn, lstm, gpt) < ngram - 0.3
    assert lstm < rnn
