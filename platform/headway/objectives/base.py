"""The LightningModule that every objective is: a net, a loss, metrics and the optimizer.

An objective's heart is `outcome`, a pure function (net, batch, carried state, rng) -> (summed loss,
count, new state, metric sums). Everything around it is here: the optimizer step with its
micro-batches, the division by the global count, the metrics summed over ranks.

Lightning's loop costs about two milliseconds a call, more than a step of a small net. So one call
of `training_step` makes several optimizer steps, a `Chunk`: as many as take about a tenth of a
second, agreed among the ranks at the end of each chunk, together with a wish to stop.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from headway.config.contracts import Batch, Engine, ObjectiveConfig, Outcome
from headway.feed import Feed, MicroBatch, Share
from headway.nn.draws import Draws

if TYPE_CHECKING:
    from headway.optim import OptimConfig

Sums = dict[str, Tensor | float]
"""Sums over what was counted, by name; plain numbers where they are known without asking a device."""

CHUNK_SECONDS = 0.1
MAX_CHUNK = 256


class Chunk(NamedTuple):
    """The optimizer steps [first, first + num_steps) of one call of the training loop."""

    first: int
    num_steps: int


@dataclass(frozen=True)
class Schedule:
    """How long to train and how to cut it up; the part of a recipe's trainer that the steps need."""

    seed: int
    total_steps: int
    validate_every: int
    clip_norm: float | None = None
    keyed: bool = True
    """Whether masks come from keyed streams, rather than from the library's generator."""
    steps_per_call: int | None = None
    """None: as many as take a tenth of a second."""


@dataclass
class ChunkReport:
    """What a chunk of steps left behind, the same on all ranks."""

    rows: list[dict[str, float]] = field(default_factory=list)
    """One row a step: `step` and the `train/*` metrics."""
    num_samples: int = 0
    """Samples over all ranks."""
    elapsed_s: float = 0.0
    data_s: float = 0.0
    """Seconds this rank waited for batches."""
    stop: bool = False
    """Whether any rank was asked to stop."""


class BuiltIn(ObjectiveConfig):
    """The config of an objective whose heart is a pure function of one net."""

    metric_names: ClassVar[tuple[str, ...]] = ()
    """Names of the sums that `outcome` gives besides the loss."""

    @abstractmethod
    def build(self, net: nn.Module, **parts: Any) -> Objective:
        """Returns the objective; `parts` are those of `Objective`."""
        raise NotImplementedError


