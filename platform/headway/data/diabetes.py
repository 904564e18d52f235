"""442 patients, 10 measurements each, and how far their diabetes went in a year; comes with scikit-learn.

The target is standardised on the training part like the features: a loss of 1 is that of always
guessing the mean, and a prediction is in standard deviations, not in the paper's scale of 25 to 346.

Source: Efron, Hastie, Johnstone and Tibshirani 2004, "Least angle regression".
"""

from __future__ import annotations

from headway.config.contracts import Data, DataSpec
from headway.data._splits import SplitFractions, column_scaling, fingerprint_arrays, pooled, standardise


class Config(SplitFractions):
    """Configures the table: 10 features and one real target, both standardised on the training part."""

    def load(self) -> Data:
        """Returns the table in three parts; `target` is (N, 1)."""
        from sklearn.datasets import load_diabetes

        bunch = load_diabetes(scaled=False)
        parts = self.parts(len(bunch.data))
        tensors = {
            "input": standardise(bunch.data, parts[0]),
            "target": standardise(bunch.target[:, None], parts[0]),
        }
        spec = DataSpec(
            input_kind="features",
            input_shape=(bunch.data.shape[1],),
            target_size=1,
            feature_names=tuple(str(name) for name in bunch.feature_names),
        )
        reading = {
            "scaling": column_scaling(bunch.data, parts[0]).plain(),
            "target_scaling": column_scaling(bunch.target[:, None], parts[0]).plain(),
            "target_names": ["progression"],
        }
        fingerprint = fingerprint_arrays(bunch.data, bunch.target)
        return pooled(spec, parts, tensors, fingerprint=fingerprint, reading=reading)
