"""Whether a recipe's data, net, objective and strategy go together: said in one line before anything starts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from headway.config.contracts import Data, ModuleConfig, Place
from headway.config.errors import UserError
from headway.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


def prepare(recipe: Recipe, place: Place, *, data: Data | None = None, restored: bool = False) -> Data:
    """Returns the data, having checked that data, net, objective and strategy go together.

    Nothing is trained and no process started: the net is built without memory for its weights.

    Args:
        recipe: what to check.
        place: where it would train.
        data: the recipe's, where it is loaded already.
        restored: whether a checkpoint will bring the weights.

    Raises:
        UserError: one line for the first thing that does not fit.
    """
    import torch

    recipe.strategy.check(place, recipe.trainer.precision)
    data = data or recipe.data.load()
    net = None
    if recipe.model is not None:
        try:
            with torch.device("meta"):
                net = recipe.model.build(data.spec)
        except (RuntimeError, OverflowError, TypeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"model: torch cannot make a net of these sizes ({reason}); make them smaller") from None
    if recipe.objective is not None:
        recipe.objective.check(data.spec)
    for technique in recipe.regularize.values():
        technique.check(data.spec, recipe.strategy)
        if net is not None:
            technique.build(data.spec, seed=0).attach(net)
    if place.rank == 0:
        _tell_of_unsettled(recipe, data)
    if recipe.init is not None and net is not None and not restored:
        _check_init(recipe, data, net)
    if recipe.init is not None and recipe.init.by_width and recipe.optim is not None and recipe.optim.kind != "adamw":
        raise UserError(f"optim.kind: {recipe.optim.kind} has other rates under init {recipe.init.kind}; use adamw")
    if recipe.optim is not None and recipe.optim.needs_closure:
        _check_full_batch(recipe, data)
    if recipe.trainer.monitor != "val/loss" and not isinstance(recipe.objective, ModuleConfig):
        _check_monitor(recipe, data)
    return data


def _tell_of_unsettled(recipe: Recipe, data: Data) -> None:
    """Says in a line where a technique needs more steps than there are: such a run may be meant to be gone on with."""
    longest = max(recipe.regularize.items(), key=lambda item: item[1].settled_after, default=None)
    if longest is None or longest[1].settled_after == 0:
        return
    name, config = longest
    steps = recipe.trainer.total_steps(recipe.trainer.batches(len(data.train)))
    if config.settled_after > steps:
        print(  # noqa: T201
            f"headway: regularize.{name}.end: {config.settled_after}, but the run has {steps} steps and ends before it "
            "has what was asked for; lower it, or train longer",
            file=sys.stderr,
        )


def _check_init(recipe: Recipe, data: Data, net: nn.Module) -> None:
    """Refuses an init whose source is not there, or that cannot scale this net."""
    assert recipe.init is not None
    if recipe.init.by_width:
        from headway.training import scales_by_width

        scales_by_width(recipe, data, net)
    recipe.init.given(net)


def _check_full_batch(recipe: Recipe, data: Data) -> None:
    """Refuses what an optimizer that evaluates the whole loss several times a step cannot do."""
    assert recipe.optim is not None
    kind, trainer = recipe.optim.kind, recipe.trainer
    if trainer.batch_size < len(data.train):
        raise UserError(
            f"trainer.batch_size: {trainer.batch_size} is part of {len(data.train)} samples, and {kind} needs them all "
            f"in one batch; set trainer.batch_size={len(data.train)}, or use another optim.kind"
        )
    if recipe.strategy.kind not in ("single", "ddp"):
        raise UserError(
            f"optim.kind: {kind} needs whole weights on every rank, and {recipe.strategy.kind} slices them; "
            "use strategy=ddp"
        )
    noise = recipe.regularize.get("noise")
    if getattr(noise, "weight", 0) or getattr(noise, "gradient", 0):
        raise UserError(
            f"regularize.noise: {kind} compares losses with their gradients, which noise on weights or gradients "
            "would part; leave it out"
        )
    for name in ("clip_norm", "clip_value"):
        limit = getattr(trainer, name)
        if limit is not None:
            raise UserError(
                f"trainer.{name}: {limit}, but {kind} measures its steps by the gradient, which clipping would change; "
                "leave it out"
            )
    if trainer.precision == "fp16-mixed":
        raise UserError(
            f"trainer.precision: fp16-mixed scales the gradient away from the loss that {kind} compares it with; "
            "use fp32"
        )


def _check_monitor(recipe: Recipe, data: Data) -> None:
    from headway.training import validation_metrics

    known = validation_metrics(recipe, data)
    if recipe.trainer.monitor not in known:
        raise UserError(
            f"trainer.monitor: there is no {recipe.trainer.monitor!r}; a validation gives {', '.join(known)}"
        )
