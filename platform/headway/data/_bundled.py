"""The small tables that come with scikit-learn, read from its files: to import it takes a second and 70 MB.

A test holds them against what scikit-learn's own functions return.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headway.config.errors import UserError

_MEASURED = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip


class Table(NamedTuple):
    """Samples and their classes."""

    values: NDArray[np.float64]
    """(N, F)."""
    target: NDArray[np.int64]
    """(N,)."""
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]


def digits() -> Table:
    """Returns 1,797 images of 8x8 pixels of 0 to 16, flat."""
    rows = np.loadtxt(_file("digits.csv.gz"), delimiter=",")
    names = tuple(f"pixel_{row}_{column}" for row in range(8) for column in range(8))
    return Table(rows[:, :-1], rows[:, -1].astype(np.int64), names, tuple(map(str, range(10))))


def breast_cancer() -> Table:
    """Returns 569 masses, 30 measurements each."""
    file = _file("breast_cancer.csv")
    with file.open() as lines:
        class_names = tuple(next(lines).strip().split(",")[2:])
        rows = np.loadtxt(lines, delimiter=",")
    ways = ("mean {}", "{} error", "worst {}")
    names = tuple(way.format(measured) for way in ways for measured in _MEASURED)
    return Table(rows[:, :-1], rows[:, -1].astype(np.int64), names, class_names)


def _file(name: str) -> Path:
    """Returns where scikit-learn has a file.

    Raises:
        UserError: nowhere.
    """
    package = find_spec("sklearn")
    for folder in (package.submodule_search_locations if package else None) or ():
        path = Path(folder) / "datasets" / "data" / name
        if path.is_file():
            return path
    raise UserError(f"data.kind: this data comes with scikit-learn, which has no {name} here; pip install scikit-learn")
