"""569 breast masses, 30 measurements each, benign or malignant; comes with scikit-learn.

Source: Street, Wolberg and Mangasarian 1993, "Nuclear feature extraction for breast tumor diagnosis".
"""

from __future__ import annotations

import torch

from headway.config.contracts import Data, DataSpec
from headway.data._bundled import breast_cancer
from headway.data._splits import SplitFractions, column_scaling, fingerprint_arrays, pooled, standardise


class Config(SplitFractions):
    """Configures the table: 30 features standardised on the training part, 2 classes."""

    def load(self) -> Data:
        """Returns the table in three parts."""
        table = breast_cancer()
        parts = self.parts(len(table.values))
        tensors = {"input": standardise(table.values, parts[0]), "target": torch.from_numpy(table.target)}
        spec = DataSpec(
            input_kind="features",
            input_shape=(table.values.shape[1],),
            num_classes=2,
            feature_names=table.feature_names,
            class_names=table.class_names,
        )
        reading = {"scaling": column_scaling(table.values, parts[0]).plain()}
        fingerprint = fingerprint_arrays(table.values, table.target)
        return pooled(spec, parts, tensors, fingerprint=fingerprint, reading=reading)
