"""Weights of an earlier run: what was learned without labels, or from other data, starts a net that goes on from it.

Weights are taken where name and shape are the same, from the run's best checkpoint; all others are drawn. An
autoencoder's encoder starts an mlp so, and a bert that guessed masked words one that classifies.

Source: Hinton and Salakhutdinov 2006; Erhan et al. 2010, "Why does unsupervised pre-training help deep learning?".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import field_validator
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from headway.config.contracts import INIT, InitConfig
from headway.config.errors import UserError, suggestion
from headway.config.kinds import resolve_kind
from headway.init.base import WeightInit
from headway.run import RunFolder

_SCHEMES = [name for name in INIT.names() if name not in ("from_run", "huggingface", "mup")]


class Config(WeightInit):
    """Configures which run, and how the other weights start."""

    run: str
    """Folder of the run, such as runs/autoencoder-digits-1."""
    otherwise: str = "kaiming"
    """Scheme that draws the weights which the run has not, with its own defaults."""

    @field_validator("run")
    @classmethod
    def _absolute(cls, run: str) -> str:
        # The run folder's recipe repeats the run from wherever it is started.
        return str(Path(run).expanduser().resolve())

    @field_validator("otherwise")
    @classmethod
    def _is_a_scheme(cls, otherwise: str) -> str:
        if otherwise not in _SCHEMES:
            raise ValueError(f"{otherwise!r} is no scheme{suggestion(otherwise, _SCHEMES)}")
        return otherwise

    def fill(self, weight: Tensor, *, generator: torch.Generator) -> None:
        """Draws one weight in place."""
        scheme: Any = resolve_kind(INIT, self.otherwise)
        config: InitConfig = scheme(kind=self.otherwise, seed=self.seed)
        config.fill(weight, generator=generator)

    def given(self, net: nn.Module) -> dict[str, Tensor]:
        """Returns the weights that the run has.

        Raises:
            UserError: no such run, one without a checkpoint, or one that shares no weight with this net.
        """
        run = RunFolder(Path(self.run))
        if not run.recipe.is_file():
            raise UserError(f"init.run: {self.run} is no run; `headway runs` lists those that are there")
        best = run.status().get("best") or {}
        file = run.checkpoints / f"{int(best.get('step', -1)):08d}" / "weights.safetensors"
        wanted = net.state_dict()
        found: dict[str, Tensor] = {}
        try:
            with safe_open(file, framework="pt") as weights:
                names = list(weights.keys())
                for name in names:
                    if name in wanted and list(wanted[name].shape) == weights.get_slice(name).get_shape():
                        found[name] = weights.get_tensor(name)
        except (OSError, SafetensorError):
            raise UserError(f"init.run: {self.run} has no checkpoint that can be read; train it first") from None
        if not found:
            raise UserError(
                f"init.run: {self.run} has no weight of the name and shape of this net's; "
                f"it has {', '.join(names[:3])}, and the net {', '.join(list(wanted)[:3])}"
            )
        return found
