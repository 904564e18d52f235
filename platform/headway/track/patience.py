"""How long a run's end may wait for W&B: one deadline for all of it, and no second wait for a server that let one down.

The SDK has a limit of its own for that, and gives its process a word about it. Where that process waits for a server
that is gone in the middle of an upload, it does not keep to it, and the run's own process would wait at its exit, too.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import psutil

REMEMBERED_S = 300.0
"""How long a server that kept this process waiting is not waited for again."""
_SERVICE = "wandb-core"
_ENDS_BY_ITSELF_S = 3.0
_ENDS_WITHIN_S = 5.0
Item = TypeVar("Item")


class Deadline:
    """A moment that all waits of one end share.

    Args:
        limit_s: seconds from now.
        clock: tells the time, in seconds.
    """

    def __init__(self, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_s = limit_s
        self._clock = clock
        self._until = clock() + limit_s

    @property
    def left_s(self) -> float:
        """Returns the seconds that are left; never less than 0."""
        return max(0.0, self._until - self._clock())


class Worker(Generic[Item]):
    """A thread that takes what it is given, in order.

    Args:
        name: the thread's.
        take: called with each.
    """

    def __init__(self, name: str, take: Callable[[Item], None]) -> None:
        self._take = take
        self._queue: queue.SimpleQueue[tuple[Item] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def put(self, item: Item) -> None:
        """Gives it something; costs next to nothing."""
        self._queue.put((item,))

    def close(self, within_s: float) -> bool:
        """Returns whether it took all that it was given in time. It takes nothing that is put later."""
        self._queue.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._take(item[0])


class Servers:
    """The servers that kept this process waiting, by address: others of its runs do not wait for them as well.

    Args:
        clock: tells the time, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent: dict[str, tuple[float, str]] = {}

    def remember(self, url: str, why: str) -> None:
        """Keeps in mind what is wrong with a server, for a while."""
        self._silent[url] = self._clock() + REMEMBERED_S, why

    def recall(self, url: str) -> str | None:
        """Returns what is wrong with a server; None where nothing is known."""
        until, why = self._silent.get(url, (0.0, None))
        return why if self._clock() < until else None

    def forget(self) -> None:
        """Forgets them all."""
        self._silent.clear()


SERVERS = Servers()


def within(deadline: Deadline, end: Callable[[], None]) -> None:
    """Ends a W&B run; where that takes too long, ends W&B's process instead. What it wrote is on the disk.

    A process that other runs still write with is left to them, and ended with this one.

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
    thread.join(deadline.left_s)
    if thread.is_alive():
        if is_needed():
            atexit.unregister(end_service)
            atexit.register(end_service)
        else:
            end_service()
        raise TimeoutError(f"W&B's process did not end the run within {deadline.limit_s:.0f} s")
    if raised:
        raise raised[0]


def is_needed() -> bool:
    """Returns whether there are runs in this process that are not ended."""
    import wandb

    return wandb.setup().most_recent_active_run is not None


def end_service() -> None:
    """Ends the SDK's process, and has the SDK know of it: the next run starts another."""
    services = [child for child in psutil.Process().children(recursive=True) if child.name() == _SERVICE]
    goodbye = threading.Thread(target=_say_goodbye, name="the end of W&B's process", daemon=True)
    # First told, while it can hear it: the SDK's own threads then end in order, too.
    goodbye.start()
    goodbye.join(_ENDS_BY_ITSELF_S)
    for service in services:
        with contextlib.suppress(psutil.NoSuchProcess):
            service.kill()
    goodbye.join(_ENDS_WITHIN_S)


def _say_goodbye() -> None:
    import wandb

    # The SDK would leave with the exit code of its process.
    with contextlib.suppress(Exception, SystemExit):
        wandb.teardown(exit_code=1)
