"""Ray Tune over arrays: each trial is a row of one, where Tune believes it to be an actor of its own.

Tune's controller reaches its trials through one class, `RayActorManager`. `RowManager` has the methods of it that the
controller calls, and answers as an actor would. What is proposed, stopped and kept count of is Tune's, unchanged.
The class is not part of Ray's public interface: `check_contract` says whether Ray still has what is used here.
"""

from __future__ import annotations

import gc
import inspect
import tempfile
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray.air.execution._internal import TrackedActor
from ray.exceptions import RayActorError
from ray.tune import Checkpoint
from ray.tune.execution import tune_controller
from ray.tune.experiment.trial import _TrainingResult
from ray.tune.trainable.trainable import TRIAL_INFO

from headway.sweep._arrays import Device, Elsewhere, Here, Host
from headway.sweep._trial import trial_number
from headway.sweep._trial_run import TrialJob, TrialRun
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
def trials_as_rows(
    job: TrialJob, *, seats: int, devices: Sequence[Device] = (), stop_requested: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Has Tune train trials as rows.

    Args:
        job: what the trials have in common.
        seats: how many an array trains at a time.
        devices: of arrays in processes of their own; none for one array in this process.
        stop_requested: whether the search is to end, of which an array in this process hears between its steps.
    """
    before = tune_controller.RayActorManager
    tune_controller.RayActorManager = partial(RowManager, job, seats, tuple(devices), stop_requested)
    # Else each full collection among the rows' steps walks over all that the imports left, which takes 0.3 s.
    frozen_by_others = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        with quiet_lightning():
            yield
    finally:
        if not frozen_by_others:
            gc.unfreeze()
        tune_controller.RayActorManager = before


@dataclass
class _Seat:
    """A trial in an array."""

    trial: TrialRun
    trial_id: str
    host: Host
    started: float
    reports: int = 0
    result: dict[str, Any] = field(default_factory=dict)
    """The newest that Tune was told."""


class RowManager:
    """Stands where Ray Tune has the manager of its actors.

    Args:
        job: what the trials have in common.
        seats: how many an array trains at a time.
        devices: of arrays in processes of their own; none for one array in this process.
        stop_requested: whether the search is to end.
        resource_manager: Ray's, which arrays have no use for.
    """

    def __init__(
        self,
        job: TrialJob,
        seats: int,
        devices: tuple[Device, ...],
        stop_requested: Callable[[], bool],
        resource_manager: Any = None,
    ) -> None:
        self.job, self.seats = job, seats
        self._hosts: dict[Host, Device | None] = {Elsewhere(job, device): device for device in devices} or {
            Here(job, stop_requested=stop_requested): None
        }
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
        seat = self._seated.pop(tracked_actor)
        seat.host.ask("stop", seat.trial_id)
        self._events.append((None, partial(_call, tracked_actor._on_stop, tracked_actor)))
        return True

    def _free_host(self) -> Host | None:
        """Returns the array with the fewest rows, where it has a seat left."""
        rows = dict.fromkeys(self._hosts, 0)
        for seat in self._seated.values():
            if seat.host in rows:
                rows[seat.host] += 1
        fewest = min(rows, key=rows.__getitem__)
        return fewest if rows[fewest] < self.seats else None

    def _seat(self, actor: TrackedActor, kwargs: dict[str, Any], host: Host) -> None:
        trial_id = kwargs["config"][TRIAL_INFO].trial_id
        trial = TrialRun(self.job, trial_number(trial_id), kwargs["config"])
        host.ask("seat", trial_id, trial.number, trial.sample)
        self._seated[actor] = _Seat(trial, trial_id, host, time.monotonic())
        handle = SimpleNamespace(get_auto_filled_metrics=SimpleNamespace(remote=lambda **_: {}))
        self._live_actors_to_ray_actors_resources[actor] = handle, None
        _call(actor._on_start, actor)

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
            host = self._seated[tracked_actor].host
            if host not in self._hosts:
                self._fail(host, RayActorError(error_msg="its array's process died"))
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
        # One that waits for others may be asked twice at one report.
        self._lent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f"{seat.trial.run.id}-{seat.reports:04d}-", dir=self._lent)
        seat.host.ask_and_wait("lend", seat.trial_id, folder)
        return _TrainingResult(checkpoint=Checkpoint.from_directory(folder), metrics=dict(seat.result))

    def _adopt(self, seat: _Seat, lent: _TrainingResult) -> None:
        """Has a trial that has not begun go on from a copy."""
        seat.host.ask_and_wait("adopt", seat.trial_id, lent.checkpoint.path)
        seat.reports = int(lent.metrics.get("training_iteration", 0))

    def clear_actor_task_futures(self, tracked_actor: TrackedActor) -> None:
        """Forgets what is on its way to Tune from a trial."""
        self._waiting.pop(tracked_actor, None)
        self._events = deque(event for event in self._events if event[0] is not tracked_actor)

    def next(self, timeout: float | None = None) -> bool:
        """Lets one thing happen: trials are seated, Tune hears a report, or arrays train up to the next ones."""
        seated = False
        while self._pending and (host := self._free_host()) is not None:
            actor, kwargs = self._pending.popitem(last=False)
            self._seat(actor, kwargs, host)
            seated = True
        if seated:
            # Tune may have more for the seats that are left.
            return True
        if self._events:
            self._events.popleft()[1]()
            return True
        for host in self._hosts:
            waiting = [self._seated[actor].trial_id for actor in self._waiting if self._seated[actor].host is host]
            if waiting and not host.is_advancing:
                host.begin(waiting)
        host = self._first_ready(timeout)
        if host is None:
            return False
        try:
            reports = host.take()
        except RayActorError as error:
            self._replace(host, error)
            return True
        for actor in list(self._waiting):
            seat = self._seated[actor]
            # One that Tune has taken back meanwhile has nobody to tell.
            if seat.host is host and seat.trial_id in reports:
                self._report(actor, seat, reports[seat.trial_id])
        return True

    def _first_ready(self, timeout: float | None) -> Host | None:
        """Returns an array whose reports are there; None where there is none in time."""
        advancing = [host for host in self._hosts if host.is_advancing]
        for host in advancing:
            if isinstance(host, Here):
                return host
        references = {host.reports: host for host in advancing if isinstance(host, Elsewhere)}
        ready = ray.wait(list(references), num_returns=1, timeout=timeout)[0] if references else []
        return references[ready[0]] if ready else None

    def _replace(self, host: Host, error: Exception) -> None:
        """Starts an array in place of one whose process died, and tells Tune of its trials."""
        device = self._hosts.pop(host)
        assert device is not None, "only a process can die"
        self._hosts[Elsewhere(self.job, device)] = device
        self._fail(host, error)

    def _fail(self, host: Host, error: Exception) -> None:
        """Tells Tune of each trial that waits for an array which is no more."""
        for actor, seat in self._seated.items():
            if seat.host is host and actor in self._waiting:
                _, on_error = self._waiting.pop(actor)
                self._events.append((actor, partial(_call, on_error, actor, error)))

    def _report(self, actor: TrackedActor, seat: _Seat, metrics: dict[str, Any]) -> None:
        """Puts a report on its way to Tune."""
        on_result, _ = self._waiting.pop(actor)
        seat.reports += 1
        # Of each number Tune keeps, for every trial until the end, two windows and four more numbers.
        result = {
            "done": False,
            **metrics,
            "training_iteration": seat.reports,
            "trial_id": seat.trial_id,
            "config": seat.trial.sample,
            "time_total_s": time.monotonic() - seat.started,
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
        for host in self._hosts:
            host.close()
        self._seated.clear()
        self._pending.clear()
        self._events.clear()
        self._live_actors_to_ray_actors_resources.clear()


def _call(callback: Callable[..., Any] | None, *arguments: Any) -> None:
    if callback is not None:
        callback(*arguments)
