"""Searches on a narrow copy of a net, for the net itself: muP keeps the best settings where they are as width grows.

Before the search a coordinate check trains both nets for a few steps and compares how far each layer's outputs move:
under muP as far in a wide net as in a narrow one, otherwise further the wider it is.

Source: Yang et al. 2022, Tensor Programs V, algorithm 1 and appendix D.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headway.config.contracts import Data, Place
from headway.config.errors import UserError
from headway.supervise.place import choose_device
from headway.training import build_objective

if TYPE_CHECKING:
    from headway.objectives.base import Objective
    from headway.recipe import Recipe

STEPS = 4
SEEDS = (0, 1, 2)
MOST_GROWTH = 0.35
"""Largest exponent of width that passes: muP's is 0, and 0.5 or 1 where a layer is not muP's."""


@dataclass(frozen=True)
class Growth:
    """How far the outputs of one layer move in a wide net, against a narrow one."""

    layer: str
    exponent: float
    """The power of the width that their mean movement grows by."""


def check_proxy(narrow: Recipe, wide: Recipe, data: Data) -> list[Growth]:
    """Returns the growth of every layer, having found it small.

    Args:
        narrow: the recipe with the proxy's changes.
        wide: the recipe.
        data: theirs.

    Raises:
        UserError: the net is not muP's, so that what is found on the narrow one says nothing of the wide one.
    """
    if wide.init is None or not wide.init.by_width:
        raise UserError("sweep.proxy: what is best depends on the width, but under muP; set init.kind=mup")
    small, large = (recipe.model.main_width() or 0 if recipe.model else 0 for recipe in (narrow, wide))
    if not 0 < small < large:
        raise UserError(f"sweep.proxy: width {small} is not below the recipe's {large}; make the proxy narrower")
    found = growths(narrow, wide, data, factor=large / small)
    worst = max(found, key=lambda growth: growth.exponent)
    if worst.exponent > MOST_GROWTH:
        raise UserError(
            f"sweep.proxy: outputs of {worst.layer} move as width to the {worst.exponent:.2f}, where muP's move alike; "
            "the best settings of the proxy would not be the net's (check init.base_width and optim.lr)"
        )
    return found


def growths(narrow: Recipe, wide: Recipe, data: Data, *, factor: float) -> list[Growth]:
    """Returns how far each layer's outputs move in the wide net, as a power of the factor between the widths."""
    moved = [dict.fromkeys(_movement(narrow, data, SEEDS[0]), 0.0) for _ in range(2)]
    for seed in SEEDS:
        for sums, recipe in zip(moved, (narrow, wide), strict=True):
            for name, size in _movement(recipe, data, seed).items():
                sums[name] += size
    return [
        Growth(name, math.log(max(moved[1][name], 1e-30) / max(size, 1e-30)) / math.log(factor))
        for name, size in moved[0].items()
    ]


def _movement(recipe: Recipe, data: Data, seed: int) -> dict[str, float]:
    """Returns the mean absolute movement of each layer's outputs on one batch, over a few steps."""
    changed = recipe.model_copy(update={"trainer": recipe.trainer.model_copy(update={"seed": seed})})
    torch.manual_seed(seed)
    objective, _ = build_objective(changed, data, Place(device=choose_device(recipe.trainer)), for_trainer=False)
    before = _outputs(objective)
    _train(objective)
    after = _outputs(objective)
    return {name: float((after[name] - output).abs().mean()) for name, output in before.items()}


def _outputs(objective: Objective) -> dict[str, Tensor]:
    """Returns what each layer with weights makes of the first batch."""
    found: dict[str, Tensor] = {}
    layers = [
        (name, module)
        for name, module in objective.net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding)
    ]

    def note(name: str, output: Any) -> None:
        found[name] = output.detach().float().clone()

    hooks = [
        layer.register_forward_hook(lambda _module, _inputs, output, name=name: note(name, output))
        for name, layer in layers
    ]
    objective.net.eval()
    with torch.no_grad():
        objective.outcome(objective.net, objective.train_feed.share(0).micro_batches[0].batch, None, None)
    objective.net.train()
    for hook in hooks:
        hook.remove()
    return found


def _train(objective: Objective) -> None:
    """Makes a few steps, each at the recipe's own rate."""
    optimizer = objective.configure_optimizers()
    assert objective.optim is not None
    for step in range(STEPS):
        batch = objective.train_feed.share(step).micro_batches[0].batch
        outcome = objective.outcome(objective.net, batch, None, None)
        (outcome.loss_sum / outcome.counted).backward()  # type: ignore[no-untyped-call]
        for group in optimizer.param_groups:
            # Warm-up would hide what the rate does.
            group["lr"] = objective.optim.lr * group.get("lr_scale", 1.0)
        optimizer.step()
        optimizer.zero_grad()


def refuse_unless_model(proxy: Mapping[str, Any], space: Mapping[str, Any]) -> None:
    """Raises a UserError for a proxy that changes more than the net's size, or what is searched."""
    for path in proxy:
        if not path.startswith("model."):
            raise UserError(f"sweep.proxy: {path} is no size of the net; a proxy changes model settings alone")
        if path in space:
            raise UserError(f"sweep.proxy: {path} is in the space, too; leave it out of one")
