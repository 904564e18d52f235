"""The adding problem: two of many numbers are marked; their sum is asked for after the last step.

Source: Hochreiter and Schmidhuber 1997, section 5.4, in the form of Arjovsky, Shah and Bengio 2016, section 5.2:
numbers are uniform in [0, 1), one is marked in each half. Always answering 1 has a squared error of 1/6.

Shapes: N sequences, T steps.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field, PositiveInt

from headway.config.contracts import Data, DataSpec
from headway.config.keys import derive
from headway.data._splits import SplitFractions, fingerprint_arrays, pooled


class Config(SplitFractions):
    """Configures the sequences, which are drawn from `seed`."""

    num_samples: PositiveInt = 10_000
    """Sequences over all parts."""
    length: int = Field(default=50, ge=2, le=100_000)
    """Steps of a sequence; a net has to remember over about half of them."""

    def load(self) -> Data:
        """Returns the sequences in three parts: `input` is (N, T, 2), a number and its mark; `target` (N, 1)."""
        generator = np.random.default_rng(derive(self.split_seed(), "adding"))
        count, half = self.num_samples, self.length // 2
        number_NT = generator.random((count, self.length), np.float32)
        marked_N2 = np.stack([generator.integers(0, half, count), generator.integers(half, self.length, count)], axis=1)
        mark_NT = np.zeros((count, self.length), np.float32)
        np.put_along_axis(mark_NT, marked_N2, 1.0, axis=1)
        target_N1 = np.take_along_axis(number_NT, marked_N2, axis=1).sum(1, keepdims=True)
        tensors = {
            "input": torch.from_numpy(np.stack([number_NT, mark_NT], axis=2)),
            "target": torch.from_numpy(target_N1),
        }
        spec = DataSpec(
            input_kind="sequence", input_shape=(self.length, 2), target_size=1, feature_names=("number", "mark")
        )
        return pooled(spec, self.parts(count), tensors, fingerprint=fingerprint_arrays(*tensors.values()))
