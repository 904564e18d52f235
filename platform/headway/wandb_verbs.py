"""The verbs that talk to W&B: `headway sync`, which imports no torch, and `headway wandb-workspace`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from headway.config.errors import EXIT_DONE, EXIT_TRAINING_FAILED, UserError
from headway.run import RunFolder, find_run, list_runs
from headway.terminal import print_json, print_table, tell
from headway.verbs import Json, Runs, Trust

if TYPE_CHECKING:
    from headway.config.space import Distribution
    from headway.track.sync import Outcome
    from headway.track.wandb_server import WandbServer

_WATCH_EVERY_S = 20.0


def add_wandb_verbs(app: App) -> None:
    """Gives a command line the verbs of this file."""
    app.command(sync)
    app.command(wandb_workspace)


def sync(
    *names: str,
    every_run: Annotated[bool, Parameter(name="--all", negative="")] = False,
    watch: Annotated[bool, Parameter(negative="")] = False,
    runs: Runs = Path("runs"),
    json: Json = False,
) -> int:
    """Upload what W&B's server lacks of runs. It may be repeated, interrupted, and done from a copy of the folder.

    A resumed run goes up as one. Exit code 3: some did not go up.

    Parameters
    ----------
    names
        Ids or paths of runs, or of sweeps: all their trials.
    every_run
        Every run in the folder.
    watch
        Go on until Ctrl-C: runs go up as they end.
    """
    from headway.track.wandb_server import known_server

    if not names and not every_run:
        raise UserError("sync needs a RUN or SWEEP, or --all for every run in --runs")
    if names and every_run:
        raise UserError("--all: is every run; leave the names out, or --all")
    list(_chosen(names, runs))
    server = known_server()
    told: dict[str, Outcome] = {}
    outcomes = _pass(names, runs, server, told, quiet=json)
    while watch:
        time.sleep(_WATCH_EVERY_S)
        _pass(names, runs, server, told, quiet=json)
    if json:
        print_json({"runs": [outcome.as_dict() for outcome in outcomes]})
    else:
        _print(outcomes)
    return EXIT_TRAINING_FAILED if any(outcome.state in ("failed", "running") for outcome in outcomes) else EXIT_DONE


def _pass(
    names: tuple[str, ...], runs: Path, server: WandbServer, told: dict[str, Outcome], *, quiet: bool
) -> list[Outcome]:
    """Uploads once, and says what became of each run that had something to upload; not again what was said last."""
    from headway.track.sync import sync_runs

    def say(outcome: Outcome) -> None:
        worth_it = outcome.state == "failed" or (outcome.state == "uploaded" and not quiet)
        if worth_it and told.get(outcome.run) != outcome:
            tell(f"headway: {outcome.run}: {_told(outcome)}")
        told[outcome.run] = outcome

    return sync_runs(list(_chosen(names, runs)), server, say=say)


def _chosen(names: tuple[str, ...], runs: Path) -> Iterator[RunFolder]:
    """Yields the runs that were named; all without a name.

    Raises:
        UserError: there is no run or sweep of a name.
    """
    if not names:
        yield from sorted(list_runs(runs), key=lambda run: run.id)
    for name in names:
        from headway.sweep.folder import find_sweep, is_sweep

        if is_sweep(Path(name)) or is_sweep(runs / name):
            yield from find_sweep(runs, name).run_folders().values()
        else:
            yield find_run(runs, name)


def _told(outcome: Outcome) -> str:
    note = f" ({outcome.why})" if outcome.why and outcome.state == "uploaded" else ""
    return f"{outcome.rows:,} rows uploaded{note}" if outcome.state == "uploaded" else outcome.why


def _print(outcomes: list[Outcome]) -> None:
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in _STATES}
    print_table(["runs", "state"], [[str(count), state] for state, count in counts.items() if count])


_STATES = ("uploaded", "up to date", "running", "failed")


def wandb_workspace(
    name: str,
    /,
    *overrides: str,
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, Parameter(negative="")] = False,
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Save a workspace and a report on W&B: curves, gradient flow, and for a sweep its axes and what mattered.

    Parameters
    ----------
    name
        A recipe: all runs of its W&B project; or the id of a sweep: its trials.
    overrides
        Changes to the recipe: track.project=school.
    dry_run
        Print what would be sent, and send nothing.
    """
    from headway.track.workspace import rendered, save, subject_of

    tree, space, group = _tree_of(name, overrides, runs, trust)
    entity = os.environ.get("WANDB_ENTITY", "")
    if dry_run:
        print_json(rendered(subject_of(_short(name), tree, space, entity=entity or "ENTITY", group=group)))
        return EXIT_DONE
    from headway.track.wandb_server import NoAnswer, known_server

    server = known_server()
    try:
        subject = subject_of(_short(name), tree, space, entity=entity or server.entity(), group=group)
    except NoAnswer as problem:
        raise UserError(f"W&B: {problem}") from None
    saved = save(subject, server)
    if json:
        print_json({"workspace": saved.workspace, "report": saved.report})
    else:
        print_table(["", ""], [["workspace", saved.workspace], ["report", saved.report]])
    return EXIT_DONE


def _short(name: str) -> str:
    return Path(name).name.removesuffix(".yaml")


def _tree_of(
    name: str, overrides: tuple[str, ...], runs: Path, trust: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, bool], str | None]:
    """Returns a recipe's or a sweep's resolved tree, what it varies (on a logarithmic scale?), and a sweep's group."""
    from headway.config.reading import read_text
    from headway.sweep.folder import find_sweep, is_sweep

    if is_sweep(Path(name)) or is_sweep(runs / name):
        if overrides:
            raise UserError(f"{name} is a sweep, which is as it was; changes are for a recipe")
        found = find_sweep(runs, name)
        path = found.path / "sweep.yaml"
        space = found.section().space
        return read_text(path.read_text(), source=str(path)), _axes(space), found.id
    from headway.recipe import load_recipe

    recipe = load_recipe(name, overrides, trust=trust)
    return recipe.tree(), _axes(recipe.sweep.space) if recipe.sweep else {}, None


def _axes(space: Mapping[str, Distribution]) -> dict[str, bool]:
    return {name: distribution.is_logarithmic for name, distribution in space.items()}
