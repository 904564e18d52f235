"""Drives Ray Tune: its start, what proposes trials and what stops them. The only file that does.

Trials run in processes of their own (`_trial.py`) or as rows of an array in this one (`_rows.py`); the ledger hears the
same of both.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from headway.config.space import Distribution, SweepSection
from headway.supervise.signals import StopFlag, stop_on_signals
from headway.sweep.check import Plan
from headway.sweep.fusing import Choice, choose
from headway.sweep.ledger import Ledger

if TYPE_CHECKING:
    from headway.sweep._trial import TrialJob

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
}
OBJECT_STORE_BYTES = 100 * 2**20


def run_trials(ledger: Ledger, *, on_change: Callable[[], None], say: Callable[[str], None]) -> int | None:
    """Runs every trial of the ledger's plan.

    Args:
        ledger: takes what the trials report.
        on_change: called after each change of it.
        say: takes a line for a person.

    Returns:
        The number of the signal that ended the search early, or None.
    """
    flag = StopFlag()
    on_main_thread = threading.current_thread() is threading.main_thread()
    with quiet_environment():
        choice = choose(ledger.plan, processes=concurrency(ledger.plan))
        say(f"trials are {choice.reason}")
        job = _job(ledger)
        with (
            ray_session(1 if choice.seats else concurrency(ledger.plan)) as num_cpus,
            # After Ray's start, which installs a handler of its own.
            stop_on_signals(flag) if on_main_thread else nullcontext(flag),
            _rows(job, choice),
        ):
            build_tuner(ledger, job, flag, on_change, num_cpus=num_cpus, seats=choice.seats).fit()
    return flag.signal_number


def _rows(job: TrialJob, choice: Choice) -> AbstractContextManager[object]:
    from headway.sweep._rows import trials_as_rows

    return trials_as_rows(job, seats=choice.seats) if choice.seats else nullcontext()


def _job(ledger: Ledger) -> TrialJob:
    from headway.sweep._trial import TrialJob

    plan = ledger.plan
    return TrialJob(
        tree=plan.tree,
        fixed=plan.fixed,
        runs=str(ledger.folder.path.parent),
        sweep_id=ledger.folder.id,
        trust=plan.trust,
        scheduler=plan.search.scheduler.kind,
        folder=os.getcwd(),  # noqa: PTH109 - for os.chdir
    )


def concurrency(plan: Plan) -> int:
    """Returns how many trials run at a time: as asked, else one a core, or one a GPU where those train."""
    return min(plan.num_trials, plan.search.max_concurrent or (_num_gpus(plan) or len(os.sched_getaffinity(0))))


def _num_gpus(plan: Plan) -> int:
    if plan.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


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
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def ray_session(num_trials: int) -> Iterator[int | None]:
    """Starts Ray on this machine and ends it; joins one that this process has started already.

    Yields:
        How many processes Ray was started for, one a trial; None where it was running.
    """
    import ray

    if ray.is_initialized():
        yield None
        return
    # "local": never the cluster that happens to be up.
    ray.init(
        address="local",
        num_cpus=num_trials,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        object_store_memory=OBJECT_STORE_BYTES,
    )
    try:
        yield num_trials
    finally:
        ray.shutdown()


def build_tuner(
    ledger: Ledger,
    job: TrialJob,
    flag: StopFlag,
    on_change: Callable[[], None],
    *,
    num_cpus: int | None,
    seats: int | None,
) -> Any:
    """Returns Ray's tuner of a plan.

    Args:
        ledger: takes what the trials report.
        job: what the trials have in common.
        flag: ends the search.
        on_change: called after each change of the ledger.
        num_cpus: for how many processes Ray was started; None where it was running.
        seats: how many rows an array trains at a time; None for a process a trial.
    """
    from ray import tune

    from headway.sweep._callbacks import Account, StopOnSignal
    from headway.sweep._trial import TrialActor

    plan, search = ledger.plan, ledger.plan.search
    at_a_time = seats or concurrency(plan)
    # Rows have no process: Tune may start as many as there are seats.
    resources = {"cpu": 1.0}
    if _num_gpus(plan):
        resources["gpu"] = min(1.0, _num_gpus(plan) / at_a_time)
    grid = search.searcher == "grid"
    return tune.Tuner(
        tune.with_resources(tune.with_parameters(TrialActor, job=job), resources),
        param_space={path: to_domain(drawn, grid=grid) for path, drawn in search.space.items()},
        tune_config=tune.TuneConfig(
            metric=search.metric,
            mode=search.mode,
            num_samples=1 if grid else search.trials,
            # Where Ray was started for this sweep its CPUs are the limit, which keeps trials in
            # waiting and so every process in use; a limit of the searcher's does not.
            search_alg=build_searcher(plan.seed, max_concurrent=0 if num_cpus and not seats else at_a_time),
            scheduler=build_scheduler(search, grace_steps=plan.grace_steps, total_steps=plan.total_steps),
            # A process imports torch once, not once a trial.
            reuse_actors=seats is None,
            trial_dirname_creator=_folder_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(ledger.folder.path),
            stop=StopOnSignal(flag),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[Account(ledger, on_change)],
            verbose=0,
        ),
    )


def to_domain(drawn: Distribution, *, grid: bool) -> Any:
    """Returns Ray's form of a distribution."""
    from ray import tune

    if drawn.choice is not None:
        return tune.grid_search(drawn.choice) if grid else tune.choice(drawn.choice)
    if drawn.randint is not None:
        return tune.randint(*drawn.randint)
    if drawn.loguniform is not None:
        return tune.loguniform(*drawn.loguniform)
    assert drawn.uniform is not None, "a distribution has one way to draw"
    return tune.uniform(*drawn.uniform)


def build_searcher(seed: int, *, max_concurrent: int) -> Any:
    """Returns what proposes trials: the same ones for the same seed. Grids come with the space."""
    from ray.tune.search.basic_variant import BasicVariantGenerator

    # numpy's generator takes 32 bits.
    return BasicVariantGenerator(random_state=seed % 2**32, max_concurrent=max_concurrent)


def build_scheduler(search: SweepSection, *, grace_steps: int, total_steps: int) -> Any:
    """Returns what stops trials."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

    if search.scheduler.kind == "fifo":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="step",
        grace_period=grace_steps,
        reduction_factor=search.scheduler.reduction,
        max_t=total_steps,
        # A trial ends by itself at its last step, tested and closed.
        stop_last_trials=False,
    )


def _folder_name(trial: Any) -> str:
    """Returns what Ray calls a trial's folder of its own."""
    return str(trial.trial_id)
