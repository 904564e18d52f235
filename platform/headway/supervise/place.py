"""Where this process stands: alone, one rank among many, or the one that starts a node's ranks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from headway.config.contracts import Device, Place
from headway.config.errors import UserError

if TYPE_CHECKING:
    from headway.recipe import TrainerSection


def rank_place(device: Device, environment: Mapping[str, str] = os.environ) -> Place | None:
    """Returns this rank's place where somebody has started it as a rank (torchrun, srun, Ray); else None.

    Raises:
        UserError: RANK is set but what goes with it is not.
    """
    if "RANK" not in environment:
        return None
    try:
        rank, world = int(environment["RANK"]), int(environment["WORLD_SIZE"])
        local_rank = int(environment.get("LOCAL_RANK", "0"))
        local_world = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    except (KeyError, ValueError) as error:
        raise UserError(f"RANK is set, but {error} is not; set WORLD_SIZE and LOCAL_RANK too, or unset RANK") from None
    return Place(rank, world, local_rank, local_world, device)


def choose_device(trainer: TrainerSection) -> Device:
    """Returns the device to train on.

    Raises:
        UserError: the recipe asks for a GPU that is not there.
    """
    import torch

    available = torch.cuda.is_available()
    if trainer.accelerator == "cuda" and not available:
        raise UserError("trainer.accelerator: cuda, but torch sees no GPU here; use cpu or auto (see `headway doctor`)")
    return "cuda" if available and trainer.accelerator != "cpu" else "cpu"


def devices_per_node(trainer: TrainerSection, device: Device, *, single: bool) -> int:
    """Returns the number of ranks on each node.

    Args:
        trainer: the recipe's section.
        device: what they train on.
        single: whether the strategy is one process.

    Raises:
        UserError: more GPUs asked for than there are.
    """
    import torch

    here = torch.cuda.device_count() if device == "cuda" else 1
    if trainer.devices == "auto":
        return 1 if single else here
    if device == "cuda" and trainer.devices > here:
        raise UserError(f"trainer.devices: {trainer.devices}, but this node has {here} GPUs; lower it, or add nodes")
    return trainer.devices
