"""`headway fit`: recipe -> trained model. The whole launch, whatever the number of processes.

One process: inline, here. Started as a rank (RANK is set: torchrun, srun, Ray): this process is
that rank. Otherwise: torch's elastic agent starts this node's ranks, each of them this same command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headway.config.contracts import Data, Place
from headway.config.errors import HeadwayError, Stopped, TrainingFailed, UserError
from headway.prepare import prepare
from headway.recipe import Recipe, load_recipe
from headway.run import JOB_VARIABLE, RunFolder, check_run_name, create_run, find_run, make_run_folder, replace_file
from headway.supervise.logs import rank_log
from headway.supervise.orphans import end_with_parent
from headway.supervise.place import choose_device, devices_per_node, rank_place
from headway.supervise.signals import StopFlag, stop_on_signals

if TYPE_CHECKING:
    from headway.config.reading import Tree
    from headway.track.recorder import OnReport

RUN_FOLDER_VARIABLE = "HEADWAY_RUN_DIR"
AUTO = "auto"
"""`--resume auto`: what a requeued job says, as it did the first time."""
_MAY_CHANGE_ON_RESUME = (
    "strategy", "track", "trainer.accelerator", "trainer.checkpoint_every", "trainer.compile", "trainer.devices",
    "trainer.early_stopping", "trainer.eval_batch_size", "trainer.max_epochs", "trainer.max_steps",
    "trainer.micro_batch", "trainer.nodes", "trainer.save_timeout_s", "trainer.steps_per_call", "trainer.threads",
    "trainer.timeout_s", "trainer.validate_every",
)  # fmt: skip


@dataclass(frozen=True)
class FitResult:
    """How a fit ended."""

    run_id: str
    run_dir: str
    status: str
    metrics: dict[str, float]
    """Last training loss, the best validation, the test."""
    step: int
    wall_s: float

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return asdict(self)


def fit(
    recipe: str | Path | Recipe | Tree | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    runs: str | Path = "runs",
    name: str | None = None,
    resume: str | None = None,
    trust: Collection[str] = (),
    on_report: OnReport | None = None,
    own_process: bool = False,
    argv: list[str] | None = None,
    progress: bool = True,
    save_every_s: float | None = None,
) -> FitResult:
    """Trains a recipe and returns how it ended.

    Args:
        recipe: a path, the name of one that comes along, a tree or a `Recipe`; None with `resume`.
        overrides: changes to it, `["optim.lr=0.1"]` or `{"optim.lr": 0.1}`.
        runs: the folder of run folders.
        name: the run's id; made up from the recipe's name and the time when absent.
        resume: id or path of a run to go on with; `auto` goes on with `name` where it is there, else starts it.
        trust: modules outside headway that the recipe may name.
        on_report: called with the metrics of each validation, False stops; for one process, or as a rank, where all
            ranks give one and the first rank's is asked.
        own_process: whether the process is headway's, so that signals may be handled.
        argv: the command line, for the manifest.
        progress: whether to show a progress line on standard error.
        save_every_s: seconds of training after which the position is saved, besides at validations.

    Raises:
        UserError: the input is wrong; nothing was started.
        TrainingFailed: training started and could not go on.
        Stopped: a signal ended it; the position is saved.
    """
    started = time.monotonic()
    changes = overrides if isinstance(overrides, Mapping) else list(overrides)
    argv = sys.argv if argv is None else argv
    flag = StopFlag()
    with stop_on_signals(flag) if own_process else nullcontext(flag):
        existing = _run_to_resume(Path(runs), name, resume)
        launch = _Launch(Path(runs), name, existing, tuple(trust), argv, flag, on_report, progress, save_every_s)
        if "RANK" in os.environ:
            run = _fit_as_rank(recipe, changes, launch)
        else:
            run = _fit_on_node(_recipe_of(recipe, changes, launch), launch)
    status = run.status()
    return FitResult(
        run_id=run.id,
        run_dir=str(run.path),
        status=str(status.get("state", "unknown")),
        metrics=status.get("final", {}),
        step=int(status.get("step", 0)),
        wall_s=round(time.monotonic() - started, 3),
    )


@dataclass(frozen=True)
class _Launch:
    """What a fit of one node is asked besides its recipe."""

    runs: Path
    name: str | None
    existing: RunFolder | None
    """A run to go on with."""
    trust: tuple[str, ...]
    argv: list[str]
    flag: StopFlag
    on_report: OnReport | None
    progress: bool
    save_every_s: float | None = None


def fit_trial(
    recipe: Recipe,
    run: RunFolder,
    *,
    trust: Collection[str],
    on_report: OnReport,
    argv: list[str],
    save_every_s: float,
) -> None:
    """Trains a trial of a sweep in this process, into its run folder; goes on where there is a checkpoint in it.

    What may have changed since is the sweep's to know.

    Args:
        recipe: what to train.
        run: the trial's folder, made by `make_run_folder`.
        trust: modules outside headway that the recipe may name.
        on_report: called with the metrics of each validation; False stops.
        argv: the command line, for the manifest.
        save_every_s: seconds of training after which the position is saved, besides at validations.

    Raises:
        HeadwayError: as `fit` does.
    """
    launch = _Launch(run.path.parent, run.id, run, tuple(trust), argv, StopFlag(), on_report, False, save_every_s)
    _fit_on_node(recipe, launch)


def _fit_on_node(recipe: Recipe, launch: _Launch) -> RunFolder:
    """Trains inline, or starts this node's ranks."""
    from headway.track.weights_and_biases import check_mode

    trainer, existing = recipe.trainer, launch.existing
    device = choose_device(trainer)
    ranks = devices_per_node(trainer, device, single=recipe.strategy.kind == "single")
    place = Place(0, ranks * trainer.nodes, 0, ranks, device)
    if launch.on_report is not None and place.world_size > 1:
        raise UserError("on_report: hears of one process only; set trainer.devices=1")
    data = prepare(recipe, place, restored=existing is not None)
    if existing is not None and existing.status().get("state") == "done" and not _has_more(recipe, existing, data):
        return existing
    check_mode(recipe.track.wandb)
    run = existing or _new_run(recipe, launch.runs, launch.name)
    if place.world_size == 1:
        _train(recipe, run, place, launch, data)
        return run
    _run_ranks(recipe, run, ranks, launch)
    return run


