"""What the synthetic sets of points in the plane share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from headway.config.contracts import Data, DataSpec
from headway.data._splits import SplitFractions, fingerprint_arrays, pooled


class Points(SplitFractions):
    """Configures points (x, y) of two classes, in the plane's own coordinates: not standardised."""

    num_samples: PositiveInt = 500
    """Points over all parts, half of each class."""
    noise: float = Field(default=0.1, ge=0)
    """Standard deviation of what is added to each coordinate."""

    def split_points(self, points: NDArray[Any], label: NDArray[Any]) -> Data:
        """Returns the points in three parts."""
        tensors = {
            "input": torch.from_numpy(points.astype(np.float32)),
            "target": torch.from_numpy(label.astype(np.int64)),
        }
        spec = DataSpec(
            input_kind="features",
            input_shape=(2,),
            num_classes=2,
            feature_names=("x", "y"),
            class_names=("0", "1"),
        )
        fingerprint = fingerprint_arrays(*tensors.values())
        return pooled(spec, self.parts(len(points)), tensors, fingerprint=fingerprint)
