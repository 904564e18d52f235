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
        keys: (seed, step) of each row.
        rates: the dropout rates of each row, by layer, (K,).
        num_samples: N.
        device: where masks are made.
    """

    def __init__(
        self,
        keys: Sequence[tuple[int, int]],
        rates: Mapping[int, Tensor],
        num_samples: int,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        distinct = list(dict.fromkeys(keys))
        super().__init__(0, 0, 0, num_samples * len(distinct), device=device)
        sample_N = np.arange(num_samples, dtype=np.uint64)
        self._row_keys = np.concatenate([hash_rows(seed, step, sample_N) for seed, step in distinct], axis=1)
        self._num_distinct, self._num_samples = len(distinct), num_samples
        self._which_K = torch.tensor([distinct.index(key) for key in keys], device=device)
        self._rates = rates
        self._scales: dict[int, Tensor] = {}
        self.row: Tensor | None = None
        """Which row is asked for: under vmap all of them, as one batched number."""

    def scale(self, layer: int, row_shape: Sequence[int], rate: float, dtype: torch.dtype) -> Tensor:
        """Returns (N, *row_shape) of the row that is asked for; `rate` is the template's and means nothing."""
        if layer not in self._scales:
            bits = self.bits(layer, row_shape).view(self._num_distinct, self._num_samples, *row_shape)
            bits = bits if self._num_distinct == 1 else bits[self._which_K]
            rate_K = self._rates[layer]
            column = (-1, *[1] * (1 + len(row_shape)))
            kept = bits >= (rate_K * RANGE).to(torch.int64).view(column)
            self._scales[layer] = kept.to(dtype).mul_((1.0 / (1.0 - rate_K)).to(dtype).view(column))
        assert self.row is not None
        return self._scales[layer][self.row]
