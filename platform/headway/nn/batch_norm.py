"""Batch normalization that sees the rows of all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_standing_in = False


@contextmanager
def stand_in() -> Iterator[None]:
    """Keeps the rows of a forward out of the statistics: they stand in for an empty slice."""
    global _standing_in
    _standing_in = True
    try:
        yield
    finally:
        _standing_in = False
