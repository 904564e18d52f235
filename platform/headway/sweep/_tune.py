"""Drives Ray Tune: its start, the room that it has for trials, and its tuner.

Trials run in processes of their own (`_trial.py`) or as rows of an array in this one (`_rows.py`); the ledger hears the
same of both.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import random
import shutil
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headway.config.errors import UserError
from headway.config.space import POPULATIONS
from headway.supervise.signals import StopFlag, stop_on_signals
from headway.sweep.check import Plan
from headway.sweep.fusing import Choice, choose
from headway.sweep.ledger import Ledger

if TYPE_CHECKING:
    from headway.sweep._trial_run import TrialJob

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Without it Ray warns of a default that will change; trials that use no GPU see the ones there are.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A trial that fails before its first validation has no metric; the check of the name is ours.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # The handler of Tune's own would take the place of ours.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A trial's run folder has its error; the sweep's table has the reason.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # A sweep goes on from its journal; Tune's own record of its state is not used.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    # A head that died does not come back; a minute of waiting for it helps nobody.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
}
OBJECT_STORE_BYTES = 100 * 2**20
# Else Python's own end walks several times over all that was imported, which takes more than a second.
atexit.register(gc.freeze)
_ANSWERS_WITHIN_S = 5.0


def run_trials(
    ledger: Ledger, *, on_change: Callable[[], None], say: Callable[[str], None], address: str | None = None
) -> int | None:
    """Runs every trial of the ledger's plan that has not ended.

    Args:
        ledger: takes what the trials report.
        on_change: called after each change of it.
        say: takes a line for a person.
        address: of a Ray cluster; this machine alone where None.

    Returns:
        The number of the signal that ended the search early, or None.

    Raises:
        UserError: the cluster is not there, or too small for a trial.
    """
    flag, of_tune = StopFlag(), ledger.folder.path / "ray"
    # What a process that was killed has left; a sweep goes on from its journal.
    shutil.rmtree(of_tune, ignore_errors=True)
    if ledger.is_over:
        return None
    plan = ledger.plan
    on_main_thread = threading.current_thread() is threading.main_thread()
    with quiet_environment(), _own_generators(plan.seed):
        chosen = None if address else choose(plan, processes=concurrency(plan), num_gpus=_num_gpus(plan))
        with ray_session(_cpus_here(plan, chosen), address=address) as owns_ray:
            choice = chosen or _choose_there(plan)
            say(f"trials are {choice.reason}")
            if unstopped := _stops_nothing(ledger):
                say(unstopped)
            room = _room(plan, choice, owns_ray=owns_ray)
            job = _job(ledger, on_gpu=room.gpus > 0)
            # After Ray's start, which installs a handler of its own.
            with stop_on_signals(flag) if on_main_thread else nullcontext(flag), _rows(job, choice, room, flag):
                os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(room.pending)
                try:
                    tuner = build_tuner(ledger, job, flag, on_change, room=room, seats=choice.seats)
                    with _callbacks_uncounted():
                        tuner.fit()
                finally:
                    os.environ.pop("TUNE_MAX_PENDING_TRIALS_PG")
    # What Tune kept is of no further use.
    shutil.rmtree(of_tune, ignore_errors=True)
    return flag.signal_number


def _stops_nothing(ledger: Ledger) -> str | None:
    from headway.sweep._schedulers import stops_nothing

    return stops_nothing(ledger.plan, ledger.plan.num_trials - ledger.num_ended)


def _choose_there(plan: Plan) -> Choice:
    """Returns how trials train on the cluster that this process has joined."""
    import ray

    has = ray.cluster_resources()
    num_gpus = int(has.get("GPU", 0)) if plan.accelerator != "cpu" else 0
    nodes = sum(node["Alive"] for node in ray.nodes())
    return choose(plan, processes=0, num_gpus=num_gpus or nodes, here=False)


def _rows(job: TrialJob, choice: Choice, room: _Room, flag: StopFlag) -> AbstractContextManager[None]:
    if choice.seats is None:
        return nullcontext()
    from headway.sweep._arrays import Device
    from headway.sweep._rows import trials_as_rows

    devices = [Device(room.cpus_per_array, room.gpus)] * choice.arrays
    return trials_as_rows(job, seats=choice.seats, devices=devices, stop_requested=flag)


def _job(ledger: Ledger, *, on_gpu: bool) -> TrialJob:
    from headway.sweep._trial_run import TrialJob

    plan = ledger.plan
    return TrialJob(
        tree=plan.tree,
        fixed={**plan.fixed, **plan.proxy},
        search=plan.search,
        runs=str(ledger.folder.path.parent),
        sweep_id=ledger.folder.id,
        trust=plan.trust,
        folder=os.getcwd(),  # noqa: PTH109 - for os.chdir
        ranks=plan.ranks,
        on_gpu=on_gpu,
    )


@contextmanager
def _own_generators(seed: int) -> Iterator[None]:
    """Seeds the generators that Ray's schedulers draw from, and puts them back."""
    import numpy as np

    ours, theirs = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(theirs)


