"""Reads a log that another process writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headway.config.errors import UserError

POLL_S = 0.3
_PIECE = 1 << 16


def read_log(path: Path, *, follow: bool, ended: Callable[[], bool]) -> Iterator[str]:
    """Yields a file's text in pieces, from the start.

    Args:
        path: the file; with `follow` it need not be there yet.
        follow: whether to wait for more until `ended`.
        ended: whether nothing more will be written.

    Raises:
        UserError: there is no such file.
    """
    while follow and not path.exists() and not ended():
        time.sleep(POLL_S)
    try:
        file = path.open("r", encoding="utf-8", errors="replace")
    except OSError:
        raise UserError(f"{path}: there is no log yet; `headway jobs` says where the job stands") from None
    with file:
        while True:
            over = not follow or ended()
            while piece := file.read(_PIECE):
                yield piece
            if over:
                return
            time.sleep(POLL_S)
