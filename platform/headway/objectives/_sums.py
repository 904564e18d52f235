"""Sums over what was counted, by name: of a step, of a validation, on one rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from headway.config.contracts import Outcome

Sums = dict[str, Tensor | float]
"""Plain numbers where they are known without asking a device."""


def add_outcome(sums: Sums, outcome: Outcome) -> None:
    """Adds what a micro-batch counted."""
    for name, value in {"loss": outcome.loss_sum.detach(), "count": outcome.counted, **outcome.sums}.items():
        sums[name] = sums[name] + value if name in sums else value


def column(recorded: Sequence[Sums], name: str, device: torch.device) -> Tensor:
    """Returns one sum of each step, float64 (S,); a rank that counted nothing has nothing to add."""
    values = [sums.get(name, 0.0) for sums in recorded]
    if all(isinstance(value, Tensor) for value in values):
        return torch.stack(cast("list[Tensor]", values)).detach().to(device, torch.float64)
    return torch.tensor([float(value) for value in values], dtype=torch.float64, device=device)
