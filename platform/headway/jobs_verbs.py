"""`headway submit` and `headway jobs`: what is sent to a cluster, and what came of it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE, UserError
from headway.jobs import board, profiles
from headway.jobs.records import JobRecord, list_records
from headway.launch.base import ENDED
from headway.terminal import print_json, print_table, tell
from headway.verbs import Json, Runs, Trust

submit_app = App(name="submit", help="Send a fit or a sweep to a cluster: the same recipe, and --on PROFILE.")
jobs_app = App(name="jobs", help="Jobs: where they stand, what they print, and how to end or repeat them.")

On = Annotated[str, Parameter(help="Profile: a file, or a name (see `headway submit profiles`).")]
With = Annotated[tuple[str, ...], Parameter(name="--with", help="Change to the profile: nodes=4 time_limit=2h.")]
DryRun = Annotated[bool, Parameter(negative="", help="Print what would be sent, and send nothing.")]
Insecure = Annotated[bool, Parameter(negative="", help="Send even to a Ray cluster that asks for no token.")]
Group = Annotated[str | None, Parameter(help="Name for jobs that belong together; cancel, logs and wait take it.")]
_REFRESH_S = 2.0


@submit_app.command(name="fit")
def submit_fit(
    recipe: str,
    /,
    *overrides: str,
    on: On,
    changes: With = (),
    seeds: str = "",
    runs: Runs = Path("runs"),
    name: str | None = None,
    group: Group = None,
    insecure: Insecure = False,
    dry_run: DryRun = False,
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Submit a training run.

    Parameters
    ----------
    recipe
        Path of a recipe, or the name of one that comes along.
    overrides
        Changes to the recipe: optim.lr=3e-4.
    seeds
        One run for each: 0,1,2 or 0-9; an array, where the launcher has such.
    name
        The run's id; made up when absent.
    """
    changes = (*changes, "insecure=true") if insecure else changes
    return _submit("fit", recipe, overrides, on, changes, seeds, runs, name, group, dry_run, trust, json)


