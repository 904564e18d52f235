"""Ray Tune over an array: each trial is a row in this process, where Tune believes it to be an actor of its own.

Tune's controller reaches its trials through one class, `RayActorManager`. `RowManager` has the methods of it that the
controller calls, and answers as an actor would. What is proposed, stopped and kept count of is Tune's, unchanged.
The class is not part of Ray's public interface: `check_contract` says whether Ray still has what is used here.
"""

from __future__ import annotations

import inspect
import os
import platform as machine
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.air.execution._internal import TrackedActor
from ray.tune import Checkpoint
from ray.tune.execution import tune_controller
from ray.tune.experiment.trial import _TrainingResult
from ray.tune.trainable.trainable import TRIAL_INFO

from headway.config.errors import HeadwayError
from headway.fused.fit import DataShelf, make_row
from headway.fused.rows import Row
from headway.fused.seating import Array
from headway.sweep._trial import trial_number
from headway.sweep._trial_run import SAVE_EVERY_S, TrialJob, TrialRun
from headway.training import quiet_lightning

_CALLED = {
    "add_actor": {"cls", "resource_request", "kwargs", "on_start", "on_stop", "on_error"},
    "remove_actor": {"tracked_actor", "kill", "stop_future"},
    "schedule_actor_task": {"tracked_actor", "method_name", "on_result", "on_error", "_return_future"},
    "clear_actor_task_futures": {"tracked_actor"},
    "is_actor_started": {"tracked_actor"},
    "is_actor_failed": {"tracked_actor"},
    "next": {"timeout"},
    "cleanup": set(),
}
"""Methods of Ray's manager that the controller calls, with the arguments that it may give."""


def check_contract() -> str | None:
    """Returns what Ray no longer has of what the array leans on; None where all is there."""
    manager = getattr(tune_controller, "RayActorManager", None)
    if manager is None:
        return "ray.tune.execution.tune_controller has no RayActorManager"
    for name, arguments in _CALLED.items():
        method = getattr(manager, name, None)
        if method is None:
            return f"RayActorManager has no {name}"
        missing = arguments - set(inspect.signature(method).parameters)
        if missing:
            return f"RayActorManager.{name} takes no {', '.join(sorted(missing))}"
    return None


@contextmanager
def trials_as_rows(job: TrialJob, *, seats: int) -> Iterator[Array]:
    """Has Tune train trials as the rows of one array in this process.

    Args:
        job: what the trials have in common.
        seats: how many are trained at a time.
    """
    array = Array()
    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = partial(RowManager, job, array, seats)
    try:
        with quiet_lightning():
            yield array
    finally:
        tune_controller.RayActorManager = before


@dataclass
class _Seat:
    """A trial in the array."""

    trial: TrialRun
    trial_id: str
    row: Row
    started: float
    reports: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    """The newest that Tune was told."""


