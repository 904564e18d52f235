"""569 breast masses, 30 measurements each, benign or malignant; comes with scikit-learn.

Source: Street, Wolberg and Mangasarian 1993, "Nuclear feature extraction for breast tumor diagnosis".
"""

from __future__ import annotations

import numpy as np
import torch

from headway.config.contracts import Data, DataSpec
from headway.data._splits import SplitFractions, column_scaling, fingerprint_arrays, pooled, standardise


class Config(SplitFractions):
    """Configures the table: 30 features standardised on the training part, 2 classes."""

    def load(self) -> Data:
        """Returns the table in three parts."""
        from sklearn.datasets import load_breast_cancer

        bunch = load_breast_cancer()
        parts = self.parts(len(bunch.data))
        tensors = {
            "input": standardise(bunch.data, parts[0]),
            "target": torch.from_numpy(bunch.target.astype(np.int64)),
        }
        spec = DataSpec(
            input_kind="features",
            input_shape=(bunch.data.shape[1],),
            num_classes=2,
            feature_names=tuple(str(name) for name in bunch.feature_names),
            class_names=tuple(str(name) for name in bunch.target_names),
        )
        reading = {"scaling": column_scaling(bunch.data, parts[0]).plain()}
        fingerprint = fingerprint_arrays(bunch.data, bunch.target)
        return pooled(spec, parts, tensors, fingerprint=fingerprint, reading=reading)
