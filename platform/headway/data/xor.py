"""Exclusive or: the four corners of a square, of class 1 where exactly one coordinate is positive.

Source: Minsky and Papert 1969, "Perceptrons"; the smallest problem that needs a hidden layer.
"""

from __future__ import annotations

import numpy as np

from headway.config.contracts import Data
from headway.config.keys import derive
from headway.data._toys import Points


class Config(Points):
    """Configures the corners (+-1, +-1) and the noise around them; with none, parts share their points."""

    def load(self) -> Data:
        """Returns the points in three parts."""
        generator = np.random.default_rng(derive(self.split_seed(), "xor"))
        corner = np.arange(self.num_samples) % 4
        # Counted around the square, so that the classes alternate.
        positive = np.stack([corner >= 2, (corner == 1) | (corner == 2)], axis=1)
        label = positive[:, 0] ^ positive[:, 1]
        points = 2.0 * positive - 1.0
        return self.split_points(points + generator.normal(0, self.noise, points.shape), label)
