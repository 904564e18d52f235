"""Turns SIGINT and SIGTERM into a wish: a flag that all ranks agree on at the end of a chunk of steps."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class StopFlag:
    """Remembers which signal asked this process to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __call__(self) -> bool:
        """Returns whether a signal has come."""
        return self.signal_number is not None


@contextlib.contextmanager
def stop_on_signals(flag: StopFlag) -> Iterator[StopFlag]:
    """Installs handlers for SIGINT and SIGTERM that set a flag; a second SIGINT ends the process at once.

    For a command line or a rank of its own, on the main thread. A fit that runs inside somebody
    else's program installs nothing.
    """

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if flag.signal_number == signal.SIGINT == number:
            raise KeyboardInterrupt
        flag.signal_number = number

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
