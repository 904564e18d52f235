"""What every objective is: a net, a loss, metrics and the optimizer.

An objective's heart is `outcome`, a pure function (net, batch, carried state, rng) -> (summed loss,
count, new state, metric sums). Everything around it is here: the optimizer step with its
micro-batches, the division by the global count, the metrics summed over ranks.

One call of Lightning's loop makes a `Chunk` of optimizer steps, which `_chunks.py` explains. For that loop an objective
is a LightningModule too (`_under_lightning.py`); one whose steps are made elsewhere imports no Lightning.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, cast

import torch
from torch import Tensor, nn

from headway.config.contracts import Batch, Engine, Hooks, ObjectiveConfig, Outcome, State, Technique, Watch
from headway.feed import Feed, MicroBatch, Share
from headway.nn.batch_norm import stand_in
from headway.nn.draws import Draws
from headway.objectives._carried import CarriedState
from headway.objectives._chunks import Chunk, ChunkReport, Pace, Schedule
from headway.objectives._clock import COMMUNICATION, Clock
from headway.objectives._sums import Sums, add_outcome, column

if TYPE_CHECKING:
    from headway.config.contracts import Place
    from headway.optim import OptimConfig
    from headway.recipe import Recipe


class BuiltIn(ObjectiveConfig):
    """The config of an objective whose heart is a pure function of one net."""

    metric_names: ClassVar[tuple[str, ...]] = ()
    """Names of the sums that `outcome` gives besides the loss."""

    @abstractmethod
    def build(self, net: nn.Module, **parts: Any) -> Objective:
        """Returns the objective; `parts` are those of `Objective`."""
        raise NotImplementedError


class Stepper(Protocol):
    """Makes steps and validations in an objective's place, such as with those of other runs."""

    chunk_seconds: float
    """How long a chunk is to take, where the recipe leaves its number of steps open."""

    def make_steps(self, objective: Objective, chunk: Chunk, report: ChunkReport) -> list[Sums]:
        """Makes a chunk's steps, counts the objective's `step` and the report's samples, and returns their sums."""

    def sum_split(self, objective: Objective, feed: Feed) -> Sums:
        """Returns the sums of a whole split."""

    def trainer(self, recipe: Recipe, place: Place, hooks: list[Hooks]) -> Any:
        """Returns what stands in the place of a Trainer."""


