"""The verbs. `--help` imports neither torch nor anything that does: a verb imports what it needs when it runs.

Exit codes: 0 done; 1 our bug, with a traceback; 2 the input is wrong; 3 training failed; 130 and
143 stopped by SIGINT and SIGTERM.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from cyclopts import App, CycloptsError, Parameter

from headway import __version__
from headway.config.errors import EXIT_BUG, EXIT_DONE, EXIT_USER_ERROR, HeadwayError, UserError
from headway.dash_verbs import add_dash
from headway.jobs_verbs import jobs_app, submit_app
from headway.sweep_verbs import sweeps_app
from headway.terminal import print_json, print_table, tell
from headway.verbs import Json, Runs, Trust, add_verbs
from headway.wandb_verbs import add_wandb_verbs
from headway.watch_verbs import add_watch_verbs

app = App(
    name="headway",
    version=__version__,
    help="Trains any neural network from a one-page recipe: laptop, GPU or cluster, the same command.",
)
data_app = App(name="data", help="Data sets: what is here, and how to get what is not.")
app.command(data_app)
app.command(sweeps_app)
app.command(submit_app)
app.command(jobs_app)
add_dash(app)
add_verbs(app)
add_watch_verbs(app)
add_wandb_verbs(app)
app.register_install_completion_command()

Overrides = Annotated[tuple[str, ...], Parameter(help="Changes to the recipe: optim.lr=3e-4 trainer.devices=2.")]


@app.command
def fit(
    recipe: str | None = None,
    /,
    *overrides: str,
    runs: Runs = Path("runs"),
    name: str | None = None,
    resume: str | None = None,
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Train a recipe.

    Parameters
    ----------
    recipe
        Path of a recipe, or the name of one that comes along (see `headway recipes`).
    overrides
        Changes to the recipe: optim.lr=3e-4 trainer.devices=2 strategy=ddp.
    name
        The run's id; made up when absent.
    resume
        Id or path of a run to go on with; RECIPE may be left out. auto goes on with --name where it is there.
    """
    from headway.recipe import check_recipe_names

    # A change in RECIPE's place: `headway fit --resume RUN trainer.max_steps=50`.
    if recipe is not None and "=" in recipe and not os.path.exists(recipe):  # noqa: PTH110 - False for any text
        overrides = (recipe, *overrides)
        recipe = None
    if recipe is not None:
        check_recipe_names(recipe, overrides, trust=trust)
    from headway.supervise.signals import StopFlag, stop_on_signals

    with stop_on_signals(StopFlag()):
        from headway.fit import fit as run_fit

        result = run_fit(
            recipe, overrides, runs=runs, name=name, resume=resume, trust=trust, own_process=True, argv=sys.argv
        )
    if _is_rank():
        return EXIT_DONE
    if json:
        print_json(result.as_dict())
    else:
        _print_result(result.as_dict())
    return EXIT_DONE


@app.command
def sweep(
    recipe: str | None = None,
    /,
    *overrides: str,
    trials: int | None = None,
    resume: str | None = None,
    address: str | None = None,
    runs: Runs = Path("runs"),
    name: str | None = None,
    form: Annotated[Literal["wandb-sweep"] | None, Parameter(name="--as")] = None,
    out: Path | None = None,
    trust: Trust = (),
    json: Json = False,
) -> int:
    """Search a recipe's `sweep.space` with Ray Tune; every trial is a run.

    Parameters
    ----------
    recipe
        Path of a recipe with a `sweep:` section, or the name of one that comes along. Left out with --resume.
    overrides
        Changes to the recipe: sweep.scheduler=asha trainer.max_epochs=5.
    trials
        How many trials, in place of the recipe's sweep.trials.
    resume
        Go on with this sweep: what has ended stays, what had not goes on from its newest checkpoint. auto goes on
        with --name where it is there, and starts it where it is not.
    address
        A running Ray cluster: auto, or ray://HOST:10001. local, this machine alone, when absent.
    name
        The sweep's id; made up when absent.
    form
        wandb-sweep prints the sweep as W&B defines them, for `wandb agent`, and runs nothing.
    out
        With --as, the file to write instead.
    """
    from headway.recipe import check_recipe_names

    changes = [*overrides, *([] if trials is None else [f"sweep.trials={trials}"])]
    if resume is not None and recipe is not None and "=" in recipe:
        # With --resume there is no RECIPE, and what stands in its place is a change.
        changes = [recipe, *changes]
        recipe = None
    if recipe is not None:
        check_recipe_names(recipe, changes, trust=trust)
    if resume == "auto":
        # What a job says each time it starts: its sweep goes on once it has begun.
        recipe, resume, name = _begun_sweep(recipe, runs, name)
    if form is not None:
        if recipe is None:
            raise UserError("--as: needs the RECIPE to write a definition of")
        return _print_wandb_sweep(recipe, tuple(changes), runs=runs, name=name, out=out, trust=trust, as_json=json)
    if out is not None:
        raise UserError("--out: is for the definition that --as wandb-sweep writes; a sweep goes to --runs and --name")
    from headway.sweep import sweep as run_sweep
    from headway.sweep._aside import measure_aside

    result = run_sweep(recipe, changes, runs=runs, name=name, resume=resume, address=address, trust=trust)
    if json:
        print_json(result.as_dict())
    else:
        result.print_table(importance=measure_aside(Path(result.sweep_dir)))
        _tell_what_wandb_lacks(result.sweep_dir, [trial.run_dir for trial in result.trials])
    return EXIT_DONE


