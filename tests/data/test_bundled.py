"""Tables that are read from scikit-learn's files are those of its own functions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits

from headway.config.errors import UserError
from headway.data import _bundled

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    ("read", "expected"), [(_bundled.digits, load_digits), (_bundled.breast_cancer, load_breast_cancer)]
)
def test_a_table_is_what_scikit_learn_returns(read, expected):
    table, bunch = read(), expected()
    assert table.values.dtype == bunch.data.dtype
    assert np.array_equal(table.values, bunch.data)
    assert np.array_equal(table.target, bunch.target)
    assert list(table.feature_names) == list(bunch.feature_names)
    assert list(table.class_names) == [str(name) for name in bunch.target_names]


def test_a_scikit_learn_without_the_file_is_one_line(monkeypatch):
    monkeypatch.setattr(_bundled, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"^data.kind: this data comes with scikit-learn, which has no digits"):
        _bundled.digits()