class RowManager:
    """Stands where Ray Tune has the manager of its actors.

    Args:
        job: what the trials have in common.
        array: trains them.
        seats: how many at a time.
        resource_manager: Ray's, which an array has no use for.
    """

    def __init__(self, job: TrialJob, array: Array, seats: int, resource_manager: Any = None) -> None:
        self.job, self.array, self.seats = job, array, seats
        self._shelf = DataShelf()
        self._lent = Path(job.runs) / job.sweep_id / "ray" / "lent"
        self._pending: OrderedDict[TrackedActor, dict[str, Any]] = OrderedDict()
        self._seated: dict[TrackedActor, _Seat] = {}
        self._waiting: dict[TrackedActor, tuple[Callable[..., Any] | None, Callable[..., Any] | None]] = {}
        """Trials that Tune waits for a report of, with what to call."""
        self._events: deque[tuple[TrackedActor | None, Callable[[], Any]]] = deque()
        # The controller looks an actor's handle up here.
        self._live_actors_to_ray_actors_resources: dict[TrackedActor, tuple[Any, None]] = {}
        self._actor_task_events = SimpleNamespace(resolve_future=lambda *_: None)

    # ---- trials come and go ------------------------------------------------------------------------

    def add_actor(
        self,
        cls: Any,
        kwargs: dict[str, Any],
        resource_request: Any,
        *,
        on_start: Callable[[TrackedActor], None] | None = None,
        on_stop: Callable[[TrackedActor], None] | None = None,
        on_error: Callable[[TrackedActor, Exception], None] | None = None,
    ) -> TrackedActor:
        """Notes a trial that is to be seated."""
        actor = TrackedActor(uuid.uuid4().int, on_start=on_start, on_stop=on_stop, on_error=on_error)
        self._pending[actor] = kwargs
        return actor

    def remove_actor(self, tracked_actor: TrackedActor, kill: bool = False, stop_future: Any = None) -> bool:
        """Ends a trial that still trains and frees its seat; returns whether it had one."""
        if self._pending.pop(tracked_actor, None) is not None or tracked_actor not in self._seated:
            return False
        del self._live_actors_to_ray_actors_resources[tracked_actor]
        self._waiting.pop(tracked_actor, None)
        self._end(self._seated.pop(tracked_actor))
        self._events.append((None, partial(_call, tracked_actor._on_stop, tracked_actor)))
        return True

    def _seat(self, actor: TrackedActor, kwargs: dict[str, Any]) -> None:
        info = kwargs["config"][TRIAL_INFO]
        trial = TrialRun(self.job, trial_number(info.trial_id), kwargs["config"])
        row = make_row(
            trial.run,
            trial.begin,
            shelf=self._shelf,
            reporter=trial.reporter,
            argv=trial.argv,
            save_every_s=SAVE_EVERY_S,
        )
        self._seated[actor] = _Seat(trial, info.trial_id, row, time.monotonic())
        handle = SimpleNamespace(get_auto_filled_metrics=SimpleNamespace(remote=lambda **_: {}))
        self._live_actors_to_ray_actors_resources[actor] = handle, None
        _call(actor._on_start, actor)

    def _end(self, seat: _Seat) -> None:
        seat.row.stop()
        if isinstance(seat.row.error, HeadwayError):
            seat.trial.record(seat.row.error)

    # ---- what Tune asks of a trial -------------------------------------------------------------------

    def schedule_actor_task(
        self,
        tracked_actor: TrackedActor,
        method_name: str,
        args: Any = None,
        kwargs: Any = None,
        on_result: Callable[..., Any] | None = None,
        on_error: Callable[..., Any] | None = None,
        _return_future: bool = False,
    ) -> Any:
        """Does what Tune asks of a trial: to train up to its next report, to lend its checkpoint, to adopt one.

        A stop is done by `remove_actor`.

        Returns:
            Ray's reference to the answer, where Tune wants to wait for it.
        """
        if method_name == "train":
            self._waiting[tracked_actor] = on_result, on_error
            return None
        if method_name == "stop":
            return None
        seat = self._seated[tracked_actor]
        answer: _TrainingResult | None
        if method_name == "save":
            answer = self._lend(seat)
        elif method_name == "restore":
            answer = None
            self._adopt(seat, *args)
        else:
            raise NotImplementedError(f"an array does not {method_name} a trial")
        self._events.append((tracked_actor, partial(_call, on_result, tracked_actor, answer)))
        return ray.put(answer) if _return_future else None

    def _lend(self, seat: _Seat) -> _TrainingResult:
        """Copies a trial's checkpoints for another trial, or for itself later."""
        folder = self._lent / f"{seat.trial.run.id}-{seat.reports:04d}"
        seat.trial.lend(folder)
        return _TrainingResult(checkpoint=Checkpoint.from_directory(str(folder)), metrics=dict(seat.result))

    def _adopt(self, seat: _Seat, lent: _TrainingResult) -> None:
        """Has a trial that has not begun go on from a copy."""
        seat.trial.adopt(Path(lent.checkpoint.path))
        seat.reports = int(lent.metrics.get("training_iteration", 0))

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Forgets what is on its way to Tune from a trial."""
        self._waiting.pop(tracked_actor, None)
        self._events = deque(event for event in self._events if event[0] is not tracked_actor)

    def next(self, timeout: float | None = None) -> bool:
        """Lets one thing happen: trials are seated, Tune hears a report, or the array trains up to the next ones."""
        seated = False
        while self._pending and len(self._seated) < self.seats:
            actor, kwargs = self._pending.popitem(last=False)
            self._seat(actor, kwargs)
            seated = True
        if seated:
            # Tune may have more for the seats that are left.
            return True
        if self._events:
            self._events.popleft()[1]()
            return True
        if not self._waiting:
            return False
        self.array.advance([self._seated[actor].row for actor in self._waiting])
        for actor in list(self._waiting):
            seat = self._seated[actor]
            if seat.row.ended or seat.row.report is not None:
                on_result, on_error = self._waiting.pop(actor)
                self._report(actor, seat, on_result, on_error)
        return True

    def _report(
        self,
        actor: TrackedActor,
        seat: _Seat,
        on_result: Callable[..., Any] | None,
        on_error: Callable[..., Any] | None,
    ) -> None:
        """Puts a row's report, or its end, on its way to Tune."""
        error = seat.row.error
        metrics: dict[str, Any] | None = seat.row.take_report()
        if metrics is None:
            if isinstance(error, HeadwayError):
                seat.trial.record(error)
            elif error is not None:
                self._events.append((actor, partial(_call, on_error, actor, error)))
                return
            metrics = seat.trial.last_report()
        seat.reports += 1
        elapsed = time.monotonic() - seat.started
        now = datetime.now()
        result = {
            "done": False,
            **metrics,
            "training_iteration": seat.reports,
            "iterations_since_restore": seat.reports,
            "trial_id": seat.trial_id,
            "config": seat.trial.sample,
            "time_this_iter_s": elapsed,
            "time_total_s": elapsed,
            "time_since_restore": elapsed,
            "date": now.strftime("%Y-%m-%d_%H-%M-%S"),
            "timestamp": int(now.timestamp()),
            "pid": os.getpid(),
            "hostname": machine.node(),
            "node_ip": "127.0.0.1",
        }
        seat.result = result
        self._events.append((actor, partial(_call, on_result, actor, result)))

    # ---- how the controller counts ---------------------------------------------------------------------

    def is_actor_started(self, tracked_actor: TrackedActor) -> bool:
        """Returns whether a trial has a seat."""
        return tracked_actor in self._seated

    def is_actor_failed(self, tracked_actor: TrackedActor) -> bool:
        """Returns False: a row has no process that could die."""
        return False

    def get_live_actors_resources(self) -> dict[str, float]:
        """Returns what the array uses."""
        return {"CPU": 1.0}

    @property
    def num_pending_actors(self) -> int:
        """Returns how many trials wait for a seat."""
        return len(self._pending)

    @property
    def num_live_actors(self) -> int:
        """Returns how many trials have a seat."""
        return len(self._seated)

    @property
    def num_total_actors(self) -> int:
        """Returns how many trials there are."""
        return len(self._pending) + len(self._seated)

    @property
    def num_actor_tasks(self) -> int:
        """Returns how many answers Tune waits for."""
        return len(self._waiting) + len(self._events)

    def cleanup(self) -> None:
        """Ends whatever still trains."""
        for seat in self._seated.values():
            self._end(seat)
        self._seated.clear()
        self._pending.clear()
        self._events.clear()
        self._live_actors_to_ray_actors_resources.clear()


def _call(callback: Callable[..., Any] | None, *arguments: Any) -> None:
    if callback is not None:
        callback(*arguments)