def _tell_what_wandb_lacks(sweep_dir: str, run_dirs: list[str]) -> None:
    """Says of how many trials W&B's server has not all, why, and how to upload them: they say nothing themselves."""
    from headway.run import RunFolder

    states = [RunFolder(Path(folder)).status().get("wandb") or {} for folder in run_dirs]
    lacking = [state for state in states if state.get("mode") == "offline" or "problem" in state]
    if lacking:
        reasons = [why for state in lacking if (why := state.get("problem") or state.get("why"))]
        because = f" ({reasons[0]})" if reasons else ""
        trials = f"{len(lacking)} of {len(states)} trials are not on W&B{because}"
        tell(f"headway: {trials}; to upload: headway sync {sweep_dir}")


def _begun_sweep(recipe: str | None, runs: Path, name: str | None) -> tuple[str | None, str | None, str | None]:
    """Returns RECIPE, --resume and --name as a person would give them: the sweep of that name, where there is one."""
    from headway.sweep.folder import is_sweep

    if name is None:
        raise UserError("--resume: auto goes on with the sweep that --name names; give one")
    return (None, name, None) if is_sweep(runs / name) else (recipe, None, name)


def _print_wandb_sweep(
    recipe: str,
    overrides: tuple[str, ...],
    *,
    runs: Path,
    name: str | None,
    out: Path | None,
    trust: tuple[str, ...],
    as_json: bool,
) -> int:
    from headway.sweep.check import check_sweep
    from headway.sweep.wandb_definition import as_text, wandb_definition, write_definition

    plan = check_sweep(recipe, overrides, trust=trust)
    definition = wandb_definition(plan, name=name, runs=runs)
    text = as_text(definition, plan, file=str(out or "FILE"))
    if out is not None:
        write_definition(text, out)
        tell(f"{out}: the sweep's definition; `wandb sweep {out}` next")
    if as_json:
        print_json(definition)
    elif out is None:
        sys.stdout.write(text)
    return EXIT_DONE


@app.command
def recipes() -> int:
    """List the recipes that come along."""
    from headway.config.shipped import shipped_recipes

    print_table(["recipe", "what it does"], [[name, _headline(path)] for name, path in shipped_recipes().items()])
    return EXIT_DONE


@app.command
def schema() -> int:
    """Print the JSON Schema of a recipe, for an editor's completion."""
    from headway.recipe import recipe_schema

    print(json.dumps(recipe_schema(), indent=2))  # noqa: T201 - the command's output
    return EXIT_DONE


@app.command(name="runs")
def list_all_runs(*, runs: Runs = Path("runs"), json: Json = False) -> int:
    """List the runs in a folder, newest first."""
    from headway.run import list_runs

    found = [{"run": run.id, **run.status()} for run in list_runs(runs)]
    if json:
        print_json({"runs": found})
        return EXIT_DONE
    print_table(
        ["run", "status", "step", "headline", "reason"],
        [
            [
                str(run["run"]),
                str(run.get("state", "?")),
                str(run.get("step", "")),
                _headline_metric(run),
                str(run.get("reason", "")),
            ]
            for run in found
        ],
    )
    return EXIT_DONE


