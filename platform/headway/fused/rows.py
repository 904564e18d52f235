"""A run whose steps are made by somebody else: it goes on in a thread of its own, and only while it is told to.

One thread goes at a time, handed on like a baton, so that nothing a run does between its steps (warnings filters,
the library's random generator, the number of threads) meets another run's.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from headway.config.errors import Stopped

if TYPE_CHECKING:
    from headway.checkpoint.keeper import Keeper
    from headway.config.contracts import Hooks, Place
    from headway.feed import Feed
    from headway.fused.loop import RowTrainer
    from headway.objectives._chunks import Chunk, ChunkReport
    from headway.objectives._sums import Sums
    from headway.objectives.base import Objective
    from headway.recipe import Recipe

Metrics = dict[str, float]


class Row:
    """One run.

    Args:
        name: the run's.
        work: trains it; called in the thread with the row, which is its stepper.
    """

    # Each call goes to every row in turn. Its position can be saved between calls alone: of a slow net even a few steps
    # that nobody has measured yet would take longer than may be lost.
    chunk_seconds = 1.0
    """How much a row asks for at a time."""

    def __init__(self, name: str, work: Callable[[Row], None]) -> None:
        self.name = name
        self.objective: Objective | None = None
        """What asks for steps; None before the first."""
        self.key: Any = None
        """Rows with the same key can share a stack."""
        self.wanted = 0
        """Steps it waits for."""
        self.feed: Feed | None = None
        """A split whose sums it waits for."""
        self.report: Metrics | None = None
        """A validation that nobody has taken yet; the row waits until it is told how to go on."""
        self.ended = False
        self.error: BaseException | None = None
        self._go_on = True
        self._made: list[Sums] = []
        self._sums: Sums = {}
        self._keeper: Keeper | None = None
        self._work = work
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    # ---- for whoever seats it ----------------------------------------------------------------------

    def resume(self) -> None:
        """Lets it go on until it wants steps, has a report or ends."""
        state = torch.get_rng_state()
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._mine.release()
        self._theirs.acquire()
        torch.set_rng_state(state)

    def take_report(self) -> Metrics | None:
        """Returns its report, and has it go on when it is resumed."""
        report, self.report = self.report, None
        return report

    def take_steps(self, made: Sequence[Sums]) -> None:
        """Gives it steps that were made."""
        self._made += made
        self.wanted -= len(made)

    def take_sums(self, sums: Sums) -> None:
        """Gives it the sums of the split that it waits for."""
        self._sums, self.feed = sums, None

    def write_checkpoints(self) -> None:
        """Returns once the run's checkpoints are on the disk, for somebody else to read."""
        if self._keeper is not None:
            self._keeper.shelf.close()

    def stop(self) -> None:
        """Ends it where it waits, and returns when its run folder is closed."""
        if self._thread.ident is None:
            self.ended = True
        self._go_on = False
        while not self.ended:
            self.take_report()
            self.resume()

    # ---- in the thread -----------------------------------------------------------------------------

    def make_steps(self, objective: Objective, chunk: Chunk, report: ChunkReport) -> list[Sums]:
        """Returns the sums of a chunk's steps, once they are made.

        Raises:
            Stopped: it was told to stop instead.
        """
        self.objective, self.wanted, self._made = objective, chunk.num_steps, []
        if not self._wait():
            raise Stopped(f"stopped at step {objective.step}", signal_number=signal.SIGTERM)
        report.num_samples = objective.train_feed.num_samples(chunk.first, objective.step)
        return self._made

    def sum_split(self, objective: Objective, feed: Feed) -> Sums:
        """Returns the sums of a split, once they are made.

        Raises:
            Stopped: it was told to stop instead.
        """
        self.objective, self.feed = objective, feed
        if not self._wait():
            raise Stopped(f"stopped at step {objective.step}", signal_number=signal.SIGTERM)
        return self._sums

    def trainer(self, recipe: Recipe, place: Place, hooks: list[Hooks]) -> RowTrainer:
        """Returns the loop that trains it."""
        from headway.checkpoint.keeper import Keeper
        from headway.fused.loop import RowTrainer

        self._keeper = next((listener for listener in hooks if isinstance(listener, Keeper)), None)
        return RowTrainer(hooks)

    def give_report(self, metrics: Metrics) -> bool:
        """Hands a validation to whoever seats the row; returns whether to go on."""
        self.report = metrics
        return self._wait()

    def _wait(self) -> bool:
        state = torch.get_rng_state()
        self._theirs.release()
        self._mine.acquire()
        torch.set_rng_state(state)
        return self._go_on

    def _run(self) -> None:
        # OpenMP keeps a team for every thread that ever used more than one, and once teams have more threads than the
        # machine has cores, it puts each to sleep after each operation: also those that make the steps.
        torch.set_num_threads(1)
        try:
            self._work(self)
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self.objective = None
            self._theirs.release()
