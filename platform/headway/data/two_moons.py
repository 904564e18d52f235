"""Two half circles that reach into each other: the least that a linear classifier cannot separate."""

from __future__ import annotations

import numpy as np

from headway.config.contracts import Data
from headway.config.keys import derive
from headway.data._toys import Points


class Config(Points):
    """Configures the moons, of radius 1 around (0, 0) and (1, 0.5); `seed` draws the points as well."""

    def load(self) -> Data:
        """Returns the points in three parts."""
        generator = np.random.default_rng(derive(self.split_seed(), "two_moons"))
        label = np.arange(self.num_samples) % 2
        angle = generator.uniform(0, np.pi, self.num_samples)
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        lower = np.array([1.0, 0.5]) - upper
        points = np.where(label[:, None] == 1, lower, upper)
        return self.split_points(points + generator.normal(0, self.noise, points.shape), label)