@app.command
def doctor() -> int:
    """Say what works on this machine, what does not, and what to do about it; exit code 2 where nothing can train."""
    from headway.doctor import diagnose, is_fit

    checks = diagnose()
    print_table(
        ["", "part", "found", "what to do"], [[check.mark, check.part, check.found, check.remedy] for check in checks]
    )
    return EXIT_DONE if is_fit(checks) else EXIT_USER_ERROR


@app.command
def demo(*, runs: Runs = Path("runs")) -> int:
    """Train a GPT and a convnet on two processes, once under DeepSpeed, and sweep an MLP: a few minutes."""
    from headway.demo import demo as run_demo

    run_demo(runs)
    return EXIT_DONE


@data_app.default
def list_data(*, json: Json = False) -> int:
    """List the data sets that headway knows, and whether they are here.

    Get one that is not with `headway data fetch NAME`.
    """
    from headway.data._store import list_datasets

    found = [asdict(status) for status in list_datasets()]
    if json:
        print_json({"data": found})
        return EXIT_DONE
    print_table(
        ["data", "here", "what it is", "licence", "where"],
        [
            [item["name"], "yes" if item["ready"] else "no", item["summary"], item["licence"], str(item["place"])]
            for item in found
        ],
    )
    return EXIT_DONE


@data_app.command
def fetch(name: str, /) -> int:
    """Download a data set and check it.

    Parameters
    ----------
    name
        One of those that `headway data` lists.
    """
    from headway.data._store import fetch as fetch_data

    tell(f"{name} is in {fetch_data(name, report=tell)}")
    return EXIT_DONE


def main() -> NoReturn:
    """Runs the command line and exits."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a command line and returns its exit code."""
    if any(argument.partition("=")[0] == "--trust" for argument in arguments) and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # a module of the user's own usually lies where they stand
    try:
        result: Any = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else EXIT_DONE
    except HeadwayError as error:
        # The process that started this rank says it; the rank's log has it.
        if not _is_silent_rank():
            tell(f"headway: {error}")
        return error.exit_code
    except CycloptsError as error:
        tell(f"headway: {' '.join(str(error).split())} (see headway --help)")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        tell("headway: stopped")
        return 130
    except BrokenPipeError:
        return EXIT_DONE
    except Exception:
        import traceback

        if os.environ.get("RANK", "0") == "0":
            traceback.print_exc()
            tell("headway: this is a bug of headway's, not yours; please report it with the lines above")
        return EXIT_BUG


def _is_rank() -> bool:
    return "RANK" in os.environ


def _is_silent_rank() -> bool:
    return _is_rank() and ("HEADWAY_RUN_DIR" in os.environ or os.environ["RANK"] != "0")


def _print_result(result: dict[str, Any]) -> None:
    metrics = "  ".join(f"{name} {value:.4g}" for name, value in result["metrics"].items())
    rows = [
        ["run", result["run_id"]],
        ["folder", result["run_dir"]],
        ["status", f"{result['status']} at step {result['step']} after {result['wall_s']:.1f} s"],
        ["metrics", metrics],
    ]
    rows += _wandb_row(result)
    print_table(["", ""], rows)


def _wandb_row(result: dict[str, Any]) -> list[list[str]]:
    """Returns a row on how to upload the run, where W&B's server does not have it all."""
    from headway.run import RunFolder

    folder = Path(result["run_dir"])
    state = RunFolder(folder).status().get("wandb") or {}
    if state.get("mode") != "offline" and "problem" not in state:
        return []
    why = state.get("problem") or state.get("why")
    return [["W&B", f"{state['mode']}{f' ({why})' if why else ''}; to upload: headway sync {folder}"]]


def _headline(path: Path) -> str:
    """Returns the first comment line of a recipe."""
    first = path.read_text().split("\n", 1)[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def _headline_metric(status: dict[str, Any]) -> str:
    final, best = status.get("final") or {}, status.get("best") or {}
    for name in ("test/accuracy", "test/loss"):
        if name in final:
            return f"{name} {final[name]:.4g}"
    return f"{best['metric']} {best['value']:.4g}" if best else ""
