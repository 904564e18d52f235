"""1,797 handwritten digits of 8x8 pixels that come with scikit-learn: the images of a first run.

Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits" (the UCI test set).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from headway.config.contracts import Data, DataSpec
from headway.data._bundled import digits
from headway.data._splits import SplitFractions, fingerprint_arrays, pixel_scaling, pooled

_LARGEST = 16
"""A pixel's largest value."""


class Config(SplitFractions):
    """Configures the digits: 10 classes, standardised by one mean and deviation of the training pixels."""

    layout: Literal["features", "image"] = "features"
    """Shape of a sample: 64 features, or an image of 1x8x8."""

    def load(self) -> Data:
        """Returns the digits in three parts."""
        table = digits()
        images = torch.from_numpy(table.values.astype(np.uint8)).view(-1, 1, 8, 8)
        target = torch.from_numpy(table.target)
        parts = self.parts(len(images))
        scaling = pixel_scaling(images[parts[0]])
        pixels = scaling.apply(images, torch.float32)
        if self.layout == "features":
            pixels = pixels.flatten(1)
        spec = DataSpec(
            input_kind=self.layout,
            input_shape=tuple(pixels.shape[1:]),
            num_classes=10,
            class_names=table.class_names,
        )
        fingerprint = fingerprint_arrays(images, target)
        reading = {
            "image": {"channels": 1, "height": 8, "width": 8, "largest": _LARGEST, "pad": 0},
            "scaling": scaling.plain(),
        }
        return pooled(spec, parts, {"input": pixels, "target": target}, fingerprint=fingerprint, reading=reading)
