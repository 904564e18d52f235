"""`headway sweep`: a recipe with a `sweep:` section -> trials -> the best one."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.config.errors import HeadwayError, Stopped, TrainingFailed, UserError
from headway.run import RunFolder
from headway.sweep.result import SweepResult, command_again
from headway.terminal import tell

if TYPE_CHECKING:
    from headway.config.reading import Tree
    from headway.fit import FitResult
    from headway.recipe import Recipe
    from headway.sweep.ledger import Ledger


def sweep(
    recipe: str | Path | Recipe | Tree | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    runs: str | Path = "runs",
    name: str | None = None,
    resume: str | None = None,
    address: str | None = None,
    trust: Collection[str] = (),
    progress: bool = True,
) -> SweepResult:
    """Runs the trials of a recipe's `sweep` section and returns what they came to.

    The same seed proposes the same trials, and each trains the same: to the bit in a process of its own, within
    rounding as a row of an array (`sweep.fuse`). Which of them a scheduler stops depends on the order in which they
    report, which differs where several run at a time.

    Args:
        recipe: a path, the name of one that comes along, a tree or a `Recipe`, with a `sweep` section; None with
            `resume`.
        overrides: changes to it, `["sweep.trials=16"]` or `{"sweep.trials": 16}`.
        runs: the folder of run folders; every trial is a run of its own there.
        name: the sweep's id; made up from the recipe's name and the time when absent.
        resume: id or path of a sweep to go on with: what has ended stays, what had not goes on from its checkpoint.
        address: of a running Ray cluster, such as `auto` or `ray://head:10001`; this machine alone when absent.
        trust: modules outside headway that the recipe may name.
        progress: whether to show a progress line on standard error.

    Raises:
        UserError: the input is wrong; nothing was started.
        TrainingFailed: every trial failed.
        Stopped: a signal ended it; its trials' runs say where they were.
    """
    from headway.sweep.check import check_sweep
    from headway.sweep.ledger import Ledger, create_sweep_folder
    from headway.sweep.resume import Remembered, remember

    started = time.monotonic()
    changes = overrides if isinstance(overrides, Mapping) else list(overrides)
    if resume is not None:
        if recipe is not None or name is not None:
            raise UserError("--resume: the sweep has its recipe and its name; leave RECIPE and --name out")
        remembered = remember(Path(runs), resume, changes, trust=trust)
    elif recipe is None:
        raise UserError("sweep needs a RECIPE, or --resume SWEEP")
    else:
        plan = check_sweep(recipe, changes, trust=trust)
        remembered = Remembered(create_sweep_folder(Path(runs).resolve(), plan, name=name), plan, ())
    folder, plan = remembered.folder, remembered.plan
    if address is not None and address.startswith("ray://"):
        from headway.sweep._client import sweep_there

        return sweep_there(folder, address, say=tell if progress else lambda _: None)
    with folder.owned():
        ledger = Ledger(folder, plan, remembered.past)
        try:
            _search(ledger, progress=progress, address=None if address == "local" else address)
            _refuse_all_failed(ledger)
        except BaseException as error:
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            reason = str(error) if isinstance(error, HeadwayError) else f"{type(error).__name__}: {error}"
            ledger.close("stopped" if stopped else "failed", reason=reason)
            raise
        ledger.close("done")
        _draw(ledger)
        refit = _refit(ledger, progress=progress) if plan.proxy else None
    best = ledger.best
    return SweepResult(
        sweep_id=ledger.folder.id,
        sweep_dir=str(ledger.folder.path),
        metric=plan.search.metric,
        mode=plan.search.mode,
        trials=ledger.trials,
        best=best,
        command=None if best is None else command_again(plan.search, plan.command, best, plan.fixed),
        wall_s=round(time.monotonic() - started, 3),
        refit=None if refit is None else refit.as_dict(),
    )


def _search(ledger: Ledger, *, progress: bool, address: str | None) -> None:
    """Runs the trials.

    Raises:
        Stopped: a signal came.
    """
    from headway.sweep._tune import run_trials
    from headway.sweep.progress import SweepProgress

    line = SweepProgress(ledger) if progress else None
    try:
        on_change, say = (line.update, line.say) if line else (lambda: None, lambda _: None)
        signal_number = run_trials(ledger, on_change=on_change, say=say, address=address)
    finally:
        if line is not None:
            line.close()
    if signal_number is not None:
        counts, best = ledger.counts, ledger.best
        ended = counts.done + counts.stopped + counts.failed
        found = f"; the best so far is {best.run_id}" if best else ""
        message = (
            f"sweep {ledger.folder.id} stopped after {ended} of {counts.total} trials{found}; "
            f"headway sweep --resume {ledger.folder.id} goes on"
        )
        raise Stopped(message, signal_number=signal_number)


def _refit(ledger: Ledger, *, progress: bool) -> FitResult | None:
    """Trains the best settings of a narrow copy at full width, or goes on with that; None where there is no best."""
    from headway.fit import fit

    plan, best, runs = ledger.plan, ledger.best, ledger.folder.path.parent
    if best is None:
        return None
    # As in the search, signals are heard where they can be.
    mine = threading.current_thread() is threading.main_thread()
    run = RunFolder(runs / f"{ledger.folder.id}-full")
    if run.recipe.is_file():
        return fit(resume=str(run.path), runs=runs, trust=plan.trust, own_process=mine, progress=progress)
    changes = {"track.group": ledger.folder.id, **best.config}
    return fit(plan.tree, changes, runs=runs, name=run.id, trust=plan.trust, own_process=mine, progress=progress)


def _draw(ledger: Ledger) -> None:
    """Draws the metric over each hyperparameter; a sweep that has ended is not failed for its pictures."""
    from headway.sweep._aside import draw_aside

    problem = draw_aside(ledger.folder.path)
    if problem is not None:
        tell(f"headway: {ledger.folder.id}: its plots cannot be written ({problem})")


def _refuse_all_failed(ledger: Ledger) -> None:
    trials = ledger.trials
    if trials and all(trial.status == "failed" for trial in trials):
        raise TrainingFailed(f"all {len(trials)} trials failed; the first, {trials[0].run_id}: {trials[0].reason}")
