"""Hands what a run measures to whoever listens: the metrics file, W&B, the progress line, a sweep."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

import psutil
import torch

from headway.config.contracts import Hooks
from headway.config.errors import Stopped, TrainingFailed
from headway.objectives._clock import COMMUNICATION, PARTS

if TYPE_CHECKING:
    from headway.objectives._chunks import Chunk
    from headway.objectives.base import Objective

Row = dict[str, Any]
OnReport = Callable[[dict[str, float]], bool]
"""Called with the metrics of each validation; False stops the run."""

HEARTBEAT_S = 5.0
PERFORMANCE_S = 1.0
"""Seconds of training between rows of performance."""


class Sink(Protocol):
    """Somewhere metrics go."""

    def write(self, rows: list[Row]) -> None:
        """Takes rows in order; each has `step`."""

    def close(self) -> None:
        """Finishes what was written."""


class Recorder(Hooks):
    """Writes rows on rank 0; ends the run when the loss is no number.

    Args:
        sinks: where rows go; empty on all ranks but the first.
        every: steps between training rows.
        tokens_per_sample: for tokens a second; None where samples are no sequences.
        flops_per_sample: counts a sample's operations, forward and backward; called once. None where it cannot.
        peak_flops: the most operations a second that the devices can do together; None where that is not known.
        heartbeat: called at most every few seconds with the step, on rank 0.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        every: int,
        tokens_per_sample: int | None = None,
        flops_per_sample: Callable[[], float | None] = lambda: None,
        peak_flops: float | None = None,
        heartbeat: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.sinks = sinks
        self.every = every
        self.tokens_per_sample = tokens_per_sample
        self.peak_flops = peak_flops
        self._count_flops = flops_per_sample
        self._flops_per_sample: float | None = None
        self._counted = False
        self.heartbeat = heartbeat
        self._beat = time.monotonic()
        self._since = _Since()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Chunk, batch_idx: int) -> None:
        """Writes the rows of a chunk.

        Raises:
            TrainingFailed: a loss is not finite; the rows up to it are written.
        """
        objective = cast("Objective", pl_module)
        report = objective.report
        self._since.add(report.num_samples, batch.num_steps, report.elapsed_s, report.data_s)
        broken = next((row for row in report.rows if not math.isfinite(row["train/loss"])), None)
        rows = [
            row | report.watched.get(int(row["step"]), {})
            for row in report.rows
            if (row["step"] % self.every == 0 or row["step"] in report.watched)
            and (broken is None or row["step"] < broken["step"])
        ]
        if rows and self.sinks and self._since.elapsed_s >= PERFORMANCE_S:
            if not self._counted:
                # Once, and only for a run that is long enough to be worth it.
                self._counted, self._flops_per_sample = True, self._count_flops()
            rows[-1] = rows[-1] | self.performance(objective)
        self.emit(rows)
        if broken is not None:
            raise TrainingFailed(
                f"train/loss is {broken['train/loss']} at step {broken['step']:.0f}; "
                "lower optim.lr, set trainer.clip_norm, or use a wider trainer.precision"
            )
        if time.monotonic() - self._beat >= HEARTBEAT_S:
            self._beat = time.monotonic()
            self.heartbeat(objective.step)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Writes the validation's row."""
        objective = cast("Objective", pl_module)
        self.emit([{"step": objective.step, **validation_report(objective), **self.performance(objective)}])

    def emit(self, rows: list[Row]) -> None:
        """Hands rows to every sink."""
        if rows:
            for sink in self.sinks:
                sink.write(rows)

    def close(self) -> None:
        """Closes every sink."""
        for sink in self.sinks:
            sink.close()

    def performance(self, objective: Objective) -> Row:
        """Returns the `perf/*` metrics since they were last asked for."""
        since, self._since = self._since, _Since()
        measured_steps, seconds = objective.clock.take()
        row: Row = {f"perf/{part}_time_s": seconds[part] for part in ("validation", "checkpoint") if seconds.get(part)}
        if since.steps == 0:
            return row
        rate = since.samples / since.elapsed_s
        row |= {
            "perf/samples_per_s": rate,
            "perf/step_time_s": since.elapsed_s / since.steps,
            "perf/data_time_s": since.data_s / since.steps,
            "perf/memory_bytes": _memory_bytes(objective.device),
        }
        if measured_steps:
            parts = [*PARTS, *([COMMUNICATION] if COMMUNICATION in seconds else [])]
            row |= {f"perf/{part}_time_s": seconds.get(part, 0.0) / measured_steps for part in parts}
        if self.tokens_per_sample is not None:
            row["perf/tokens_per_s"] = rate * self.tokens_per_sample
        if self._flops_per_sample is not None:
            row["perf/flops_per_s"] = rate * self._flops_per_sample
            if self.peak_flops is not None:
                row["perf/mfu"] = row["perf/flops_per_s"] / self.peak_flops
        return row


class Listener(Hooks):
    """Tells somebody of each validation, once its checkpoint is saved, and asks whether to go on.

    Args:
        on_report: called with the metrics on rank 0; False stops the run.
    """

    def __init__(self, on_report: OnReport) -> None:
        self.on_report = on_report

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Asks; all ranks hear the answer.

        Raises:
            Stopped: the listener ended the run where it is, rather than let it close as one that is done.
        """
        objective = cast("Objective", pl_module)
        answer: bool | tuple[str, int] = True
        if trainer.is_global_zero:
            # None are there where a run goes on with a validation.
            rows = objective.report.rows
            trained = {"train/loss": rows[-1]["train/loss"]} if rows else {}
            try:
                answer = self.on_report({"step": objective.step, **trained, **validation_report(objective)})
            except Stopped as stopped:
                answer = str(stopped), stopped.signal_number
        if objective.engine_world_size > 1:
            answer = trainer.strategy.broadcast(answer)
        if isinstance(answer, tuple):
            raise Stopped(answer[0], signal_number=answer[1])
        if not answer:
            trainer.should_stop = True


def validation_report(objective: Objective) -> dict[str, float]:
    """Returns the newest validation's metrics and the epochs behind it."""
    return {**objective.validation_metrics, "epoch": objective.step / objective.train_feed.batches_per_epoch}


class _Since:
    """Sums since the last row of performance."""

    def __init__(self) -> None:
        self.samples = self.steps = 0
        self.elapsed_s = self.data_s = 0.0

    def add(self, samples: int, steps: int, elapsed_s: float, data_s: float) -> None:
        self.samples += samples
        self.steps += steps
        self.elapsed_s += elapsed_s
        self.data_s += data_s


def _memory_bytes(device: torch.device) -> int:
    """Returns the peak of what this rank allocated on its GPU, or its resident memory on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return int(_process(os.getpid()).memory_info().rss)


@lru_cache(maxsize=1)
def _process(pid: int) -> psutil.Process:
    """Returns what tells of this process; the rows of an array ask hundreds of times a second."""
    return psutil.Process(pid)
