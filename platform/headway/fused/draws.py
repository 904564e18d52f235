"""The masks of K rows at once: what each of them would draw alone, to the bit.

Shapes: K rows of a stack, N samples of a batch, E elements of a sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from headway.nn.draws import RANGE, Draws, hash_rows


class StackDraws(Draws):
    """Stands in for `Draws` in a forward pass under `torch.vmap`, and gives each row its own mask.

    Args:
        rates: the dropout rates of each row, by layer, float64 (K,).
        device: where masks are made.
    """

    def __init__(self, rates: Mapping[int, Tensor], *, device: torch.device | str = "cpu") -> None:
        super().__init__(0, 0, 0, 0, device=device)
        # Bits are of 32, too: compared with numbers of 64, each of them would be made one first.
        self._least = {layer: (rate_K * RANGE).to(torch.int32) for layer, rate_K in rates.items()}
        self._kept = {layer: 1.0 / (1.0 - rate_K) for layer, rate_K in rates.items()}
        self._num_samples = self._num_distinct = 0
        self._which_K: Tensor | None = None
        self._scales: dict[tuple[int, tuple[int, ...]], Tensor] = {}
        self._asked: dict[int, tuple[tuple[int, ...], torch.dtype]] = {}
        self.row: Tensor | None = None
        """Which row is asked for: under vmap all of them, as one batched number."""
        self.masks: dict[int, Tensor] = {}
        """What `make_masks` returned, of the row: under vmap of all of them."""

    def begin(self, keys: Sequence[tuple[int, int]], num_samples: int) -> None:
        """Goes on to a step.

        Args:
            keys: (seed, step) of each row.
            num_samples: N.
        """
        distinct = list(dict.fromkeys(keys))
        sample_N = np.arange(num_samples, dtype=np.uint64)
        self._row_keys = np.concatenate([hash_rows(seed, step, sample_N) for seed, step in distinct], axis=1)
        self._num_distinct, self._num_samples = len(distinct), num_samples
        self._num_rows = num_samples * len(distinct)
        self._which_K = None
        if len(distinct) > 1:
            places = {key: place for place, key in enumerate(distinct)}
            self._which_K = torch.tensor([places[key] for key in keys], device=self.device)
        self._scales.clear()

    def bits(self, layer: int, row_shape: Sequence[int]) -> Tensor:
        """Returns int32 (N, *row_shape) of the row that is asked for, uniform over [0, 2**31)."""
        bits_KN = self._bits(layer, row_shape)
        if len(bits_KN) == 1:
            return bits_KN[0]
        assert self.row is not None
        return bits_KN[self.row]

    def _bits(self, layer: int, row_shape: Sequence[int]) -> Tensor:
        """Returns int32 (K, N, *row_shape); of one row alone where all draw alike."""
        bits = super().bits(layer, row_shape).view(self._num_distinct, self._num_samples, *row_shape)
        return bits if self._which_K is None else bits[self._which_K]

    def scale(self, layer: int, row_shape: Sequence[int], rate: float, dtype: torch.dtype) -> Tensor:
        """Returns (N, *row_shape) of the row that is asked for; `rate` is the template's and means nothing."""
        self._asked[layer] = tuple(row_shape), dtype
        made = self.masks.get(layer)
        if made is not None and made.shape == (self._num_samples, *row_shape) and made.dtype == dtype:
            return made
        assert self.row is not None
        return self._scale(layer, row_shape, dtype)[self.row]

    def make_masks(self) -> dict[int, Tensor]:
        """Returns (K, N, *row_shape) by layer, for all that the step before asked for: picking a row copies it."""
        return {layer: self._scale(layer, *asked) for layer, asked in self._asked.items()}

    def _scale(self, layer: int, row_shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Returns (K, N, *row_shape)."""
        key = layer, tuple(row_shape)
        if key not in self._scales:
            bits = self._bits(layer, row_shape)
            column = (-1, *[1] * (1 + len(row_shape)))
            kept = self._kept[layer].to(dtype).view(column)
            self._scales[key] = torch.where(bits >= self._least[layer].view(column), kept, 0.0)
        return self._scales[key]