def _has_more(recipe: Recipe, run: RunFolder, data: Data) -> bool:
    """Returns whether a finished run's recipe has been given more steps."""
    return recipe.trainer.total_steps(recipe.trainer.batches(len(data.train))) > int(run.status().get("step", 0))


def _new_run(recipe: Recipe, runs: Path, name: str | None) -> RunFolder:
    if recipe.trainer.nodes == 1:
        run = create_run(runs, recipe.name, name=name)
    else:
        # Every node runs this line: they share one folder, whose name they must agree on.
        job = os.environ.get(JOB_VARIABLE) or os.environ.get("SLURM_JOB_ID")
        if name is None and job is None:
            raise UserError("trainer.nodes: several nodes write one run; give every node the same --name")
        run = RunFolder(runs / (name or f"{recipe.name}-{job}"))
        (run.path / "logs").mkdir(parents=True, exist_ok=True)
        (run.path / "checkpoints").mkdir(exist_ok=True)
    replace_file(run.recipe, recipe.yaml())
    run.update_status(state="created", recipe=recipe.name)
    return run


def _run_to_resume(runs: Path, name: str | None, resume: str | None) -> RunFolder | None:
    """Returns the run to go on with.

    Raises:
        UserError: there is none, or `auto` has no name to look for.
    """
    if resume != AUTO:
        return find_run(runs, resume) if resume else None
    if name is None:
        raise UserError("--resume: auto goes on with the run that --name names; give one")
    check_run_name(name)
    try:
        # Made here where it is not there: every node of a job then does the same, whichever comes first.
        return make_run_folder(runs / name)
    except OSError as error:
        raise UserError(f"--runs: {runs} cannot be written ({error.strerror}); choose another folder") from None


def _recipe_of(
    recipe: str | Path | Recipe | Tree | None, changes: list[str] | Mapping[str, Any], launch: _Launch
) -> Recipe:
    """Returns the recipe that was asked for; of a run to go on with, its own.

    Raises:
        UserError: no recipe, another one than the run's, or a change that would make it another experiment.
    """
    run = launch.existing
    if run is not None and run.recipe.is_file():
        return _recipe_to_resume(run, recipe, changes, launch.trust)
    if recipe is None:
        raise UserError("fit needs a RECIPE, or --resume RUN")
    return load_recipe(recipe, changes, trust=launch.trust)