class Objective(LightningModule):
    """Trains a net: override `outcome` and, where not every row counts as one, `count`.

    Args:
        net: what is trained.
        optim: how its weights move; None where the net, a LightningModule of a user's, says so.
        schedule: how long, and how a step is made.
        train: this rank's training batches.
        validation: this rank's validation batches.
        stop_requested: asked at the end of each chunk; True on any rank stops them all.
    """

    metric_names: tuple[str, ...] = ()
    """Names of the sums that `outcome` gives besides the loss; those of its config."""
    # The loop below makes its own optimizer steps.
    automatic_optimization = False
    counts_rows = True
    """Whether every row counts as one, so that the global count needs no communication."""

    def __init__(
        self,
        net: nn.Module,
        *,
        optim: OptimConfig | None,
        schedule: Schedule,
        train: Feed,
        validation: Feed,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.net = net
        self.optim = optim
        self.schedule = schedule
        self.train_feed = train
        self.validation_feed = validation
        self.stop_requested = stop_requested
        self.step = 0
        """Optimizer steps made so far."""
        self.report = ChunkReport()
        self.validation_metrics: dict[str, float] = {}
        self._shares: Iterator[Share] | None = None
        self._carried: dict[int, Any] = {}
        self._pace = schedule.steps_per_call or 1
        self._validation_sums: Sums = {}

    # ---- the heart -------------------------------------------------------------------------------

    @abstractmethod
    def outcome(self, net: nn.Module, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns the summed loss and metrics of a micro-batch. Pure: nothing of `self` but settings."""
        raise NotImplementedError

    def count(self, batch: Batch) -> Tensor | int:
        """Returns how many things `outcome` will count in a micro-batch, known before the forward."""
        return len(batch["input"])

    def forward(self, batch: Batch, state: Any, rng: Draws | None) -> Outcome:
        """Returns `outcome` of the net: the forward that strategies wrap."""
        return self.outcome(self.net, batch, state, rng)

    # ---- training --------------------------------------------------------------------------------

    def training_step(self, chunk: Chunk) -> None:
        """Makes the optimizer steps of a chunk and leaves its `report`."""
        started = time.perf_counter()
        report = ChunkReport()
        if self._shares is None:
            self._shares = self.train_feed.shares(chunk.first, self.schedule.total_steps)
        recorded: list[Sums] = []
        for _ in range(chunk.num_steps):
            waiting = time.perf_counter()
            share = next(self._shares)
            report.data_s += time.perf_counter() - waiting
            report.num_samples += share.num_rows
            recorded.append(self._optimizer_step(share))
            self.step += 1
        self._publish(chunk, recorded, report, started)
        self.report = report

    def _optimizer_step(self, share: Share) -> Sums:
        """Returns the step's sums on this rank: `loss`, `count`, the metrics, and `grad_norm` where clipped."""
        optimizer = self._optimizer
        if self.optim is not None:
            rate = self._rate(self.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
        scale = self.engine_world_size / self._global_count(share)
        sums: Sums = {}
        last = len(share.micro_batches) - 1
        for place, micro in enumerate(share.micro_batches):
            self.engine.accumulate(last=place == last)
            outcome = self.engine.forward(micro.batch, self._carried.get(place), self._draws(micro))
            # Strategies average gradients over the ranks; the world's size in `scale` makes that a sum.
            self.engine.backward(outcome.loss_sum * (scale if micro.counts else 0.0))
            if outcome.state is not None:
                self._carried[place] = outcome.state
            if micro.counts:
                _add(sums, outcome)
        norm = self.engine.update(optimizer, self.schedule.clip_norm)
        if norm is not None:
            sums["grad_norm"] = norm
        self._count_step()
        return sums

    def _rate(self, step: int) -> float:
        assert self.optim is not None
        return self.optim.lr * self.optim.schedule.factor(step, self.schedule.total_steps)

    def _global_count(self, share: Share) -> Tensor | float:
        if self.counts_rows:
            return float(share.num_rows)
        counts = [self.count(micro.batch) for micro in share.micro_batches if micro.counts]
        total = torch.as_tensor(sum(counts), dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        # A batch with nothing to count has no gradient, rather than an infinite one.
        return self.engine.sum_over_ranks(total.to(self.device)).clamp(min=1.0)

    def _draws(self, micro: MicroBatch) -> Draws | None:
        if not (self.schedule.keyed and self.training):
            return None
        return Draws(self.schedule.seed, self.step, micro.first_row, micro.num_rows, device=self.device)

    def _publish(self, chunk: Chunk, recorded: list[Sums], report: ChunkReport, started: float) -> None:
        """Sums the chunk's metrics over the ranks, in one communication, and agrees on pace and stop."""
        names = ["loss", "count", *self.metric_names]
        table_SM = torch.stack([_column(recorded, name, self.device) for name in names], dim=1)
        shared = torch.cat([table_SM.flatten(), torch.zeros(2, dtype=table_SM.dtype, device=self.device)])
        shared[-2] = float(self.stop_requested())
        shared[-1] = time.perf_counter() - started
        shared = self.engine.sum_over_ranks(shared)
        *flat, stop, elapsed = shared.tolist()
        # Norms are of the whole gradient already: no sum over ranks.
        norms = _column(recorded, "grad_norm", self.device).tolist() if "grad_norm" in recorded[0] else []
        width = len(names)
        for index in range(chunk.num_steps):
            loss, count, *metrics = flat[index * width : (index + 1) * width]
            row = {"step": chunk.first + index + 1, "train/loss": loss / max(count, 1.0)}
            row |= {f"train/{name}": value / max(count, 1.0) for name, value in zip(names[2:], metrics, strict=True)}
            if self.optim is not None:
                row["train/lr"] = self._rate(chunk.first + index)
            if norms:
                row["train/grad_norm"] = norms[index]
            report.rows.append(row)
        report.stop = stop > 0
        report.elapsed_s = elapsed / self.engine_world_size
        self._set_pace(chunk, report.elapsed_s)

    def _set_pace(self, chunk: Chunk, elapsed_s: float) -> None:
        if self.schedule.steps_per_call is not None:
            return
        # Growing by doubling keeps one slow first step (allocation, compilation) from setting the pace.
        fitting = max(1, math.floor(CHUNK_SECONDS * chunk.num_steps / max(elapsed_s, 1e-6)))
        self._pace = min(fitting, 2 * self._pace, MAX_CHUNK)

    def chunks(self) -> Iterator[Chunk]:
        """Yields the chunks up to the next validation, or to the end."""
        step = self.step
        period = self.schedule.validate_every
        end = min(self.schedule.total_steps, (step // period + 1) * period)
        while step < end:
            chunk = Chunk(step, min(self._pace, end - step))
            step += chunk.num_steps
            yield chunk

    # ---- validation ------------------------------------------------------------------------------

    def validation_step(self, share: Share) -> None:
        """Adds one batch's sums."""
        self.add_sums(self._validation_sums, share)

    def on_validation_epoch_start(self) -> None:
        """Starts the sums at nothing."""
        self._validation_sums = {}

    def on_validation_epoch_end(self) -> None:
        """Sums over the ranks and leaves `validation_metrics`."""
        self.validation_metrics = self.close_sums(self._validation_sums, "val")

    def evaluate(self, feed: Feed, prefix: str) -> dict[str, float]:
        """Returns the metrics of a whole split, such as `{"test/loss": 0.1}`. Called on all ranks."""
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
                _add(sums, outcome)

    def close_sums(self, sums: Sums, prefix: str) -> dict[str, float]:
        """Returns the means over all ranks."""
        names = ["loss", "count", *self.metric_names]
        totals = torch.cat([_column([sums], name, self.device) for name in names])
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

    def val_dataloader(self) -> _Shares:
        """Returns the validation split."""
        return _Shares(self.validation_feed)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Returns the batch as it is: splits in memory live on the device, others are moved share by share."""
        return batch

    @property
    def engine(self) -> Engine:
        """Returns the strategy, as what the steps ask of it."""
        return cast(Engine, self.trainer.strategy)

    @property
    def engine_world_size(self) -> int:
        """Returns the number of ranks."""
        return self.train_feed.place.world_size

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        return self.trainer.strategy.optimizers[0]

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


class _Shares:
    """One pass over a split."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __len__(self) -> int:
        return self.feed.batches_per_epoch

    def __iter__(self) -> Iterator[Share]:
        return self.feed.shares(0, self.feed.batches_per_epoch)


def _add(sums: Sums, outcome: Outcome) -> None:
    for name, value in {"loss": outcome.loss_sum.detach(), "count": outcome.counted, **outcome.sums}.items():
        sums[name] = sums[name] + value if name in sums else value


def _column(recorded: Sequence[Sums], name: str, device: torch.device) -> Tensor:
    """Returns one sum of each step, float64 (S,); a rank that counted nothing has nothing to add."""
    values = [sums.get(name, 0.0) for sums in recorded]
    if all(isinstance(value, Tensor) for value in values):
        return torch.stack(cast("list[Tensor]", values)).detach().to(device, torch.float64)
    return torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
