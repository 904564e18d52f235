"""Digits that were never written, 8x8 pixels each: what a net learns from them, it is asked about real ones.

Strokes and a font are drawn and distorted (`_glyphs.py`) until they look like scikit-learn's digits, which are the
test part as a whole: not one of them is seen before.

Source: the distortions are those of Simard, Steinkraus and Platt 2003, section 2, on forms drawn by hand.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from headway.config.contracts import Data, DataConfig, DataSpec
from headway.config.keys import derive
from headway.data._bundled import digits
from headway.data._glyphs import draw_digits
from headway.data._splits import TensorSplit, fingerprint_arrays, pixel_scaling

_LARGEST = 16
"""A pixel's largest value."""


class Config(DataConfig):
    """Configures the glyphs: 10 classes, standardised by one mean and deviation of the synthetic training pixels."""

    train: int = Field(default=10_000, ge=10, le=10_000_000)
    """Samples to train on, as many of each digit."""
    held_out: int = Field(default=1_000, ge=10, le=10_000_000)
    """Samples of the validation part, and of the test part where that is synthetic too."""
    test: Literal["real", "synthetic"] = "real"
    """What the test part is: the 1,797 real digits of scikit-learn, or glyphs like those of training."""
    layout: Literal["features", "image"] = "image"
    """Shape of a sample: 64 features, or an image of 1x8x8."""

    def load(self) -> Data:
        """Returns glyphs to train on and to choose by, and what is reported on."""
        parts = {
            "train": self._draw("train", self.train),
            "validation": self._draw("validation", self.held_out),
            "test": _real_digits() if self.test == "real" else self._draw("test", self.held_out),
        }
        scaling = pixel_scaling(parts["train"][0])
        splits = []
        for images, label_N in parts.values():
            pixels = scaling.apply(images, torch.float32)
            if self.layout == "features":
                pixels = pixels.flatten(1)
            splits.append(TensorSplit({"input": pixels, "target": label_N}))
        spec = DataSpec(
            input_kind=self.layout,
            input_shape=(1, 8, 8) if self.layout == "image" else (64,),
            num_classes=10,
            class_names=tuple(str(digit) for digit in range(10)),
        )
        fingerprint = fingerprint_arrays(*(tensor for part in parts.values() for tensor in part))
        reading = {
            "image": {"channels": 1, "height": 8, "width": 8, "largest": _LARGEST, "pad": 0},
            "scaling": scaling.plain(),
        }
        train, validation, test = splits
        return Data(spec, train, validation, test, fingerprint, reading=reading)

    def _draw(self, part: str, count: int) -> tuple[Tensor, Tensor]:
        """Returns uint8 images (N, 1, 8, 8) and labels (N,), drawn by the seed and the part's name."""
        label_N = np.arange(count) % 10
        images = draw_digits(label_N, np.random.default_rng(derive(self.split_seed(), "glyphs", part)))
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(label_N)


def _real_digits() -> tuple[Tensor, Tensor]:
    table = digits()
    return torch.from_numpy(table.values.astype(np.uint8)).view(-1, 1, 8, 8), torch.from_numpy(table.target)
