"""Operations that wait for each other, and time, of a recurrent layer and of attention as sequences grow.

    python benchmarks/sequence_length.py      prints the table, writes benchmarks/results/sequence-length-<device>.md

The nets are those of the recipes steps-rnn and steps-attention, on random characters. What waits is counted, not
timed: the longest chain of operations in the graph that autograd keeps of one forward, from the loss back to a weight.
The recurrent net is counted step by step (`model.fused=false`) and timed by the library's kernel, which makes the same
steps. The two take turns, several rounds; times are medians, and the machine is shared.
"""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from headway.config.contracts import DataSpec
from headway.init.base import initialize
from headway.recipe import load_recipe

RECIPES = {"rnn": "steps-rnn", "attention": "steps-attention"}
LENGTHS = (16, 64, 256, 1024)
VOCABULARY = 100
TOKENS_A_STEP = 4096
ROUNDS = 5


def build(recipe: str, length: int, **changes: Any) -> nn.Module:
    """Returns a recipe's net for sequences of so many tokens."""
    loaded = load_recipe(recipe, changes)
    spec = DataSpec(input_kind="tokens", input_shape=(length,), vocab_size=VOCABULARY)
    assert loaded.model is not None
    assert loaded.init is not None
    return initialize(loaded.model.build(spec), loaded.init)


def loss_of(net: nn.Module, length: int, *, rows: int) -> Tensor:
    """Returns the loss of random tokens."""
    token_BT = torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(0))
    return cross_entropy(net(token_BT).flatten(0, 1), token_BT.flatten())


def sequential_operations(loss: Tensor) -> int:
    """Returns the longest chain of operations, each of which needs what the one before it gives."""
    assert loss.grad_fn is not None
    depth: dict[Any, int] = {}
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting[-1]
        below = [earlier for earlier, _ in node.next_functions if earlier is not None]
        unknown = [earlier for earlier in below if earlier not in depth]
        if unknown:
            waiting += unknown
            continue
        depth[waiting.pop()] = 1 + max((depth[earlier] for earlier in below), default=0)
    return depth[loss.grad_fn]


def count(kind: str, length: int) -> int:
    """Returns the sequential operations of one forward over a sequence."""
    changes = {"model.fused": False} if kind == "rnn" else {}
    return sequential_operations(loss_of(build(RECIPES[kind], length, **changes), length, rows=1))


def step_s(net: nn.Module, length: int) -> float:
    """Returns the seconds of one forward and backward over a batch of so many tokens."""
    started = time.perf_counter()
    loss_of(net, length, rows=TOKENS_A_STEP // length).backward()
    return time.perf_counter() - started


def table(rounds: int = ROUNDS) -> list[str]:
    """Returns the rows of the table."""
    lines = [
        "| tokens | in turn, rnn | in turn, attention | ms a step, rnn | ms a step, attention | rnn / attention |",
        "|---|---|---|---|---|---|",
    ]
    for length in LENGTHS:
        nets = {kind: build(recipe, length) for kind, recipe in RECIPES.items()}
        times: dict[str, list[float]] = {kind: [] for kind in nets}
        for turn in range(rounds + 1):
            for kind, net in nets.items():
                elapsed_s = step_s(net, length)
                if turn > 0:  # The first one warms up.
                    times[kind].append(elapsed_s)
        ratios = [one / other for one, other in zip(times["rnn"], times["attention"], strict=True)]
        median = {kind: 1e3 * statistics.median(values) for kind, values in times.items()}
        lines.append(
            f"| {length:,} | {count('rnn', length):,} | {count('attention', length):,} | {median['rnn']:.1f} "
            f"| {median['attention']:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return lines


def main() -> None:
    """Prints the table and writes it down."""
    text = "\n".join(
        [
            f"# Sequence length: {platform.machine()} CPU, {torch.get_num_threads()} threads",
            "",
            f"{datetime.datetime.now(datetime.UTC).date()}, torch {torch.__version__}. One forward and backward over "
            f"{TOKENS_A_STEP:,} tokens in sequences of each length;",
            f"median of {ROUNDS} rounds, ratios least to most. In turn: operations that wait for each other.",
            "",
            *table(),
            "",
        ]
    )
    print(text)
    (Path(__file__).parent / "results" / "sequence-length-cpu.md").write_text(text)


if __name__ == "__main__":
    main()