@submit_app.command(name="sweep")
def submit_sweep(
    recipe: str,
    /,
    *overrides: str,
    on: On,
    changes: With = (),
    runs: Runs = Path("runs"),
    name: str | None = None,
    group: Group = None,
    insecure: Insecure = False,
    dry_run: DryRun = False,
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Submit a sweep; several nodes of the profile search together.

    Parameters
    ----------
    recipe
        Path of a recipe with a `sweep:` section, or the name of one that comes along.
    overrides
        Changes to the recipe: sweep.trials=64.
    name
        The sweep's id; made up when absent.
    """
    changes = (*changes, "insecure=true") if insecure else changes
    return _submit("sweep", recipe, overrides, on, changes, "", runs, name, group, dry_run, trust, json)


@submit_app.command(name="profiles")
def list_profiles() -> int:
    """List the profiles: those that come along, and yours in ./cluster and ~/.config/headway/cluster."""
    rows = [[name, str(path), _headline(path)] for name, path in profiles.known_profiles().items()]
    print_table(["profile", "file", "what it is"], rows)
    return EXIT_DONE


def _submit(
    verb: Any,
    recipe: str,
    overrides: tuple[str, ...],
    on: str,
    changes: tuple[str, ...],
    seeds: str,
    runs: Path,
    name: str | None,
    group: str | None,
    dry_run: bool,
    trust: tuple[str, ...],
    as_json: bool,
) -> int:
    from headway.recipe import check_recipe_names

    # What is wrong with a name or the profile is said at once; checking the rest imports torch.
    profile = profiles.load_profile(on, changes)
    numbers = _parse_seeds(seeds)
    check_recipe_names(recipe, overrides, trust=trust)
    from headway.jobs.submit import prepare_submission, submit

    submission = prepare_submission(
        verb,
        recipe,
        overrides,
        profile=profile,
        profile_name=on,
        runs=runs,
        name=name,
        group=group,
        seeds=numbers,
        trust=trust,
    )
    if dry_run:
        for file, text in submission.rendering.files.items():
            tell(f"# {file}")
            sys.stdout.write(text)
        tell(f"# would be sent with: {' '.join(submission.rendering.command)}")
        return EXIT_DONE
    record = submit(submission)
    if as_json:
        print_json({"job": record.job.id, "native_id": record.native_id(), "runs": list(record.job.names)})
        return EXIT_DONE
    tell(f"submitted {record.job.id} ({profile.kind} {record.native_id()}); `headway jobs` says where it stands")
    return EXIT_DONE


def _parse_seeds(text: str) -> list[int]:
    """Returns the seeds in `0,1,4-7`."""
    seeds: list[int] = []
    try:
        for part in filter(None, text.split(",")):
            first, dash, last = part.partition("-")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise UserError(f"--seeds: {text!r} should be whole numbers such as 0,1,2 or 0-9") from None
    if len(seeds) > 1000:
        raise UserError(f"--seeds: {len(seeds):,} runs; an array has at most 1,000")
    return seeds


@jobs_app.default
@jobs_app.command(name="status")
def list_jobs(
    *names: str,
    watch: Annotated[bool, Parameter(negative="")] = False,
    all: Annotated[bool, Parameter(negative="")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """List jobs over all launchers, newest first.

    Parameters
    ----------
    names
        Jobs, runs or groups; every job that runs or ended in the last week when absent.
    watch
        Show the table until Ctrl-C, and keep it up to date.
    all
        Also what ended long ago.
    """
    while True:
        records = board.select(runs, names) if names else _recent(list_records(runs), all)
        tasks = board.look(records)
        if json:
            print_json({"jobs": [task.as_dict() for task in tasks]})
            return EXIT_DONE
        if watch and sys.stdout.isatty():
            sys.stdout.write("\x1b[2J\x1b[H")
        print_table(
            ["job", "state", "why", "where", "since", "progress", "metric", "requeued"], [_line(task) for task in tasks]
        )
        if len(tasks) > 1:
            tell(_summary(tasks))
        if not watch:
            return EXIT_DONE
        time.sleep(_REFRESH_S)


@jobs_app.command
def logs(
    name: str,
    /,
    *,
    follow: Annotated[bool, Parameter(negative="")] = False,
    rank: int | None = None,
    runs: Runs = Path("runs"),
) -> int:
    """Print what a job printed.

    Parameters
    ----------
    name
        A job, a run or a group; of a group or an array, one after the other.
    follow
        Go on until the job has ended.
    rank
        The log of one rank of the run, in place of the job's.
    """
    tasks = board.look(board.select(runs, [name]))
    named = [task for task in tasks if name in (task.id, task.run.id)] or tasks
    for task in named:
        if len(named) > 1:
            tell(f"# {task.id}")
        for text in _log(task, follow, rank):
            sys.stdout.write(text)
            sys.stdout.flush()
    return EXIT_DONE


def _log(task: board.Task, follow: bool, rank: int | None) -> Any:
    if rank is not None:
        from headway.launch._logs import read_log

        def ended() -> bool:
            return board.look([task.record])[task.index].status.state in ENDED

        return read_log(task.run.log(rank), follow=follow, ended=ended)
    sent = task.record.sent()
    if sent is None:
        raise UserError(f"{task.id}: {task.status.state} ({task.status.reason}); there is no log")
    return task.record.profile.log(sent, task=task.index, follow=follow)


@jobs_app.command
def cancel(*names: str, runs: Runs = Path("runs")) -> int:
    """End jobs; what runs saves where it is first.

    Parameters
    ----------
    names
        Jobs, runs or groups.
    """
    if not names:
        raise UserError("cancel needs a job, a run or a group; `headway jobs` lists them")
    records = board.select(runs, names)
    cancelled = board.cancel(records)
    ended = len(records) - len(cancelled)
    tell(f"cancelled {len(cancelled)}" + (f"; {ended} had ended" if ended else ""))
    return EXIT_DONE


@jobs_app.command
def wait(*names: str, runs: Runs = Path("runs"), json: Json = False) -> int:
    """Wait until jobs have ended; the exit code is theirs: of the first that did not go well.

    Parameters
    ----------
    names
        Jobs, runs or groups.
    """
    if not names:
        raise UserError("wait needs a job, a run or a group; `headway jobs` lists them")
    said: dict[str, str] = {}
    tasks: list[board.Task] = []
    for tasks in board.wait(board.select(runs, names), every_s=_REFRESH_S):
        for task in tasks:
            now = f"{task.status.state}{f' ({task.status.reason})' if task.status.reason else ''}"
            if said.get(task.id) != now:
                said[task.id] = now
                tell(f"{task.id}: {now}")
    if json:
        print_json({"jobs": [task.as_dict() for task in tasks]})
    return board.exit_code(tasks)


@jobs_app.command
def retry(*names: str, runs: Runs = Path("runs")) -> int:
    """Submit jobs that have ended once more; their runs go on where they were.

    Parameters
    ----------
    names
        Jobs, runs or groups; of a group, those that did not go well.
    """
    if not names:
        raise UserError("retry needs a job, a run or a group; `headway jobs` lists them")
    records = board.select(runs, names)
    tasks = board.look(records)
    from headway.jobs.submit import retry as submit_again

    unwell = {task.record.job.id for task in tasks if task.status.state in ENDED - {"done"}}
    for record in records:
        if any(task.record.job.id == record.job.id and task.status.state not in ENDED for task in tasks):
            raise UserError(f"{record.job.id}: has not ended; cancel it first, or wait for it")
    for record in records:
        if record.job.id in unwell and record.retried_as() is None:
            again = submit_again(record)
            tell(f"{record.job.id}: goes on as {again.job.id} ({again.profile.kind} {again.native_id()})")
        else:
            reason = "all of it is done" if record.job.id not in unwell else f"goes on as {record.retried_as()} already"
            tell(f"{record.job.id}: {reason}")
    return EXIT_DONE


def _recent(records: list[JobRecord], everything: bool) -> list[JobRecord]:
    week_ago = time.time() - 7 * 86400
    return [
        record
        for record in records
        if everything or record.submitted > week_ago or any(seen.state not in ENDED for seen in record.seen())
    ]


def _line(task: board.Task) -> list[str]:
    whole = task.as_dict()
    since = whole["since"] or whole["submitted"]
    return [
        str(whole["job"]),
        str(whole["state"]),
        str(whole["reason"]),
        f"{whole['profile']} {','.join(whole['where'])}".strip(),
        _ago(since),
        task.progress(),
        task.metric(),
        str(whole["requeues"] or ""),
    ]


def _summary(tasks: list[board.Task]) -> str:
    """Returns how many tasks are in each state: what a person wants to know of a hundred."""
    counts = Counter(task.status.state for task in tasks)
    return f"{len(tasks)} jobs: {', '.join(f'{count} {state}' for state, count in counts.most_common())}"


def _ago(moment: float) -> str:
    past_s = max(0.0, time.time() - moment)
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if past_s >= 2 * length_s:
            return f"{past_s / length_s:.0f} {unit}"
    return f"{past_s:.0f} s"


def _headline(path: Path) -> str:
    """Returns the first comment line of a profile."""
    first = path.read_text().split("\n", 1)[0]
    return first.lstrip("# ") if first.startswith("#") else ""
