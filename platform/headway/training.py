"""Trains one recipe in this process, alone or as one rank: the data, the net, the Trainer, the end.

Launching is `fit`'s; here every rank does the same and rank 0 writes.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from headway.checkpoint import store
from headway.checkpoint.behind import AtOnce, Behind
from headway.checkpoint.keeper import Keeper
from headway.config.contracts import OBJECTIVE, Data, Hooks, ModuleConfig, ObjectiveConfig, Place, Scale
from headway.config.errors import HeadwayError, Stopped, TrainingFailed, UserError
from headway.config.kinds import resolve_kind
from headway.config.section import validate_section
from headway.diagnose.flops import count_flops, peak_flops
from headway.diagnose.health import Health, watch_health
from headway.feed import Feed
from headway.init.base import initialize
from headway.nn.draws import name_streams
from headway.objectives._chunks import CHUNK_SECONDS, Schedule
from headway.objectives.base import BuiltIn, Objective, Stepper
from headway.recipe import Recipe
from headway.run import MetricsFile, RunFolder, replace_file
from headway.supervise.signals import StopFlag
from headway.terminal import tell
from headway.track.alerts import Alerts
from headway.track.manifest import build_manifest
from headway.track.node_monitor import NodeMonitor
from headway.track.pictures import show_net
from headway.track.progress import ProgressSink
from headway.track.recorder import Listener, OnReport, Recorder, Sink
from headway.track.weights_and_biases import WandbSink, choose_mode

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_LIGHTNING_PRECISION = {
    "fp64": "64-true",
    "fp32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "bf16": "bf16-true",
    "fp16-mixed": "16-mixed",
}
_RANK_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_LOST_PEER = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Tt]imed out", re.ASCII)
"""What torch's communication says when a rank is gone; it has no exception of its own for that on gloo."""
_WEIGHT_DTYPE = {"fp64": torch.float64, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """One process's part of a run."""

    recipe: Recipe
    run: RunFolder
    place: Place
    argv: list[str]
    resume: bool = False
    on_report: OnReport | None = None
    stop: StopFlag | None = None
    progress: bool = True
    stepper: Stepper | None = None
    """Makes the optimizer steps, with those of other runs; None where this run makes its own."""
    save_every_s: float | None = None
    """Seconds of training after which the position is saved, besides at validations and `checkpoint_every`."""


def train(job: Job, data: Data) -> dict[str, Any]:
    """Trains, tests the best checkpoint, and returns the final metrics. The same on all ranks.

    Raises:
        TrainingFailed: the loss is no number, or a checkpoint cannot be written.
        Stopped: a signal asked for it; the position is saved.
    """
    recipe, place = job.recipe, job.place
    if job.stepper is None:
        cores = len(os.sched_getaffinity(0))
        torch.set_num_threads(recipe.trainer.threads or max(1, cores // place.local_world_size))
    checkpoint = _newest_checkpoint(job) if job.resume else None
    # What draws from the library's own generator: weights alike on all ranks, masks of its dropout not.
    torch.manual_seed(recipe.trainer.seed)
    objective, test = build_objective(
        recipe,
        data,
        place,
        stop_requested=job.stop or StopFlag(),
        stepper=job.stepper,
        restored=checkpoint is not None,
        for_trainer=job.stepper is None,
    )
    health = watch_health(recipe, objective)
    torch.manual_seed(recipe.trainer.seed + place.rank)
    first = place.rank == 0
    watched = place.local_rank == 0 and job.stepper is None
    with job.run.owned() if first else nullcontext(), _node_monitor(job.run, place) if watched else nullcontext():
        if first:
            _write_start(job, data, objective, health, resumed_at=checkpoint.step if checkpoint else None)
        recorder = _build_recorder(job, data, objective, checkpoint)
        settled = max((technique.settled_after for technique in recipe.regularize.values()), default=0)
        judge_from = min(settled, objective.schedule.total_steps)
        shelf = Behind(job.run) if job.stepper else AtOnce(job.run)
        keeper = Keeper(shelf, recipe.trainer, judge_from=judge_from, save_every_s=job.save_every_s)
        listeners: list[Hooks] = [recorder, keeper, *([Listener(job.on_report)] if job.on_report else [])]
        ending = Ending(job, keeper, recorder, listeners, data=data, test=test, checkpoint=checkpoint)
        try:
            hooks = [*listeners, ending]
            with _record_failure(job), closing(shelf):
                if job.stepper is not None:
                    job.stepper.trainer(recipe, place, hooks).fit(objective)
                else:
                    with quiet_lightning(), _no_trace_of_ranks(place):
                        lightning_trainer(recipe, place, hooks).fit(cast("LightningModule", objective))
        finally:
            recorder.close()
        return ending.final


def build_objective(
    recipe: Recipe,
    data: Data,
    place: Place,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    stepper: Stepper | None = None,
    restored: bool = False,
    for_trainer: bool = True,
) -> tuple[Objective, Feed]:
    """Returns the recipe's net, initialized, in its objective, and the feed of the test split.

    Args:
        recipe: what to build.
        data: the recipe's.
        place: this rank among the others.
        stop_requested: asked at the end of each chunk of steps.
        stepper: makes the optimizer steps; None where the objective makes its own.
        restored: whether a checkpoint will bring the weights, so that an init's source may be gone.
        for_trainer: whether Lightning's Trainer is to train it.

    Raises:
        UserError: the parts do not fit together.
    """
    trainer = recipe.trainer
    device = torch.device(place.device_name)
    dtype = _WEIGHT_DTYPE.get(trainer.precision, torch.float32)
    net = build_net(recipe, data, restored=restored)
    net.to(dtype)
    if trainer.compile:
        net.compile()

    def feed(split: Any, batch_size: int, micro_batch: int | None, seed: int | None) -> Feed:
        return Feed(
            split.to(device, dtype),
            batch_size=batch_size,
            micro_batch=micro_batch,
            place=place,
            seed=seed,
            workers=data.workers,
        )

    train = feed(data.train, trainer.batch_size, trainer.micro_batch, recipe.data.split_seed())
    validation, test = (
        feed(split, trainer.eval_batch_size or trainer.batch_size, trainer.micro_batch, None)
        for split in (data.validation, data.test)
    )
    schedule = Schedule(
        seed=trainer.seed,
        total_steps=trainer.total_steps(train.batches_per_epoch),
        validate_every=trainer.validate_every or train.batches_per_epoch,
        clip_norm=trainer.clip_norm,
        clip_value=trainer.clip_value,
        keyed=trainer.rng == "keyed",
        steps_per_call=None if trainer.steps_per_call == "auto" else trainer.steps_per_call,
        chunk_seconds=stepper.chunk_seconds if stepper else CHUNK_SECONDS,
    )
    parts: dict[str, Any] = {
        "optim": recipe.optim,
        "schedule": schedule,
        "train": train,
        "validation": validation,
        "stop_requested": stop_requested,
        "stepper": stepper,
    }
    techniques = recipe.regularize.values()
    parts["techniques"] = [config.build(data.spec, seed=trainer.seed) for config in techniques]
    parts["train_metrics"] = [name for config in techniques for name in config.train_metrics]
    parts["eval_metrics"] = [name for config in techniques for name in config.eval_metrics]
    for technique in parts["techniques"]:
        technique.attach(net)
    if isinstance(recipe.objective, ModuleConfig):
        from headway.objectives._adopted import Adopted

        return Adopted.make(net, **parts), test
    return objective_config(recipe, data).build(net, for_trainer=for_trainer, **parts), test


def build_net(recipe: Recipe, data: Data, *, restored: bool = False) -> nn.Module:
    """Returns the recipe's net, initialized; a LightningModule where that is the recipe's objective.

    Where a checkpoint will bring the weights (`restored`), those that the init knows are not looked for.
    """
    net = None if recipe.model is None else name_streams(recipe.model.build(data.spec))
    if isinstance(recipe.objective, ModuleConfig):
        net = recipe.objective.build_module(net, data.spec)
    assert net is not None, "a recipe has a model or a module of the user's own"
    if recipe.init is not None:
        scales = scales_by_width(recipe, data, net) if recipe.init.by_width else {}
        initialize(net, recipe.init, scales=scales, known=not restored)
        cast(Any, net).lr_scales = {name: scale.lr for name, scale in scales.items()}
    return net


def scales_by_width(recipe: Recipe, data: Data, net: nn.Module) -> dict[str, Scale]:
    """Returns what the net's width makes of its weights, told by how they grow when it doubles.

    Raises:
        UserError: a net without a width, or one whose weights the init cannot scale.
    """
    assert recipe.init is not None
    width = recipe.model.main_width() if recipe.model is not None else None
    if recipe.model is None or width is None:
        raise UserError(f"init.kind: {recipe.init.kind} needs a net with a width or hidden layers; this one has none")
    with torch.device("meta"):
        wider = recipe.model.widened(2).build(data.spec)
    return recipe.init.scales(net, wider, width=width)


def objective_config(recipe: Recipe, data: Data) -> BuiltIn:
    """Returns the recipe's objective, or the model's own where the recipe names none."""
    config: ObjectiveConfig | None = recipe.objective
    if config is None:
        assert recipe.model is not None
        kind = recipe.model.default_objective(data.spec)
        config = cast(
            ObjectiveConfig, validate_section(resolve_kind(OBJECTIVE, kind), {"kind": kind}, path=OBJECTIVE.section)
        )
    return cast(BuiltIn, config)


def validation_metrics(recipe: Recipe, data: Data) -> list[str]:
    """Returns the names of what a validation reports; known without building anything."""
    names = [*objective_config(recipe, data).metric_names]
    names += [name for config in recipe.regularize.values() for name in config.eval_metrics]
    return ["val/loss", *(f"val/{name}" for name in names)]


class Ending(Hooks):
    """Restores a checkpoint at the start, leaves when asked to, and at the end tests the best checkpoint."""

    def __init__(
        self,
        job: Job,
        keeper: Keeper,
        recorder: Recorder,
        listeners: Sequence[Hooks],
        *,
        data: Data,
        test: Feed,
        checkpoint: store.Checkpoint | None,
    ) -> None:
        self.job = job
        self.data = data
        self.keeper = keeper
        self.recorder = recorder
        self.listeners = listeners
        self.test = test
        self.checkpoint = checkpoint
        self.final: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Puts the run where its checkpoint left it."""
        objective = cast(Objective, pl_module)
        if self.checkpoint is not None:
            validation_due = self.checkpoint.position.get("validation_due", False)
            self.keeper.restore(trainer, objective, self.checkpoint)
            self.checkpoint = None
            if validation_due:
                self._validate(trainer, objective)
        if objective.step >= objective.schedule.total_steps:
            trainer.should_stop = True

    def _validate(self, trainer: Any, objective: Objective) -> None:
        """Makes the validation that a signal came before."""
        objective.validation_metrics = objective.evaluate(objective.validation_feed, "val")
        for listener in self.listeners:
            listener.on_validation_end(trainer, objective)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Leaves the training where a signal asked for it; the keeper has saved the position."""
        objective = cast(Objective, pl_module)
        if objective.report.stop:
            number = self.job.stop.signal_number if self.job.stop else None
            message = f"stopped at step {objective.step}; headway fit --resume {self.job.run.id} goes on from there"
            raise Stopped(message, signal_number=number or signal.SIGTERM)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluates the best checkpoint on the test split."""
        objective = cast(Objective, pl_module)
        run, best = self.job.run, self.keeper.best
        assert best is not None, "a training ends with a validation"
        if best["step"] != objective.step:
            objective.engine.load_weights(self.keeper.shelf.weights(best["step"]))
        tested = objective.evaluate(self.test, "test")
        rows = objective.report.rows
        trained = {"train/loss": rows[-1]["train/loss"]} if rows else {}
        self.final = {**trained, **best["metrics"], **tested}
        self.recorder.emit([{"step": objective.step, **tested, **self.recorder.performance(objective)}])
        if trainer.is_global_zero:
            self.keeper.shelf.close()
            run.update_status(state="done", step=objective.step, best=best, final=self.final, reason=None)
            run.write_json("manifest.json", {**run.read_json("manifest.json"), "ended": time.time(), "exit_code": 0})
            if self.job.recipe.track.media and self.job.stepper is None:
                self._show(best["step"])

    def _show(self, step: int) -> None:
        """Makes images, tables and texts of the best checkpoint's net."""
        recipe = self.job.recipe
        if recipe.model is None or isinstance(recipe.objective, ModuleConfig):
            return
        show_net(
            self.job.run,
            lambda: build_net(recipe, self.data, restored=True),
            self.keeper.shelf.weights(step),
            self.data,
            step=step,
            seed=recipe.trainer.seed,
            say=_tell(self.job),
        )


def _node_monitor(run: RunFolder, place: Place) -> closing[NodeMonitor]:
    """Watches this node while a run trains."""
    return closing(NodeMonitor(run, place.rank // place.local_world_size))


def _newest_checkpoint(job: Job) -> store.Checkpoint | None:
    checkpoint, damaged = store.load_newest(job.run.checkpoints)
    for problem in damaged:
        print(f"headway: {problem}; going on from an older checkpoint", file=sys.stderr)  # noqa: T201
    return checkpoint


def _write_start(job: Job, data: Data, objective: Objective, health: Health | None, *, resumed_at: int | None) -> None:
    recipe, run = job.recipe, job.run
    manifest = build_manifest(
        argv=job.argv, data_fingerprint=data.fingerprint, device=job.place.device, world_size=job.place.world_size
    )
    before = run.read_json("manifest.json")
    if resumed_at is not None and before:
        manifest["resumed"] = [*before.get("resumed", []), {"at_step": resumed_at, "started": manifest["started"]}]
        manifest["started"] = before["started"]
    replace_file(run.recipe, recipe.yaml(), flush=run.flush)
    described: dict[str, Any] = {"spec": asdict(data.spec), "reading": data.reading}
    described["axis"] = {
        "batch_size": objective.train_feed.batch_size,
        "samples_per_epoch": len(objective.train_feed.split),
        "tokens_per_sample": _tokens_per_sample(data),
    }
    if health is not None:
        described["health_layers"] = health.layers
    run.write_json("data.json", described)
    run.write_json("manifest.json", manifest)
    run.update_status(
        state="running", recipe=recipe.name, step=resumed_at or 0, pid=os.getpid(), host=manifest["hardware"]["host"],
        monitor=recipe.trainer.monitor, reason=None, strategy=recipe.strategy.kind,
    )  # fmt: skip


def _build_recorder(job: Job, data: Data, objective: Objective, checkpoint: store.Checkpoint | None) -> Recorder:
    recipe, run = job.recipe, job.run
    first_step = checkpoint.step if checkpoint else 0
    sinks: list[Sink] = []
    if job.place.rank == 0:
        sinks.append(MetricsFile(run.metrics, keep_through=first_step if job.resume else None, columns=True))
        if job.progress:
            sinks.append(ProgressSink(run.id, total_steps=objective.schedule.total_steps, first_step=first_step))
        choice = choose_mode(recipe.track.wandb)
        alone, online = job.stepper is None, None
        if choice.mode != "disabled":
            resumed_at = checkpoint.step if checkpoint else None
            online = WandbSink(run, recipe, choice, resumed_at=resumed_at, alone=alone, say=_tell(job))
        if alone and recipe.track.alerts:
            tell_wandb = online.alert if online else (lambda _: None)
            sinks.append(Alerts(run, recipe.track.alerts, stall_s=recipe.track.stall_s, tell=tell_wandb))
        # Last: how a run ended is an alert, too.
        sinks += [online] if online else []
    return Recorder(
        sinks,
        every=recipe.track.every,
        tokens_per_sample=_tokens_per_sample(data),
        flops_per_sample=lambda: None if job.stepper else count_flops(recipe, data.spec, objective),
        peak_flops=peak_flops(recipe, job.place),
        heartbeat=lambda step: run.update_status(step=step),
    )


def _tokens_per_sample(data: Data) -> int | None:
    return data.spec.input_shape[0] if data.spec.input_kind == "tokens" else None


def _tell(job: Job) -> Callable[[str], None]:
    """Returns what says something to a person; into the void where nobody watches this run."""
    return (lambda line: tell(f"headway: {line}")) if job.progress else (lambda _: None)


def lightning_trainer(recipe: Recipe, place: Place, hooks: Sequence[Hooks]) -> Trainer:
    """Returns a Trainer with the recipe's strategy and precision, and nothing of Lightning's that writes or prints."""
    from lightning.pytorch import Trainer

    from headway.objectives._under_lightning import Relay

    section = recipe.trainer
    strategy = recipe.strategy.build(
        place, precision=section.precision, clip_norm=section.clip_norm, timeout_s=section.timeout_s
    )
    precision = _LIGHTNING_PRECISION[section.precision]
    if section.precision == "fp64" and recipe.strategy.kind == "fsdp":
        # Lightning knows no fp64 under FSDP2; net and data are in it already, which is all it takes.
        precision = "32-true"
    trainer = Trainer(
        accelerator="cpu" if place.device == "cpu" else "gpu",
        devices=place.local_world_size if place.device == "cpu" or place.world_size > 1 else [place.local_rank],
        num_nodes=place.num_nodes,
        strategy=strategy,
        precision=precision,  # type: ignore[arg-type]
        callbacks=[Relay(hooks)],
        max_epochs=-1,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        # Techniques may ask for a gradient while they judge a net: its accuracy under attack.
        inference_mode=not any(config.eval_metrics for config in recipe.regularize.values()),
    )
    # Signals are `supervise`'s; Lightning's own handlers lose the position and can deadlock the ranks.
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    return trainer


@contextmanager
def _no_trace_of_ranks(place: Place) -> Iterator[None]:
    """Takes back what a strategy says of ranks in a process that is none.

    DeepSpeed makes a process group of one. It stays: DeepSpeed's own globals hold on to it.
    """
    if place.world_size > 1:
        yield
        return
    before = {name: os.environ.get(name) for name in _RANK_VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _record_failure(job: Job) -> Iterator[None]:
    """Writes why a run ended, when it does not end well."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, RuntimeError) and job.place.world_size > 1 and _LOST_PEER.search(str(error)):
            error = TrainingFailed(
                f"rank {job.place.rank} lost another rank, or waited for it in vain; see {job.run.path / 'logs'}"
            )
            error.__cause__ = None
        if job.place.rank == 0:
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            reason = str(error) if isinstance(error, HeadwayError) else f"{type(error).__name__}: {error}"
            code = error.exit_code if isinstance(error, HeadwayError) else 1
            job.run.update_status(state="stopped" if stopped else "failed", reason=reason)
            manifest = job.run.read_json("manifest.json")
            job.run.write_json("manifest.json", {**manifest, "ended": time.time(), "exit_code": code})
        raise error from None if isinstance(error, HeadwayError) else error.__cause__


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's banners, tips and advice for other ways of using it off the screen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            # Nothing here changes a layer's output in place.
            warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
            # DeepSpeed 0.19 calls what torch 2.13 has renamed.
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
