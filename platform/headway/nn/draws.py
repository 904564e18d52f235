"""Draws that depend on what they are for and on nothing else.

Every mask or noise value is a hash of (seed, step, layer, row, element), where the row is the
sample's place in the global batch. So the same sample gets the same mask on one rank or four, after a
resume, with or without accumulation, and alone or as one row of an array of trials. Nothing is
drawn from a global generator and there is no state to save.

The hash is two rounds of a 32-bit multiply-xorshift finalizer with a second key word mixed in between.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (counter-based
generators); the multipliers are those of Chris Wellons' `lowbias32`.

Shapes: N rows, L layers, E elements of one row.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from headway.config.keys import derive
from headway.nn.uncompiled import uncompiled

_FIRST = 0x7FEB352D
_SECOND = 0x846CA68B - (1 << 32)  # as a signed 32-bit number
RANGE = 1 << 31
"""Bits of a draw are below it."""
_SMALL = 65_536
"""Up to as many values numpy is faster than torch on a CPU, two times for a small layer."""


class Draws:
    """The randomness of one forward pass: hand it to the net, whose layers take their own stream.

    Args:
        seed: the run's seed.
        step: the optimizer step, counted from 0.
        first_row: place of the first sample in the global batch; the others follow it.
        num_rows: N.
        device: where masks are made.
    """

    def __init__(
        self, seed: int, step: int, first_row: int, num_rows: int, *, device: torch.device | str = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self._seed, self._step = seed, step
        self._first_row, self._num_rows = first_row, num_rows
        self._row_N: NDArray[np.uint64] | None = None

    @classmethod
    def of_rows(cls, seed: int, step: int, row_N: Tensor, *, device: torch.device | str = "cpu") -> Draws:
        """Returns the randomness of rows that need not follow each other, such as samples by their number."""
        draws = cls(seed, step, 0, len(row_N), device=device)
        draws._row_N = row_N.cpu().numpy().astype(np.uint64)
        return draws

    @cached_property
    def _row_keys(self) -> NDArray[np.uint64]:
        """Two key words for each row, (2, N); made when a layer first draws."""
        row_N = self._row_N
        if row_N is None:
            row_N = np.arange(self._first_row, self._first_row + self._num_rows, dtype=np.uint64)
        return hash_rows(self._seed, self._step, row_N)

    # A compiler would trace the integers and give up on numpy's; a mask is an input to what it compiles.
    @uncompiled
    def bits(self, layer: int, row_shape: Sequence[int]) -> Tensor:
        """Returns int32 (N, *row_shape), uniform over [0, 2**31)."""
        elements = math.prod(row_shape)
        key_2N = _hash_layer(self._row_keys, layer)
        if self.device.type == "cpu" and elements * self._num_rows <= _SMALL:
            hash_NE = torch.from_numpy(
                _hash_elements(_element_counter(elements), key_2N[0][:, None], key_2N[1][:, None])
            )
        else:
            keys = torch.from_numpy(key_2N).to(self.device)
            counter = _element_counter_on(elements, self.device)
            hash_NE = _hash_elements(counter, keys[0].unsqueeze(1), keys[1].unsqueeze(1))
        return hash_NE.view(-1, *row_shape)

    def keep(self, layer: int, row_shape: Sequence[int], rate: float) -> Tensor:
        """Returns bool (N, *row_shape), False with probability `rate`."""
        return self.bits(layer, row_shape) >= int(rate * RANGE)

    def scale(self, layer: int, row_shape: Sequence[int], rate: float, dtype: torch.dtype) -> Tensor:
        """Returns (N, *row_shape): 0 with probability `rate`, else what keeps the mean."""
        # In the precision of what it multiplies: a bool times a number would be float32 whatever that is.
        return self.keep(layer, row_shape, rate).to(dtype).mul_(1.0 / (1.0 - rate))

    def uniform(self, layer: int, row_shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns (N, *row_shape), uniform over [0, 1)."""
        # float32 carries 24 bits: the upper ones.
        return (self.bits(layer, row_shape) >> 7).to(dtype) / (1 << 24)

    def normal(self, layer: int, row_shape: Sequence[int], *, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns (N, *row_shape), standard normal (Box and Muller 1958)."""
        radius = torch.sqrt(-2.0 * torch.log1p(-self.uniform(layer, row_shape, dtype=torch.float64)))
        angle = 2.0 * math.pi * self.uniform(layer ^ 0x5BD1E995, row_shape, dtype=torch.float64)
        return (radius * torch.cos(angle)).to(dtype)


class KeyedModule(nn.Module):
    """A layer that draws; its stream is named after its place in the net (`name_streams`)."""

    stream: int = 0


def name_streams(net: nn.Module) -> nn.Module:
    """Gives every drawing layer of a net a stream of its own, the same in every process; returns the net."""
    for name, module in net.named_modules():
        if isinstance(module, KeyedModule):
            module.stream = zlib.crc32(name.encode())
    return net


Words = TypeVar("Words", Tensor, NDArray[np.int32])


def _hash_elements(counter_1E: Words, first_N1: Words, second_N1: Words) -> Words:
    """Returns int32 (N, E) over [0, 2**31); numpy and torch do the same arithmetic, to the bit."""
    # Shifts of int32 keep the sign, so each xor-shift folds the sign bit away: two inputs to one
    # value, uniform still, and the last one leaves 31 bits.
    hash_NE = counter_1E + first_N1
    hash_NE ^= hash_NE >> 16
    hash_NE *= _FIRST
    hash_NE += second_N1
    hash_NE ^= hash_NE >> 15
    hash_NE *= _SECOND
    hash_NE ^= hash_NE >> 16
    return hash_NE


@lru_cache(maxsize=64)
def _element_counter(elements: int) -> NDArray[np.int32]:
    """Returns int32 (1, E): distinct, spread over the whole range by an odd multiplier."""
    counter_E = np.arange(elements, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(1 << 31)
    return counter_E.view(np.int32)[None, :]


@lru_cache(maxsize=64)
def _element_counter_on(elements: int, device: torch.device) -> Tensor:
    return torch.from_numpy(_element_counter(elements)).to(device)


def hash_rows(seed: int, step: int, row_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns two key words for each row of a step, (2, N)."""
    key = np.uint64(derive(seed, "draws", step))
    return _mix64(_mix64(row_N + key) ^ np.asarray([[0], [0x9E3779B97F4A7C15]], dtype=np.uint64))


def _hash_layer(row_key_2N: NDArray[np.uint64], layer: int) -> NDArray[np.int32]:
    """Returns int32 (2, N): two key words for each row of a layer."""
    # The row keys are well mixed already: a multiply-shift is enough to part the layers.
    keys = ((row_key_2N ^ _layer_key(layer)) * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(32)
    return keys.astype(np.uint32).view(np.int32)


@lru_cache(maxsize=4096)
def _layer_key(layer: int) -> np.uint64:
    return np.uint64(derive(layer, "layer"))


def _mix64(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Returns the finalizer of SplitMix64 (Steele, Lea and Flood 2014)."""
    value = value + np.uint64(0x9E3779B97F4A7C15)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
