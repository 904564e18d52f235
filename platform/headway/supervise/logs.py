"""Sends what a rank prints to its own log, `logs/rank-<n>.log`; rank 0's is shown as well."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from headway.config.contracts import Place
from headway.config.errors import HeadwayError


class Tee:
    """A text stream that writes to two."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self.first = first
        self.second = second

    def write(self, text: str) -> int:
        """Writes to both."""
        self.second.write(text)
        return self.first.write(text)

    def flush(self) -> None:
        """Flushes both."""
        self.first.flush()
        self.second.flush()

    def isatty(self) -> bool:
        """Returns False: a bar that redraws itself is no text for a log."""
        return False


@contextmanager
def rank_log(path: Path, place: Place) -> Iterator[None]:
    """Keeps a rank's output, and the reason where it ends badly, in its log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as log:
        try:
            if place.rank == 0:
                with redirect_stderr(Tee(sys.stderr, log)):
                    yield
            else:
                with redirect_stderr(log), redirect_stdout(log):
                    yield
        except HeadwayError as error:
            log.write(f"headway: {error}\n")
            raise
        except BaseException:
            traceback.print_exc(file=log)
            raise
