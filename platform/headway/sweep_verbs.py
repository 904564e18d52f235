"""The verbs that read a sweep's folder: `headway sweeps` and what comes after it. None imports torch or Ray."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE, UserError
from headway.terminal import print_json, print_table, tell
from headway.verbs import Json, Runs

if TYPE_CHECKING:
    from headway.sweep.folder import SweepFolder

sweeps_app = App(name="sweeps", help="Sweeps: what there is, what they found, and how to stop one.")


@sweeps_app.default
def list_all(*, runs: Runs = Path("runs"), json: Json = False) -> int:
    """List the sweeps in a folder, newest first.

    See one of them with `headway sweeps show SWEEP`.
    """
    from headway.sweep.folder import list_sweeps

    found = list_sweeps(runs)
    if json:
        print_json({"sweeps": [{"sweep": sweep.id, **sweep.status(), "state": sweep.state()} for sweep in found]})
        return EXIT_DONE
    columns = ["sweep", "status", "done", "stopped", "failed", "of", "best", "recipe", "age"]
    print_table(columns, [_line(sweep) for sweep in found])
    return EXIT_DONE


@sweeps_app.command
def show(
    sweep: str,
    /,
    *,
    plots: Annotated[bool, Parameter(negative="")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Show a sweep's trials, best first, what mattered, and the command that trains the best again.

    Parameters
    ----------
    sweep
        Id or path of a sweep.
    plots
        Also draw the metric over each hyperparameter, into plots/ of the sweep's folder.
    """
    from headway.sweep.folder import find_sweep

    found = find_sweep(runs, sweep)
    for problem in found.problems():
        tell(f"headway: {problem}")
    result, status = found.result(), found.status()
    if plots:
        _draw(found)
    if json:
        more = {"status": found.state(), "counts": status.get("trials"), **result.importance().as_dict()}
        print_json({**result.as_dict(), **more})
        return EXIT_DONE
    state = [found.id, found.state(), _counts(status), str(status.get("recipe", "?")), _age(found.started)]
    print_table(["sweep", "status", "trials", "recipe", "age"], [state])
    result.print_table(num_shown=None)
    return EXIT_DONE


@sweeps_app.command
def stop(sweep: str, /, *, runs: Runs = Path("runs")) -> int:
    """Stop a sweep that runs on this machine; its trials save where they are.

    Parameters
    ----------
    sweep
        Id or path of a sweep.
    """
    from headway.sweep.ending import stop_sweep
    from headway.sweep.folder import find_sweep

    found = find_sweep(runs, sweep)
    stop_sweep(found)
    tell(f"{found.id}: {found.state()}, {_counts(found.status())}")
    return EXIT_DONE


@sweeps_app.command
def delete(
    sweep: str,
    /,
    *,
    runs: Runs = Path("runs"),
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
) -> int:
    """Delete a sweep's folder and the run folders of its trials.

    Parameters
    ----------
    sweep
        Id or path of a sweep.
    """
    from headway.sweep.ending import check_deletable, delete_sweep
    from headway.sweep.folder import find_sweep

    found = find_sweep(runs, sweep)
    check_deletable(found)
    what = f"{found.path} and the {len(found.run_folders())} runs of its trials"
    if not (yes or _agrees(f"Delete {what}? [y/N] ")):
        tell(f"{found.id}: kept")
        return EXIT_DONE
    delete_sweep(found)
    tell(f"deleted {what}")
    return EXIT_DONE


@sweeps_app.command
def export(
    sweep: str,
    /,
    *,
    to: Literal["csv", "parquet"],
    out: Path | None = None,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Write a sweep's trials as a table: what each sampled, its metric, and its run's final metrics.

    Parameters
    ----------
    sweep
        Id or path of a sweep.
    to
        csv or parquet.
    out
        The file; trials.csv or trials.parquet of the sweep's folder when absent.
    """
    from headway.sweep.export import export_sweep
    from headway.sweep.folder import find_sweep

    found = find_sweep(runs, sweep)
    path, num_trials = export_sweep(found, to, out)
    if json:
        print_json({"sweep_id": found.id, "file": str(path), "trials": num_trials})
    else:
        print_table(["", ""], [["sweep", found.id], ["file", str(path)], ["rows", f"{num_trials}, one a trial"]])
    return EXIT_DONE


def _draw(sweep: SweepFolder) -> None:
    from headway.sweep.plots import write_plots

    try:
        written = write_plots(sweep)
    except OSError as error:
        raise UserError(
            f"{sweep.path}/plots: cannot be written ({error.strerror or error}); check whose it is"
        ) from None
    where = f"{len(written)} plots in {sweep.path}/plots" if written else "no plots: no hyperparameter took two values"
    tell(f"{sweep.id}: {where}")


def _agrees(question: str) -> bool:
    """Asks on a terminal.

    Raises:
        UserError: there is nobody to ask.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError("--yes: is needed where nobody can be asked; what is deleted does not come back")
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _line(sweep: SweepFolder) -> list[str]:
    from headway.sweep.result import shown

    status = sweep.status()
    counts, best = status.get("trials") or {}, status.get("best") or {}
    value = f"{status.get('metric')} {shown(best.get('value'))} ({best.get('run_id')})" if best else ""
    numbers = [str(counts.get(name, "")) for name in ("done", "stopped", "failed", "total")]
    return [sweep.id, sweep.state(), *numbers, value, str(status.get("recipe", "")), _age(sweep.started)]


def _counts(status: dict[str, Any]) -> str:
    counts = status.get("trials") or {}
    return "  ".join(f"{number} {name}" for name, number in counts.items() if number and name != "total") or "none"


def _age(started: float) -> str:
    """Returns how long ago a time was, in the largest unit that fits."""
    seconds = max(0.0, time.time() - started)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
