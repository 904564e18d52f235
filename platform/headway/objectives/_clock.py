"""Where the time of a training goes: the parts of its steps on this rank, validations and checkpoints.

A CPU reads a clock between the parts. A GPU works behind the program, so there the last step of each chunk leaves
events between its parts, which are read when the chunk's metrics have been waited for: nothing waits for them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PARTS = ("forward", "backward", "update")
"""What a step on one rank consists of, once it has its batch."""
COMMUNICATION = "communication"


class Clock:
    """Adds up seconds by part."""

    def __init__(self) -> None:
        self.steps = 0
        """Steps that were measured."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._events: list[tuple[str, torch.cuda.Event]] = []
        self._behind = False
        """Whether the step's device works behind the program."""
        self._running = False
        self._last = 0.0

    def start(self, device: torch.device, *, last: bool) -> None:
        """Begins a step; `last` of its chunk."""
        self._behind = device.type == "cuda"
        self._running = last or not self._behind
        if self._running:
            self.steps += 1
            self._last = time.perf_counter()
            if self._behind:
                self._leave_event("")

    def lap(self, part: str) -> None:
        """Ends a part of the step: it began where the one before ended."""
        if not self._running:
            return
        if self._behind:
            self._leave_event(part)
            return
        now = time.perf_counter()
        self.seconds[part] += now - self._last
        self._last = now

    def stop(self) -> None:
        """Ends a chunk whose work is done; reads what a GPU has left."""
        for (_, begin), (part, end) in zip(self._events, self._events[1:], strict=False):
            if part:
                self.seconds[part] += begin.elapsed_time(end) / 1000
        self._events.clear()
        self._running = False

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """Measures something between the steps."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - started

    def take(self) -> tuple[int, dict[str, float]]:
        """Returns the steps that were measured and the seconds by part, and starts anew."""
        taken = self.steps, dict(self.seconds)
        self.steps = 0
        self.seconds.clear()
        return taken

    def _leave_event(self, part: str) -> None:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self._events.append((part, event))
