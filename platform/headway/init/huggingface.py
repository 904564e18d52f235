"""Weights of a published checkpoint: a folder that transformers' `save_pretrained` wrote, or a downloaded one.

A gpt reads GPT-2's and GPT-1's, a bert reads BERT's. What the folder does not have (a classifier for other classes) is
drawn from N(0, std**2), as both papers draw all their weights.
"""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from headway.config.errors import UserError
from headway.init.base import WeightInit


class Config(WeightInit):
    """Configures where the weights are."""

    folder: str
    """Folder with config.json and model.safetensors."""
    std: float = Field(default=0.02, ge=0)
    """Standard deviation of the weights that the folder does not have."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: str) -> str:
        # The run folder's recipe repeats the run from wherever it is started.
        return str(Path(folder).expanduser().resolve())

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        weight.normal_(0.0, self.std, generator=generator)

    def given(self, net: nn.Module) -> dict[str, Tensor]:
        """Returns the folder's weights by the net's names.

        Raises:
            UserError: a net that has no such checkpoints, or one that they do not fit.
        """
        read = getattr(net, "from_huggingface", None)
        if read is None:
            raise UserError(
                f"init.kind: huggingface has weights for gpt and bert, and this net is a {type(net).__name__}"
            )
        weights: dict[str, Tensor] = read(Path(self.folder))
        return weights
