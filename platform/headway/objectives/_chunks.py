"""How training is cut up: chunks of optimizer steps, periods between validations, and what a chunk reports.

Lightning's loop costs about two milliseconds a call, more than a step of a small net. So one call
of `training_step` makes several optimizer steps, a `Chunk`: as many as take about a tenth of a
second, agreed among the ranks at the end of each chunk, together with a wish to stop.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

CHUNK_SECONDS = 0.1
"""Long beside what a call of the loop takes, short beside what a user waits for."""
MAX_CHUNK = 256


class Chunk(NamedTuple):
    """The optimizer steps [first, first + num_steps) of one call of the training loop."""

    first: int
    num_steps: int


@dataclass(frozen=True)
class Schedule:
    """How long to train and how to cut it up; the part of a recipe's trainer that the steps need."""

    seed: int
    total_steps: int
    validate_every: int
    clip_norm: float | None = None
    clip_value: float | None = None
    keyed: bool = True
    """Whether masks come from keyed streams, rather than from the library's generator."""
    steps_per_call: int | None = None
    """None: as many as take `chunk_seconds`."""
    chunk_seconds: float = CHUNK_SECONDS

    def validates_at(self, step: int) -> bool:
        """Returns whether a validation follows once so many steps are made."""
        return step % self.validate_every == 0 or step >= self.total_steps


@dataclass
class ChunkReport:
    """What a chunk of steps left behind, the same on all ranks."""

    rows: list[dict[str, float]] = field(default_factory=list)
    """One row a step: `step` and the `train/*` metrics."""
    watched: dict[int, dict[str, float]] = field(default_factory=dict)
    """Metrics of the steps that a `Watch` measured, by the number of steps made."""
    num_samples: int = 0
    """Samples over all ranks."""
    elapsed_s: float = 0.0
    data_s: float = 0.0
    """Seconds this rank waited for batches."""
    stop: bool = False
    """Whether any rank was asked to stop."""


class Pace:
    """How many steps a call makes.

    Args:
        fixed: None lets measured times say it.
        seconds: what they are to come to.
    """

    def __init__(self, fixed: int | None, seconds: float = CHUNK_SECONDS) -> None:
        self.fixed, self.seconds = fixed, seconds
        self.steps = fixed or 1

    def measure(self, chunk: Chunk, elapsed_s: float) -> None:
        """Takes in how long a chunk took."""
        if self.fixed is not None:
            return
        # Growing by doubling keeps one slow first step (allocation, compilation) from setting the pace.
        fitting = max(1, math.floor(self.seconds * chunk.num_steps / max(elapsed_s, 1e-6)))
        self.steps = min(fitting, 2 * self.steps, MAX_CHUNK)

    def chunks(self, first: int, schedule: Schedule) -> Iterator[Chunk]:
        """Yields the chunks from a step up to the next validation, or to the end."""
        period = schedule.validate_every
        end = min(schedule.total_steps, (first // period + 1) * period)
        while first < end:
            chunk = Chunk(first, min(self.steps, end - first))
            first += chunk.num_steps
            yield chunk
