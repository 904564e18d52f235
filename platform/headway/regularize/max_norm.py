"""Max-norm: a unit's incoming weights are scaled back when their norm passes a limit.

A unit's incoming weights are a row of a layer's matrix, or a whole filter; each gate of a recurrent layer
is a unit, and its weights from the input and from the state are limited apart. The outputs are units
too. An embedding has none: its rows are what a token sends out, and stay as they are, as does an output layer
that is tied to one.

Source: Srivastava et al. 2014, section 5.1.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from headway.config.contracts import DataSpec, Engine, RegularizeConfig
from headway.regularize.base import Idle


class Config(RegularizeConfig):
    """Configures `MaxNorm`."""

    limit: float = Field(gt=0)
    """Largest norm of a unit's incoming weights; the source uses 3 to 4."""

    def build(self, spec: DataSpec, *, seed: int) -> MaxNorm:
        """Returns the technique."""
        return MaxNorm(self.limit)


class MaxNorm(Idle):
    """Projects the incoming weights of each unit onto a ball after every update."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._spared: set[str] = set()

    def attach(self, net: nn.Module) -> None:
        """Notes which weights are embeddings."""
        embeddings = {module.weight for module in net.modules() if isinstance(module, nn.Embedding)}
        self._spared = {name for name, weight in net.named_parameters() if weight in embeddings}

    def after_update(self, engine: Engine, step: int) -> None:
        """Scales back what is too long."""

        def project(name: str, weight: Tensor) -> None:
            if weight.ndim < 2 or name in self._spared:
                return
            incoming = weight.flatten(1)
            norm = torch.linalg.vector_norm(incoming, dim=1, keepdim=True)
            incoming.mul_((self.limit / norm).clamp_(max=1.0))

        engine.edit_weights(project)
