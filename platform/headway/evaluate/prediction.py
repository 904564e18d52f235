"""What a net says of inputs from outside its data: classes and probabilities, or values in the target's unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from headway.config.errors import UserError
from headway.data._reading import read_inputs, to_target_unit
from headway.evaluate.loading import LoadedRun

_ROWS = 256
"""Inputs that go through the net at once."""


@dataclass(frozen=True)
class Prediction:
    """What is predicted of one input."""

    input: str
    probabilities: dict[str, float] = field(default_factory=dict)
    """By class, the likeliest first; none where the target is no class."""
    values: dict[str, float] = field(default_factory=dict)
    """By target, in its own unit; none where it is a class."""


@dataclass(frozen=True)
class Predictions:
    """What is predicted of all inputs, in their order."""

    rows: list[Prediction]
    notes: list[str]
    """What a person should know of how the inputs were read."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        rows = [{key: value for key, value in asdict(row).items() if value != {}} for row in self.rows]
        return {"predictions": rows, "notes": self.notes}


def predict(run: LoadedRun, given: Sequence[str]) -> Predictions:
    """Returns what a run's net says of image files, rows of values or CSV files, by what it was trained on.

    Raises:
        UserError: an input that cannot be read, or a net that predicts neither a class nor real values.
    """
    spec = run.spec
    run.selection.refuse_unless_target("predict")
    inputs = read_inputs(given, spec=spec, reading=run.reading)
    output_NC = run_net(run, inputs.values)
    if output_NC.ndim != 2 or output_NC.shape[1] != (spec.num_classes or spec.target_size):
        raise UserError(
            f"predict: {run.name} is a {run.model.kind} that returns {tuple(output_NC.shape[1:])} values of a sample, "
            f"which are no {'classes' if spec.num_classes else 'targets'}"
        )
    # Of an input that is several samples the mean.
    chosen_NC = torch.softmax(output_NC.double(), 1) if spec.num_classes else to_target_unit(output_NC, run.reading)
    means = [rows_MC.mean(0).tolist() for rows_MC in torch.split(chosen_NC, inputs.rows)]
    show = _by_class if spec.num_classes else _by_target
    return Predictions([show(label, row, run) for label, row in zip(inputs.labels, means, strict=True)], inputs.notes)


def _by_class(label: str, probabilities: list[float], run: LoadedRun) -> Prediction:
    names = run.spec.class_names or [str(number) for number in range(len(probabilities))]
    ranked = sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])
    return Prediction(label, probabilities=dict(ranked))


def _by_target(label: str, values: list[float], run: LoadedRun) -> Prediction:
    names = run.reading.get("target_names") or [f"target {place + 1}" for place in range(len(values))]
    return Prediction(label, values=dict(zip(names, values, strict=True)))


@torch.no_grad()
def run_net(run: LoadedRun, input_N: Tensor) -> Tensor:
    """Returns the net's raw output for inputs, on the CPU."""
    dtype = next(run.net.parameters()).dtype
    chunks = [
        chunk.to(run.device, dtype if chunk.is_floating_point() else None) for chunk in torch.split(input_N, _ROWS)
    ]
    return torch.cat([run.net(chunk).cpu() for chunk in chunks])
