"""A trained net, built from its run folder alone: the recipe's model, the spec of data.json, a checkpoint's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from headway.checkpoint import store
from headway.config.contracts import MODEL, OBJECTIVE, DataSpec, ModelConfig, ModuleConfig
from headway.config.errors import UserError
from headway.config.kinds import resolve_kind
from headway.config.section import validate_section
from headway.data._reading import plain_spec
from headway.evaluate.selection import Selection
from headway.nn.draws import name_streams


@dataclass(frozen=True)
class LoadedRun:
    """A net in evaluation mode and what it reads."""

    selection: Selection
    model: ModelConfig
    net: nn.Module
    spec: DataSpec
    reading: dict[str, Any]

    @property
    def name(self) -> str:
        """Returns the run's id."""
        return self.selection.run.id

    @property
    def objective(self) -> str:
        """Returns the kind of objective that the net was trained with."""
        named = self.selection.tree.get("objective")
        return str(named["kind"]) if named else self.model.default_objective(self.spec)

    @property
    def device(self) -> torch.device:
        """Returns where the net is."""
        return next(self.net.parameters()).device


def load_run(selection: Selection, *, device: str | None = None) -> LoadedRun:
    """Returns a run's net with a checkpoint's weights.

    Args:
        selection: which run and checkpoint.
        device: where to put the net; a GPU where there is one and the recipe does not forbid it, when absent.

    Raises:
        UserError: the run's net is a LightningModule of the user's own, or its weights are damaged or do not fit.
    """
    data = selection.data()
    spec, reading = plain_spec(data["spec"]), data["reading"]
    model = model_config(selection)
    net = name_streams(model.build(spec))
    weights = read_weights(selection.checkpoint)
    # Products in bf16 are for speed in training; its weights are float32 values too.
    net.to(torch.float64 if any(weight.dtype == torch.float64 for weight in weights.values()) else torch.float32)
    fill(net, weights, selection)
    net.to(choose_device(selection) if device is None else device)
    return LoadedRun(selection, model, net.eval(), spec, reading)


def model_config(selection: Selection) -> ModelConfig:
    """Returns the recipe's model section.

    Raises:
        UserError: it has none that can be built without a LightningModule of the user's own.
    """
    tree = selection.tree.get("model")
    objective = str((selection.tree.get("objective") or {}).get("kind", ""))
    if tree is None or (":" in objective and issubclass(resolve_kind(OBJECTIVE, objective), ModuleConfig)):
        raise UserError(
            f"{selection.run.id}: its objective {objective} is a LightningModule of your own, and what its net returns "
            "is its own affair; only headway eval can use it"
        )
    return cast(ModelConfig, validate_section(resolve_kind(MODEL, tree["kind"]), tree, path="model"))


def read_weights(checkpoint: Path) -> dict[str, Tensor]:
    """Returns a checkpoint's weights.

    Raises:
        UserError: they are damaged.
    """
    try:
        return store.load_weights(checkpoint)
    except store.Damaged as problem:
        raise UserError(f"{problem}; choose another with --checkpoint") from None


def fill(net: nn.Module, weights: dict[str, Tensor], selection: Selection) -> None:
    """Sets every weight and buffer of a net.

    Raises:
        UserError: names or shapes differ, because the code that made the run has changed since.
    """
    try:
        net.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        problem = str(error).split("\n\t", 1)[-1].split("\n", 1)[0].strip()
        raise UserError(
            f"{selection.checkpoint}: does not fit the net that this headway builds from the recipe ({problem}); "
            "use the headway of the run's manifest.json"
        ) from None


def choose_device(selection: Selection) -> str:
    """Returns `cuda` where there is one that the recipe does not forbid."""
    forbidden = (selection.tree.get("trainer") or {}).get("accelerator") == "cpu"
    return "cuda" if torch.cuda.is_available() and not forbidden else "cpu"
