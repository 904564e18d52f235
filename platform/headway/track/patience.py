"""Bounds what W&B's SDK may take at the end of a run.

The SDK has a limit of its own for that, and gives its process a word about it. Where that process waits for a server
that is gone in the middle of an upload, it does not keep to it, and the run's own process would wait at its exit, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import psutil

_SERVICE = "wandb-core"
_ENDS_WITHIN_S = 5.0


def within(limit_s: float, end: Callable[[], None]) -> None:
    """Ends a W&B run; where that takes too long, ends W&B's process instead. What it wrote is on the disk.

    Raises:
        TimeoutError: it took too long.
        Exception: what `end` raised.
    """
    raised: list[BaseException] = []

    def work() -> None:
        try:
            end()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work, name="the end of a W&B run", daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        _end_service()
        thread.join(_ENDS_WITHIN_S)
        raise TimeoutError(f"W&B's process did not end the run within {limit_s:.0f} s")
    if raised:
        raise raised[0]


def _end_service() -> None:
    """Ends the SDK's process, and has the SDK know of it: the next run starts another."""
    import wandb

    services = [child for child in psutil.Process().children(recursive=True) if child.name() == _SERVICE]
    for service in services:
        service.kill()
    psutil.wait_procs(services, timeout=_ENDS_WITHIN_S)
    wandb.teardown(exit_code=1)
