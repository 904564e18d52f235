"""What several architectures read off a `DataSpec`."""

from __future__ import annotations

from headway.config.contracts import DataSpec
from headway.config.errors import UserError


def output_size(spec: DataSpec, *, model: str) -> int:
    """Returns the number of outputs a net needs: classes, or real targets.

    Raises:
        UserError: the data has neither.
    """
    size = spec.num_classes or spec.target_size
    if size is None:
        raise UserError(f"model.kind: {model} predicts a class or real values, which this data has not; use a gpt")
    return size


def default_objective(spec: DataSpec) -> str:
    """Returns the objective that a net with one output a class or target has by nature."""
    return "classify" if spec.num_classes else "regress"
