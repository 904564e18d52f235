"""The state that each row of a batch carries to the next batch: truncated back-propagation through time.

A rank keeps it by micro-batch. A checkpoint has it whole, over the rows of the global batch, so that a run can go
on with another number of ranks or another size of micro-batch.
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from headway.config.contracts import State
from headway.feed import MicroBatch


class CarriedState:
    """One rank's part of it."""

    def __init__(self) -> None:
        self._by_place: dict[int, State] = {}
        """The state after each micro-batch of the last step."""
        self._loaded: State = {}
        """A checkpoint's state over the global batch, until the first step has taken it."""

    def before(self, place: int, micro: MicroBatch, device: torch.device) -> State | None:
        """Returns what a micro-batch's rows start from."""
        if place in self._by_place or not self._loaded:
            return self._by_place.get(place)
        rows = slice(micro.first_row, micro.first_row + micro.num_rows)
        return {name: value[rows].to(device) for name, value in self._loaded.items()}

    def replace(self, by_place: dict[int, State]) -> None:
        """Takes the state after each micro-batch of a step."""
        self._by_place = by_place

    def gather(self, world_size: int) -> State:
        """Returns the state over the rows of the global batch; called on all ranks alike."""
        own = [self._by_place[place] for place in sorted(self._by_place)]
        mine = {name: torch.cat([state[name] for state in own]).cpu() for name in own[0]} if own else {}
        everyone: list[State] = [mine]
        if world_size > 1:
            everyone = [{} for _ in range(world_size)]
            dist.all_gather_object(everyone, mine)
        held = [state for state in everyone if state]
        if not held:
            return dict(self._loaded)
        return {name: torch.cat([state[name] for state in held]) for name in held[0]}

    def load(self, state: State) -> None:
        """Sets the state that the rows of the next batch start from."""
        self._by_place = {}
        self._loaded = state