# ---- room for trials -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Room:
    """What Ray has for trials."""

    at_a_time: int | None
    """Most trials that are out at once; None leaves that to Ray's resources."""
    pending: int
    """Trials that Tune may ask for before there is room for them."""
    gpus: float
    """Of each rank, or of each array."""
    cpus_per_array: int = 1


def concurrency(plan: Plan) -> int:
    """Returns how many trials run at a time here: as asked, else one for each core or GPU that a rank needs."""
    places = _num_gpus(plan) / (plan.search.gpus_per_trial or 1.0) or len(os.sched_getaffinity(0))
    return min(plan.num_trials, plan.search.max_concurrent or max(1, int(places / plan.ranks)))


def _cpus_here(plan: Plan, choice: Choice | None) -> int:
    """Returns how many CPUs Ray is to believe in on this machine: one for each rank of the trials at a time."""
    if choice is not None and choice.seats:
        # It starts a worker for each, of which rows in this process have no use.
        return max(choice.arrays, len(os.sched_getaffinity(0))) if choice.arrays else 0
    return concurrency(plan) * plan.ranks


def _num_gpus(plan: Plan) -> int:
    if plan.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def _room(plan: Plan, choice: Choice, *, owns_ray: bool) -> _Room:
    """Returns what Ray has for trials.

    Raises:
        UserError: less than one trial needs.
    """
    import ray

    search, has = plan.search, ray.cluster_resources()
    if choice.seats:
        # What learns from trials proposes as late as it can.
        learns = search.searcher in ("tpe", "cmaes", "bohb")
        at_a_time = choice.seats * max(1, choice.arrays)
        gpus, cpus = has.get("GPU", 0.0) if plan.accelerator != "cpu" else 0.0, has.get("CPU", 1.0)
        return _Room(
            at_a_time if learns else None,
            1 if learns else at_a_time,
            min(1.0, gpus / max(1, choice.arrays)),
            max(1, int(cpus) // max(1, choice.arrays)),
        )
    wants_gpu = plan.accelerator != "cpu" and has.get("GPU", 0.0) >= 1
    gpus = 0.0
    if wants_gpu:
        # A rank of several has a GPU of its own; alone it may share one.
        shared = min(1.0, has["GPU"] / (search.max_concurrent or 1)) if search.max_concurrent else 1.0
        gpus = 1.0 if plan.ranks > 1 else search.gpus_per_trial or shared
    for resource, needed, setting in (
        ("GPU", gpus * plan.ranks, "sweep.gpus_per_trial" if plan.ranks == 1 else "trainer.devices"),
        ("CPU", float(plan.ranks), "trainer.devices"),
    ):
        if needed > has.get(resource, 0.0):
            raise UserError(
                f"{setting}: a trial needs {needed:g} {resource}s, but Ray has {has.get(resource, 0.0):g}; "
                "lower it, or give --address of a larger cluster"
            )
    if search.gpus_per_trial and not wants_gpu:
        raise UserError(f"sweep.gpus_per_trial: {search.gpus_per_trial:g}, but Ray has no GPU here; leave it out")
    limit = search.max_concurrent if not owns_ray or search.max_concurrent else None
    return _Room(limit, 1 if search.searcher in ("tpe", "cmaes", "bohb") else 16, gpus)


@contextmanager
def quiet_environment() -> Iterator[None]:
    """Keeps Ray's reports, tips and statistics off the screen; what a user has set stays."""
    added = {name: value for name, value in _QUIET.items() if name not in os.environ}
    os.environ.update(added)
    import ray  # noqa: F401 - its import sets the loggers' levels

    # Failed trials are in the table, with their reasons.
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune", "ray.train")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            # Rows have no actors to use again.
            warnings.filterwarnings("ignore", message="Consider boosting PBT performance")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def ray_session(num_cpus: int, *, address: str | None = None) -> Iterator[bool]:
    """Starts Ray on this machine, or joins a cluster, and leaves it; stays in one that this process has joined already.

    Yields:
        Whether Ray was started for this sweep alone.

    Raises:
        UserError: there is no cluster at the address.
    """
    import ray

    if ray.is_initialized():
        yield False
        return
    handler = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        # "local": never the cluster that happens to be up.
        with _as_a_part_of_this_process():
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
    else:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except Exception as error:
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise UserError(
                f"--address: no Ray cluster answers at {address} ({reason}); start one, or use local"
            ) from None
    try:
        yield address is None
    finally:
        ray.shutdown()
        if threading.current_thread() is threading.main_thread():
            # Ray leaves one of its own behind.
            signal.signal(signal.SIGTERM, handler)


def _knock(address: str) -> None:
    """Raises an OSError where nobody listens: Ray ends this whole process where a head does not answer."""
    from ray._private import services

    # Where a cluster that is gone has left a note of where it was, "auto" is that place.
    found = services.canonicalize_bootstrap_address(address) if address == "auto" else address
    host, _, port = str(found).removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWERS_WITHIN_S).close()


