"""Turns a signal into a wish: a flag that all ranks agree on at the end of a chunk of steps.

| signal  | who sends it                                      | exit code once the position is saved |
|---------|---------------------------------------------------|--------------------------------------|
| SIGINT  | Ctrl-C                                            | 130                                  |
| SIGTERM | `kill`, a scheduler that takes the machine back   | 143                                  |
| SIGUSR1 | a scheduler, some time before a job's limit       | 143                                  |
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopFlag:
    """Remembers which signal asked this process to stop."""

    def __init__(self) -> None:
        self.signal_number: int | None = None

    def __call__(self) -> bool:
        """Returns whether a signal has come."""
        return self.signal_number is not None


_installed: list[StopFlag] = []


@contextlib.contextmanager
def stop_on_signals(flag: StopFlag) -> Iterator[StopFlag]:
    """Installs handlers for the signals above that set a flag; a second SIGINT ends the process at once.

    For a command line or a rank of its own, on the main thread. A fit that runs inside somebody
    else's program installs nothing. Within another such block, a signal that has come is not forgotten: a
    command line installs handlers before it imports torch, which takes seconds.
    """

    def note(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if flag.signal_number == signal.SIGINT == number:
            raise KeyboardInterrupt
        flag.signal_number = signal.SIGTERM if number == signal.SIGUSR1 else number

    if _installed:
        flag.signal_number = _installed[-1].signal_number
    _installed.append(flag)
    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield flag
    finally:
        _installed.pop()
        for number, handler in before.items():
            signal.signal(number, handler)
