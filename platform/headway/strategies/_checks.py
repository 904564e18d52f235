"""What several strategies refuse, in one line."""

from __future__ import annotations

from headway.config.contracts import Place
from headway.config.errors import UserError


def refuse_fp16_on_cpu(place: Place, precision: str) -> None:
    """Raises a UserError for fp16-mixed without a GPU: its loss scaling is CUDA's."""
    if precision == "fp16-mixed" and place.device == "cpu":
        raise UserError("trainer.precision: fp16-mixed needs a GPU; use bf16-mixed or fp32 on the CPU")