_NOT_STARTED = ("start_monitor", "start_log_monitor", "start_api_server")
"""Processes that Ray starts for clusters that grow, for logs that it shows and for its dashboard."""


@contextmanager
def _as_a_part_of_this_process() -> Iterator[None]:
    """Has Ray start what a sweep needs, in sessions of their own.

    A signal to this process's group, as terminals and schedulers send it, would end Ray's before this one has told them
    what to do; this process would wait for them for a minute. When this process ends, however it does, Linux ends them.

    The processes that are left out cost two seconds at the start and one at the end.
    """
    from ray._private import services, utils
    from ray._private.node import Node

    class Apart(services.ConsolePopen):  # type: ignore[misc]  # Ray has no types
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, start_new_session=True, **options)

    with ExitStack() as stack:
        stack.enter_context(_replaced(services, "ConsolePopen", Apart))
        # An agent with what a dashboard needs is larger; to ask whether that is there imports it here, too.
        stack.enter_context(_replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("left out")))
        for name in _NOT_STARTED:
            stack.enter_context(_replaced(Node, name, lambda *_, **__: None))
        yield


def _callbacks_uncounted() -> AbstractContextManager[None]:
    """Has Ray not count callbacks for its statistics, which are off: it imports W&B to know one when it sees it."""
    from ray.air._internal import usage

    return _replaced(usage, "tag_callbacks", lambda _: False)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Has something of Ray's be something else; nothing where it is not there."""
    before = getattr(owner, name, None)
    if before is None:
        yield
        return
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def build_tuner(
    ledger: Ledger,
    job: TrialJob,
    flag: StopFlag,
    on_change: Callable[[], None],
    *,
    room: _Room,
    seats: int | None,
) -> Any:
    """Returns Ray's tuner of a plan.

    Args:
        ledger: takes what the trials report.
        job: what the trials have in common.
        flag: ends the search.
        on_change: called after each change of the ledger.
        room: what Ray has for trials.
        seats: how many rows an array trains at a time; None for processes of each trial's own.
    """
    from ray import tune

    from headway.sweep._callbacks import Account, Returns, StopOnSignal
    from headway.sweep._proposals import Proposals, build_searcher
    from headway.sweep._schedulers import build_scheduler
    from headway.sweep._trial import TrialActor

    plan, search = ledger.plan, ledger.plan.search
    searcher, param_space = build_searcher(search, seed=plan.seed)
    proposals = Proposals(ledger, searcher, at_a_time=room.at_a_time)
    returns = [Returns(ledger.folder.path / "ray")] if search.scheduler.kind in POPULATIONS else []
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialActor, job=job), _resources(plan, room)),
        param_space=param_space,
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            num_samples=plan.num_trials,
            search_alg=proposals,
            scheduler=build_scheduler(plan, proposals),
            # A process imports torch once, not once a trial.
            reuse_actors=seats is None,
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(ledger.folder.path),
            stop=StopOnSignal(flag),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            # A trial's run folder has its position: on another process it goes on from there.
            failure_config=tune.FailureConfig(max_failures=search.retries),
            callbacks=[Account(ledger, on_change), *returns],
            verbose=0,
        ),
    )


def _resources(plan: Plan, room: _Room) -> Any:
    """Returns what Ray reserves for a trial: its own process, or one that watches over its ranks."""
    from ray import tune

    rank = {"CPU": 1.0, "GPU": room.gpus} if room.gpus else {"CPU": 1.0}
    if plan.ranks == 1:
        return {name.lower(): amount for name, amount in rank.items()}
    return tune.PlacementGroupFactory([{}, *[rank] * plan.ranks], strategy="PACK")


def _folder_name(trial: Any) -> str:
    """Returns what Ray calls a trial's folder of its own."""
    return str(trial.trial_id)