class Objective(nn.Module):
    """Trains a net: override `outcome` and, where not every row counts as one, `count`.

    Args:
        net: what is trained.
        optim: how its weights move; None where the net, a LightningModule of a user's, says so.
        schedule: how long, and how a step is made.
        train: this rank's training batches.
        validation: this rank's validation batches.
        techniques: what the recipe's `regularize` section names, in its order.
        train_metrics: names of the sums that they give while training.
        eval_metrics: names of those they give on held-out data.
        stop_requested: asked at the end of each chunk; True on any rank stops them all.
        stepper: makes the optimizer steps; None where the objective makes its own.
    """

    metric_names: tuple[str, ...] = ()
    """Names of the sums that `outcome` gives besides the loss; those of its config."""
    row_settings: tuple[str, ...] = ()
    """Settings that `outcome` takes as tensors too; those of its config."""
    # The loop below makes its own optimizer steps.
    automatic_optimization = False
    counts_rows = True
    """Whether every row counts as one, so that the global count needs no communication."""
    filled_with: ClassVar[Mapping[str, int]] = {}
    """What stands behind the shorter samples of a batch, by tensor, where batches are as long as their longest."""
    is_stacked = False
    """Whether `outcome` is called under vmap, for several runs at once."""
    trainer: Any
    """Lightning's Trainer, or what stands in its place."""

    @classmethod
    def make(cls, net: nn.Module, *, for_trainer: bool = True, **parts: Any) -> Self:
        """Returns the objective of a net; `for_trainer` makes it the LightningModule that a Trainer wants."""
        if not for_trainer:
            return cls(net, **parts)
        from headway.objectives._under_lightning import under_lightning

        kind: type[Self] = under_lightning(cls)
        return kind(net, **parts)

    def __init__(
        self,
        net: nn.Module,
        *,
        optim: OptimConfig | None,
        schedule: Schedule,
        train: Feed,
        validation: Feed,
        techniques: Sequence[Technique] = (),
        train_metrics: Sequence[str] = (),
        eval_metrics: Sequence[str] = (),
        stop_requested: Callable[[], bool] = lambda: False,
        stepper: Stepper | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.optim = optim
        self.schedule = schedule
        self.train_feed = train
        self.validation_feed = validation
        self.techniques = list(techniques)
        self._train_metrics = list(train_metrics)
        self._eval_metrics = list(eval_metrics)
        self.stop_requested = stop_requested
        self.stepper = stepper
        self.watch: Watch | None = None
        """Measures some of the steps that the objective makes."""
        self.clock = Clock()
        self.step = 0
        """Optimizer steps made so far."""
        self.report = ChunkReport()
        self.validation_metrics: dict[str, float] = {}
        self._shares: Iterator[Share] | None = None
        self.carried = CarriedState()
        self._pace = Pace(schedule.steps_per_call, schedule.chunk_seconds)
        self._validation_sums: Sums = {}
        self._validating_since = 0.0
        self._watched: dict[int, Tensor] = {}
        """This rank's sums of the chunk's steps that were measured."""

    # ---- the heart -------------------------------------------------------------------------------

    @abstractmethod
    def outcome(self, net: nn.Module, batch: Batch, state: State | None, rng: Draws | None) -> Outcome:
        """Returns the summed loss and metrics of a micro-batch. Pure: nothing of `self` but settings."""
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor | int:
        """Returns how many things `outcome` will count in a micro-batch, known before the forward."""
        return len(batch["input"])

    def forward(self, batch: Batch, state: State | None, rng: Draws | None) -> Outcome:
        """Returns `outcome` of the net, with what the techniques make of it: the forward that strategies wrap."""
        if not self.techniques:
            return self.outcome(self.net, batch, state, rng)

        def loss(changed: Batch) -> Outcome:
            return self.outcome(self.net, changed, state, rng)

        if self.training:
            for technique in self.techniques:
                batch = technique.change_batch(batch, rng)
        outcome = loss(batch)
        for technique in self.techniques:
            add = technique.add_loss if self.training else technique.add_metrics
            outcome = add(loss, batch, outcome)
        return outcome

    # ---- training --------------------------------------------------------------------------------

    def training_step(self, chunk: Chunk) -> None:
        """Makes the optimizer steps of a chunk and leaves its `report`."""
        started = time.perf_counter()
        report = ChunkReport()
        recorded = self.stepper.make_steps(self, chunk, report) if self.stepper else self._steps(chunk, report)
        self._publish(chunk, recorded, report, started)
        self.report = report

    def _steps(self, chunk: Chunk, report: ChunkReport) -> list[Sums]:
        """Makes the steps of a chunk and returns their sums."""
        if self._shares is None:
            self._shares = self.train_feed.shares(chunk.first, self.schedule.total_steps)
        recorded: list[Sums] = []
        for place in range(chunk.num_steps):
            waiting = time.perf_counter()
            share = next(self._shares)
            report.data_s += time.perf_counter() - waiting
            report.num_samples += share.num_rows
            self.clock.start(self.device, last=place == chunk.num_steps - 1)
            recorded.append(self._optimizer_step(share))
            self.step += 1
        return recorded

    def _optimizer_step(self, share: Share) -> Sums:
        """Returns the step's sums on this rank: `loss`, `count`, the metrics, and `grad_norm` where clipped."""
        optimizer = self.optimizer
        if self.optim is not None:
            rate = self.rate(self.step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_scale", 1.0)
        scale = self.engine_world_size / self._global_count(share)
        for technique in self.techniques:
            technique.before_forward(self.engine, self.step)
        if self.optim is not None and self.optim.needs_closure:
            return self._minimize(optimizer, share, scale)
        watch = self.watch if self.watch is not None and self.watch.due(self.step) else None
        with watch.listening() if watch else nullcontext():
            sums = self._gradient(share, scale)
        self._change_gradient()
        if watch is not None:
            watch.before_update(self.engine)
        norm = self.engine.update(optimizer, self.schedule.clip_norm)
        if norm is not None:
            sums["grad_norm"] = norm
        if watch is not None:
            self._watched[self.step] = watch.after_update(self.engine)
        for technique in self.techniques:
            technique.after_update(self.engine, self.step)
        self._count_step()
        self.clock.lap("update")
        return sums

    def _gradient(self, share: Share, scale: Tensor | float) -> Sums:
        """Adds the gradient of a batch; returns this rank's sums."""
        sums: Sums = {}
        carried: dict[int, State] = {}
        last = len(share.micro_batches) - 1
        for place, micro in enumerate(share.micro_batches):
            self.engine.accumulate(last=place == last)
            with nullcontext() if micro.counts else stand_in():
                state = self.carried.before(place, micro, self.device)
                outcome = self.engine.forward(micro.batch, state, self._draws(micro))
            self.clock.lap("forward")
            # Strategies average gradients over the ranks; the world's size in `scale` makes that a sum.
            self.engine.backward(outcome.loss_sum * (scale if micro.counts else 0.0), self._lap_backward)
            self.clock.lap(COMMUNICATION if self.engine.tells_waiting and place == last else "backward")
            if micro.counts:
                add_outcome(sums, outcome)
                if outcome.state is not None:
                    carried[place] = outcome.state
        self.carried.replace(carried)
        return sums

    def _lap_backward(self) -> None:
        self.clock.lap("backward")

    def _change_gradient(self) -> Tensor | float:
        """Lets the techniques act on the whole gradient; returns what that means for the loss."""
        added: Tensor | float = 0.0
        for technique in self.techniques:
            added = added + technique.after_backward(self.engine, self.step)
        limit = self.schedule.clip_value
        if limit is not None:
            self.engine.edit_gradients(lambda _name, _weight, gradient: gradient.clamp_(-limit, limit))
        return added

    def _minimize(self, optimizer: torch.optim.Optimizer, share: Share, scale: Tensor | float) -> Sums:
        """Makes one step of an optimizer that looks at the loss of the batch as often as it likes."""
        first: Sums = {}
        watch = self.watch if self.watch is not None and self.watch.due(self.step) else None

        def closure() -> Tensor:
            with watch.listening() if watch and not first else nullcontext():
                sums = self._gradient(share, scale)
            added = self._change_gradient()
            if watch is not None and not first:
                watch.before_update(self.engine)
            first.update({} if first else sums)
            mine = torch.as_tensor(sums.get("loss", 0.0), dtype=torch.float64, device=self.device).reshape(1)
            return self.engine.sum_over_ranks(mine.clone())[0] * scale / self.engine_world_size + added

        self.engine.minimize(optimizer, closure)
        if watch is not None:
            self._watched[self.step] = watch.after_update(self.engine)
        for technique in self.techniques:
            technique.after_update(self.engine, self.step)
        self._count_step()
        self.clock.lap("update")
        return first

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, counted from 0."""
        assert self.optim is not None
        return self.optim.lr * self.optim.schedule.factor(step, self.schedule.total_steps)

    def _global_count(self, share: Share) -> Tensor | float:
        if self.counts_rows:
            return float(share.num_rows)
        counts = [self.count(micro.batch) for micro in share.micro_batches if micro.counts]
        total = torch.as_tensor(sum(counts), dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        # A batch with nothing to count has no gradient, rather than an infinite one.
        total = total.to(self.device)
        self.clock.lap("forward")
        total = self.engine.sum_over_ranks(total).clamp(min=1.0)
        self.clock.lap(COMMUNICATION if self.engine.tells_waiting else "forward")
        return total

    def _draws(self, micro: MicroBatch) -> Draws | None:
        if not (self.schedule.keyed and self.training):
            return None
        return Draws(self.schedule.seed, self.step, micro.first_row, micro.num_rows, device=self.device)

    def _publish(self, chunk: Chunk, recorded: list[Sums], report: ChunkReport, started: float) -> None:
        """Sums the chunk's metrics over the ranks, in one communication, and agrees on pace and stop."""
        names = ["loss", "count", *self.metric_names, *self._train_metrics]
        table_SM = torch.stack([column(recorded, name, self.device) for name in names], dim=1)
        watched = [sums.to(table_SM) for sums in self._watched.values()]
        shared = torch.cat([table_SM.flatten(), *watched, torch.zeros(2, dtype=table_SM.dtype, device=self.device)])
        shared[-2] = float(self.stop_requested())
        shared[-1] = time.perf_counter() - started
        shared = self.engine.sum_over_ranks(shared)
        *flat, stop, elapsed = shared.tolist()
        self.clock.stop()
        # Norms are of the whole gradient already: no sum over ranks.
        norms = column(recorded, "grad_norm", self.device).tolist() if "grad_norm" in recorded[0] else []
        width = len(names)
        for index in range(chunk.num_steps):
            loss, count, *metrics = flat[index * width : (index + 1) * width]
            row = {"step": chunk.first + index + 1, "train/loss": loss / max(count, 1.0)}
            row |= {f"train/{name}": value / max(count, 1.0) for name, value in zip(names[2:], metrics, strict=True)}
            if self.optim is not None:
                row["train/lr"] = self.rate(chunk.first + index)
            if norms:
                row["train/grad_norm"] = norms[index]
            report.rows.append(row)
        self._publish_watched(flat[chunk.num_steps * width :], report)
        report.stop = stop > 0
        report.elapsed_s = elapsed / self.engine_world_size
        self._pace.measure(chunk, report.elapsed_s)

    def _publish_watched(self, flat: list[float], report: ChunkReport) -> None:
        """Takes what the steps that were measured say, from sums over the ranks."""
        for place, step in enumerate(self._watched):
            assert self.watch is not None
            size = len(flat) // len(self._watched)
            report.watched[step + 1] = self.watch.metrics(flat[place * size : (place + 1) * size])
        self._watched = {}

    def chunks(self) -> Iterator[Chunk]:
        """Yields the chunks up to the next validation, or to the end."""
        return self._pace.chunks(self.step, self.schedule)

    # ---- validation ------------------------------------------------------------------------------

    def validation_step(self, shares: Iterable[Share]) -> None:
        """Adds the sums of the whole split: a call of Lightning's costs more than a small net's batch."""
        for share in shares:
            self.add_sums(self._validation_sums, share)

    def on_validation_epoch_start(self) -> None:
        """Starts the sums at nothing."""
        self._validation_sums = {}
        self._validating_since = time.perf_counter()

    def on_validation_epoch_end(self) -> None:
        """Sums over the ranks and leaves `validation_metrics`."""
        self.validation_metrics = self.close_sums(self._validation_sums, "val")
        self.clock.seconds["validation"] += time.perf_counter() - self._validating_since

    def evaluate(self, feed: Feed, prefix: str) -> dict[str, float]:
        """Returns the metrics of a whole split, such as `{"test/loss": 0.1}`. Called on all ranks."""
        if self.stepper is not None:
            return self.close_sums(self.stepper.sum_split(self, feed), prefix)
        training = self.training
        self.eval()
        sums: Sums = {}
        with torch.no_grad():
            for share in feed.shares(0, feed.batches_per_epoch):
                self.add_sums(sums, share)
        metrics = self.close_sums(sums, prefix)
        self.train(training)
        return metrics

    def add_sums(self, sums: Sums, share: Share) -> None:
        """Adds what this rank's share of a batch counts."""
        for micro in share.micro_batches:
            outcome = self.engine.forward(micro.batch, None, None)
            if micro.counts:
                add_outcome(sums, outcome)

    def close_sums(self, sums: Sums, prefix: str) -> dict[str, float]:
        """Returns the means over all ranks."""
        names = ["loss", "count", *self.metric_names, *self._eval_metrics]
        totals = torch.cat([column([sums], name, self.device) for name in names])
        loss, count, *metrics = self.engine.sum_over_ranks(totals).tolist()
        means = {f"{prefix}/loss": loss / max(count, 1.0)}
        return means | {
            f"{prefix}/{name}": value / max(count, 1.0) for name, value in zip(names[2:], metrics, strict=True)
        }

    # ---- what Lightning asks ---------------------------------------------------------------------

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimizer; its rate is set at every step."""
        assert self.optim is not None, "only a module of a user's own may bring its optimizer"
        return self.optim.build(self.net)

    def configure_model(self) -> None:
        """Shards the net where the strategy does that by hand."""
        shard = getattr(self.trainer.strategy, "shard", None)
        if shard is not None:
            shard(self.net)

    def train_dataloader(self) -> _Chunks:
        """Returns the chunks of the next period between validations."""
        return _Chunks(self)

    def val_dataloader(self) -> _Pass:
        """Returns the validation split."""
        return _Pass(self.validation_feed)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Returns the batch as it is: splits in memory live on the device, others are moved share by share."""
        return batch

    @property
    def device(self) -> torch.device:
        """Returns where it is trained."""
        return torch.device(self.train_feed.place.device_name)

    @property
    def engine(self) -> Engine:
        """Returns the strategy, as what the steps ask of it."""
        return cast(Engine, self.trainer.strategy)

    @property
    def engine_world_size(self) -> int:
        """Returns the number of ranks."""
        return self.train_feed.place.world_size

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Returns the optimizer that the strategy holds."""
        return cast(torch.optim.Optimizer, self.trainer.strategy.optimizers[0])

    def _count_step(self) -> None:
        """Tells Lightning of a step, so that `trainer.global_step` is true for whoever reads it."""
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()


class _Chunks:
    """A loader without a length, asked anew for each period between validations."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __iter__(self) -> Iterator[Chunk]:
        return self.objective.chunks()


class _Pass:
    """One pass over a split, as one item: the iterator over its shares."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[Share]]:
        yield self.feed.shares(0, self.feed.batches_per_epoch)