def _recipe_to_resume(
    run: RunFolder,
    recipe: str | Path | Recipe | Tree | None,
    changes: list[str] | Mapping[str, Any],
    trust: Collection[str],
) -> Recipe:
    """Returns a run's recipe, with the changes that leave its batches and weights meaning the same.

    Raises:
        UserError: another recipe, or a change that would make it another experiment.
    """
    before = load_recipe(run.recipe, trust=trust)
    base: Any = run.recipe if recipe is None else recipe
    after = load_recipe(base, changes, trust=trust)
    old, new = before.dotted(), after.dotted()
    for path in sorted({*old, *new} - {"name"}):
        may = any(path == allowed or path.startswith(allowed + ".") for allowed in _MAY_CHANGE_ON_RESUME)
        if old.get(path) != new.get(path) and not may and not path.startswith("sweep."):
            raise UserError(
                f"{path}: is {new.get(path)!r}, but {run.id} was trained with {old.get(path)!r}; "
                "leave it, or start a new run"
            )
    return after.model_copy(update={"name": before.name})


def _run_ranks(recipe: Recipe, run: RunFolder, ranks: int, launch: _Launch) -> None:
    """Starts this node's ranks and waits; their failure becomes this process's."""
    from headway.supervise.agent import run_ranks

    replace_file(run.recipe, recipe.yaml())
    if launch.flag.signal_number is not None:
        run.update_status(state="stopped", reason="stopped before it began")
        raise Stopped("stopped before it began", signal_number=launch.flag.signal_number)
    run.update_status(state="created")
    arguments = ["fit", str(run.recipe), *(flag for module in launch.trust for flag in ("--trust", module))]
    if launch.existing is not None:
        arguments += ["--resume", str(run.path)]
    code = run_ranks(
        arguments,
        ranks_per_node=ranks,
        num_nodes=recipe.trainer.nodes,
        environment={RUN_FOLDER_VARIABLE: str(run.path.resolve())},
        save_timeout_s=recipe.trainer.save_timeout_s,
    )
    if code == 0:
        return
    status = run.status()
    if status.get("state") == "done" and code > 128:
        # Every step, validation and test is behind it: a rank died of its libraries' clean-up at exit, which
        # torch's process groups do now and then.
        print(f"headway: a rank ended with signal {code - 128} after the run was done", file=sys.stderr)  # noqa: T201
        return
    if status.get("state") in ("created", "running"):
        ended = f"signal {code - 128}" if code > 128 else f"exit code {code}"
        status["reason"] = f"a rank ended with {ended}; see {run.path / 'logs'}"
        run.update_status(state="stopped" if code in (130, 143) else "failed", reason=status["reason"])
    reason = str(status.get("reason", f"exit code {code}"))
    if code in (130, 143):
        raise Stopped(reason, signal_number=code - 128)
    if code == HeadwayError.exit_code:
        raise HeadwayError(f"{reason} (a bug of headway's; the traceback is in {run.path / 'logs'})")
    raise UserError(reason) if code == UserError.exit_code else TrainingFailed(reason)


def _fit_as_rank(
    recipe: str | Path | Recipe | Tree | None, changes: list[str] | Mapping[str, Any], launch: _Launch
) -> RunFolder:
    """Trains as one rank among those that somebody has started."""
    import torch
    import torch.distributed as dist

    given = os.environ.get(RUN_FOLDER_VARIABLE)
    if given is None:
        loaded = _recipe_of(recipe, changes, launch)
    else:
        end_with_parent()
        source = recipe if recipe is not None else Path(given) / "recipe.yaml"
        loaded = load_recipe(source, changes, trust=launch.trust)
    device = choose_device(loaded.trainer)
    place = rank_place(device)
    assert place is not None
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    data = prepare(loaded, place, restored=launch.existing is not None)
    dist.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        timeout=timedelta(seconds=loaded.trainer.timeout_s),
        device_id=torch.device("cuda", place.local_rank) if device == "cuda" else None,
    )
    try:
        shared = [given]
        if given is None and place.rank == 0:
            shared = [str((launch.existing or _new_run(loaded, launch.runs, launch.name)).path)]
        dist.broadcast_object_list(shared, src=0)
        run = RunFolder(Path(str(shared[0])))
        _train(loaded, run, place, launch, data)
        # No rank takes the group down while another is still in it.
        dist.barrier()
        return run
    finally:
        dist.destroy_process_group()


def _train(recipe: Recipe, run: RunFolder, place: Place, launch: _Launch, data: Data) -> None:
    """Trains in this process, whose output the run keeps."""
    from headway.training import Job, train

    job = Job(
        recipe,
        run,
        place,
        launch.argv,
        resume=launch.existing is not None,
        on_report=launch.on_report,
        stop=launch.flag,
        progress=launch.progress and place.rank == 0,
        save_every_s=launch.save_every_s,
    )
    with rank_log(run.log(place.rank), place):
        train(job, data)
