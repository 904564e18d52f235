"""What can go wrong for a user, and the exit code that says so.

| code | meaning                                                             |
|------|---------------------------------------------------------------------|
| 0    | done                                                                |
| 1    | a bug of ours, with a traceback                                     |
| 2    | the input is wrong: one line, before any process starts             |
| 3    | training failed: the reason on one line and in the run's status     |
| 130  | stopped by Ctrl-C (SIGINT), the position saved                      |
| 143  | stopped by SIGTERM, the position saved                              |
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_TRAINING_FAILED = 3


class HeadwayError(Exception):
    """An error whose message is the whole story: one line, no traceback needed."""

    exit_code = EXIT_BUG

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class UserError(HeadwayError):
    """The input is wrong. The message names the setting, its value and the remedy."""

    exit_code = EXIT_USER_ERROR


class TrainingFailed(HeadwayError):
    """Training started and cannot go on. The message names the reason."""

    exit_code = EXIT_TRAINING_FAILED


class Stopped(HeadwayError):
    """A signal asked the run to stop; its position is saved."""

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Returns "; did you mean X?" for the nearest known name, or a list of what there is."""
    known = sorted(known)
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there is {', '.join(known)}" if known else ""
