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

from headway.config.contracts import Data, ModuleConfig, Place
from headway.config.errors import HeadwayError, Stopped, TrainingFailed, UserError
from headway.recipe import Recipe, load_recipe
from headway.run import RunFolder, create_run, find_run, replace_file
from headway.supervise.logs import rank_log
from headway.supervise.place import choose_device, devices_per_node, rank_place
from headway.supervise.signals import StopFlag, stop_on_signals

if TYPE_CHECKING:
    from torch import nn

    from headway.config.reading import Tree
    from headway.track.recorder import OnReport

RUN_FOLDER_VARIABLE = "HEADWAY_RUN_DIR"
_MAY_CHANGE_ON_RESUME = (
    "strategy", "track", "trainer.accelerator", "trainer.checkpoint_every", "trainer.compile", "trainer.devices",
    "trainer.early_stopping", "trainer.eval_batch_size", "trainer.max_epochs", "trainer.max_steps",
    "trainer.micro_batch", "trainer.nodes", "trainer.steps_per_call", "trainer.threads", "trainer.timeout_s",
    "trainer.validate_every",
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
        resume: id or path of a run to go on with.
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
        if "RANK" in os.environ:
            run = _fit_as_rank(recipe, changes, runs, name, resume, trust, argv, flag, on_report, save_every_s)
        else:
            existing = find_run(Path(runs), resume) if resume else None
            loaded = (
                load_recipe(recipe, changes, trust=trust)
                if existing is None and recipe is not None
                else (_recipe_to_resume(existing, recipe, changes, trust))
            )
            launch = _Launch(Path(runs), name, existing, tuple(trust), argv, flag, on_report, progress, save_every_s)
            run = _fit_on_node(loaded, launch)
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


def prepare(recipe: Recipe, place: Place, *, data: Data | None = None, restored: bool = False) -> Data:
    """Returns the data, having checked that data, net, objective and strategy go together.

    Nothing is trained and no process started: the net is built without memory for its weights.

    Args:
        recipe: what to check.
        place: where it would train.
        data: the recipe's, where it is loaded already.
        restored: whether a checkpoint will bring the weights.

    Raises:
        UserError: one line for the first thing that does not fit.
    """
    import torch

    recipe.strategy.check(place, recipe.trainer.precision)
    data = data or recipe.data.load()
    net = None
    if recipe.model is not None:
        try:
            with torch.device("meta"):
                net = recipe.model.build(data.spec)
        except (RuntimeError, OverflowError, TypeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"model: torch cannot make a net of these sizes ({reason}); make them smaller") from None
    if recipe.objective is not None:
        recipe.objective.check(data.spec)
    for technique in recipe.regularize.values():
        technique.check(data.spec, recipe.strategy)
        if net is not None:
            technique.build(data.spec, seed=0).attach(net)
    if place.rank == 0:
        _tell_of_unsettled(recipe, data)
    if recipe.init is not None and net is not None and not restored:
        _check_init(recipe, data, net)
    if recipe.init is not None and recipe.init.by_width and recipe.optim is not None and recipe.optim.kind != "adamw":
        raise UserError(f"optim.kind: {recipe.optim.kind} has other rates under init {recipe.init.kind}; use adamw")
    if recipe.optim is not None and recipe.optim.needs_closure:
        _check_full_batch(recipe, data)
    if recipe.trainer.monitor != "val/loss" and not isinstance(recipe.objective, ModuleConfig):
        _check_monitor(recipe, data)
    return data


def _tell_of_unsettled(recipe: Recipe, data: Data) -> None:
    """Says in a line where a technique needs more steps than there are: such a run may be meant to be gone on with."""
    longest = max(recipe.regularize.items(), key=lambda item: item[1].settled_after, default=None)
    if longest is None or longest[1].settled_after == 0:
        return
    from headway.training import total_steps

    name, config = longest
    steps = total_steps(recipe, -(-len(data.train) // recipe.trainer.batch_size))
    if config.settled_after > steps:
        print(  # noqa: T201
            f"headway: regularize.{name}.end: {config.settled_after}, but the run has {steps} steps and ends before it "
            "has what was asked for; lower it, or train longer",
            file=sys.stderr,
        )


def _check_init(recipe: Recipe, data: Data, net: nn.Module) -> None:
    """Refuses an init whose source is not there, or that cannot scale this net."""
    assert recipe.init is not None
    if recipe.init.by_width:
        from headway.training import scales_by_width

        scales_by_width(recipe, data, net)
    recipe.init.given(net)


def _check_full_batch(recipe: Recipe, data: Data) -> None:
    """Refuses what an optimizer that evaluates the whole loss several times a step cannot do."""
    assert recipe.optim is not None
    kind, trainer = recipe.optim.kind, recipe.trainer
    if trainer.batch_size < len(data.train):
        raise UserError(
            f"trainer.batch_size: {trainer.batch_size} is part of {len(data.train)} samples, and {kind} needs them all "
            f"in one batch; set trainer.batch_size={len(data.train)}, or use another optim.kind"
        )
    if recipe.strategy.kind not in ("single", "ddp"):
        raise UserError(
            f"optim.kind: {kind} needs whole weights on every rank, and {recipe.strategy.kind} slices them; "
            "use strategy=ddp"
        )
    noise = recipe.regularize.get("noise")
    if getattr(noise, "weight", 0) or getattr(noise, "gradient", 0):
        raise UserError(
            f"regularize.noise: {kind} compares losses with their gradients, which noise on weights or gradients "
            "would part; leave it out"
        )
    for name in ("clip_norm", "clip_value"):
        limit = getattr(trainer, name)
        if limit is not None:
            raise UserError(
                f"trainer.{name}: {limit}, but {kind} measures its steps by the gradient, which clipping would change; "
                "leave it out"
            )
    if trainer.precision == "fp16-mixed":
        raise UserError(
            f"trainer.precision: fp16-mixed scales the gradient away from the loss that {kind} compares it with; "
            "use fp32"
        )


def _check_monitor(recipe: Recipe, data: Data) -> None:
    from headway.training import validation_metrics

    known = validation_metrics(recipe, data)
    if recipe.trainer.monitor not in known:
        raise UserError(
            f"trainer.monitor: there is no {recipe.trainer.monitor!r}; a validation gives {', '.join(known)}"
        )


def _fit_on_node(recipe: Recipe, launch: _Launch) -> RunFolder:
    """Trains inline, or starts this node's ranks."""
    trainer, existing = recipe.trainer, launch.existing
    device = choose_device(trainer)
    ranks = devices_per_node(trainer, device, single=recipe.strategy.kind == "single")
    place = Place(0, ranks * trainer.nodes, 0, ranks, device)
    if launch.on_report is not None and place.world_size > 1:
        raise UserError("on_report: hears of one process only; set trainer.devices=1")
    data = prepare(recipe, place, restored=existing is not None)
    if existing is not None and existing.status().get("state") == "done" and not _has_more(recipe, existing, data):
        return existing
    run = existing or _new_run(recipe, launch.runs, launch.name)
    if place.world_size == 1:
        from headway.training import Job, train

        job = Job(
            recipe,
            run,
            place,
            launch.argv,
            resume=existing is not None,
            on_report=launch.on_report,
            stop=launch.flag,
            progress=launch.progress,
            save_every_s=launch.save_every_s,
        )
        with rank_log(run.log(0), place):
            train(job, data)
        return run
    _run_ranks(recipe, run, ranks, launch.trust, resume=existing is not None)
    return run


def _has_more(recipe: Recipe, run: RunFolder, data: Data) -> bool:
    """Returns whether a finished run's recipe has been given more steps."""
    from headway.training import total_steps

    return total_steps(recipe, -(-len(data.train) // recipe.trainer.batch_size)) > int(run.status().get("step", 0))


def _new_run(recipe: Recipe, runs: Path, name: str | None) -> RunFolder:
    if recipe.trainer.nodes == 1:
        run = create_run(runs, recipe.name, name=name)
    else:
        # Every node runs this line: they share one folder, whose name they must agree on.
        job = os.environ.get("HEADWAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
        if name is None and job is None:
            raise UserError("trainer.nodes: several nodes write one run; give every node the same --name")
        run = RunFolder(runs / (name or f"{recipe.name}-{job}"))
        (run.path / "logs").mkdir(parents=True, exist_ok=True)
        (run.path / "checkpoints").mkdir(exist_ok=True)
    replace_file(run.recipe, recipe.yaml())
    run.update_status(state="created", recipe=recipe.name)
    return run


def _recipe_to_resume(
    run: RunFolder | None,
    recipe: str | Path | Recipe | Tree | None,
    changes: list[str] | Mapping[str, Any],
    trust: Collection[str],
) -> Recipe:
    """Returns a run's recipe, with the changes that leave its batches and weights meaning the same.

    Raises:
        UserError: another recipe, or a change that would make it another experiment.
    """
    if run is None:
        raise UserError("fit needs a RECIPE, or --resume RUN")
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


def _run_ranks(recipe: Recipe, run: RunFolder, ranks: int, trust: Collection[str], *, resume: bool) -> None:
    """Starts this node's ranks and waits; their failure becomes this process's."""
    from headway.supervise.agent import run_ranks

    replace_file(run.recipe, recipe.yaml())
    run.update_status(state="created")
    arguments = ["fit", str(run.recipe), *(flag for module in trust for flag in ("--trust", module))]
    if resume:
        arguments += ["--resume", str(run.path)]
    code = run_ranks(
        arguments,
        ranks_per_node=ranks,
        num_nodes=recipe.trainer.nodes,
        environment={RUN_FOLDER_VARIABLE: str(run.path.resolve())},
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
    recipe: str | Path | Recipe | Tree | None,
    changes: list[str] | Mapping[str, Any],
    runs: str | Path,
    name: str | None,
    resume: str | None,
    trust: Collection[str],
    argv: list[str],
    flag: StopFlag,
    on_report: OnReport | None,
    save_every_s: float | None,
) -> RunFolder:
    """Trains as one rank among those that somebody has started."""
    import torch
    import torch.distributed as dist

    given = os.environ.get(RUN_FOLDER_VARIABLE)
    existing = find_run(Path(runs), resume) if resume else None
    if given is None and existing is not None:
        loaded = _recipe_to_resume(existing, recipe, changes, trust)
    else:
        loaded = load_recipe(recipe if recipe is not None else Path(given or "") / "recipe.yaml", changes, trust=trust)
    device = choose_device(loaded.trainer)
    place = rank_place(device)
    assert place is not None
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)
    data = prepare(loaded, place, restored=existing is not None)
    dist.init_process_group(
        "gloo" if device == "cpu" else "nccl",
        timeout=timedelta(seconds=loaded.trainer.timeout_s),
        device_id=torch.device("cuda", place.local_rank) if device == "cuda" else None,
    )
    try:
        shared = (
            [str((existing or _new_run(loaded, Path(runs), name)).path)]
            if given is None and place.rank == 0
            else [given]
        )
        dist.broadcast_object_list(shared, src=0)
        run = RunFolder(Path(str(shared[0])))
        from headway.training import Job, train

        with rank_log(run.log(place.rank), place):
            job = Job(
                loaded,
                run,
                place,
                argv,
                resume=existing is not None,
                on_report=on_report,
                stop=flag,
                progress=place.rank == 0,
                save_every_s=save_every_s,
            )
            train(job, data)
        # No rank takes the group down while another is still in it.
        dist.barrier()
        return run
    finally:
        dist.destroy_process_group()
