"""A table of your own: a CSV or Parquet file with named columns.

Numbers are standardised on the training part. A column of strings becomes one column a category,
1 where the row has it; the categories are those of the training part, and a row with another one has
0 in all of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from headway.config.contracts import Data, DataSpec
from headway.config.errors import UserError, suggestion
from headway.data._splits import SplitFractions, column_scaling, fingerprint_file, pooled, standardise
from headway.data._table_file import Column, read_table

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class Config(SplitFractions):
    """Configures the file, what to predict and from what."""

    path: str = Field(min_length=1)
    """The file: .csv, .csv.gz or .parquet, with the columns' names in it."""
    target: Names
    """Column to predict; for regress, any number of them."""
    task: Literal["classify", "regress"]
    """Whether the target is a class or real values."""
    features: Names | None = None
    """Columns to predict from; all but the target when absent."""
    standardise_target: bool = True
    """Whether the targets of regress are standardised on the training part, so that a loss of 1 is the mean's."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """Character between the values of a CSV file."""
    max_categories: PositiveInt = 100
    """Most categories that a column of strings may have."""

    def load(self) -> Data:
        """Returns the table in three parts.

        Raises:
            UserError: a file that cannot be read, an unknown column, or a missing value, by row and column.
        """
        path = Path(self.path).expanduser()
        columns = read_table(path, delimiter=self.delimiter)
        target = self._pick(columns, self.target, "data.target")
        features = self._pick(columns, self._feature_names(columns), "data.features")
        parts = self.parts(len(target[0].values))
        names, encoded, reading = self._encode(features, parts[0])
        spec = DataSpec(input_kind="features", input_shape=(len(names),), feature_names=tuple(names))
        if self.task == "classify":
            class_names, target_N = self._classes(target)
            spec = replace(spec, num_classes=len(class_names), class_names=class_names)
        else:
            target_N = self._real_values(target, parts[0])
            spec = replace(spec, target_size=len(target))
            reading["target_names"] = list(self.target)
            if self.standardise_target:
                reading["target_scaling"] = column_scaling(_stacked(target), parts[0]).plain()
        tensors = {"input": encoded, "target": target_N}
        return pooled(spec, parts, tensors, fingerprint=fingerprint_file(path), reading=reading)

    def _feature_names(self, columns: dict[str, Column]) -> tuple[str, ...]:
        names = self.features or tuple(name for name in columns if name not in self.target)
        if not names:
            raise UserError(f"data.target: {', '.join(self.target)} is all that {self.path} has; nothing to learn from")
        if both := [name for name in names if name in self.target]:
            raise UserError(f"data.features: {', '.join(both)} is also in data.target; take it out of one of them")
        return names

    def _pick(self, columns: dict[str, Column], names: tuple[str, ...], setting: str) -> list[Column]:
        for name in names:
            if name not in columns:
                raise UserError(f"{setting}: {self.path} has no column {name!r}{suggestion(name, columns)}")
            columns[name].refuse_gaps(setting=setting, path=self.path)
        if len(set(names)) < len(names):
            raise UserError(f"{setting}: {', '.join(names)} names a column twice; take one out")
        return [columns[name] for name in names]

    def _encode(self, features: list[Column], train: Tensor) -> tuple[list[str], Tensor, dict[str, Any]]:
        """Returns the encoded columns' names, float32 values (rows, columns), and how to encode another row."""
        names: list[str] = []
        blocks: list[Tensor] = []
        columns: list[dict[str, Any]] = []
        mean: list[float] = []
        std: list[float] = []
        for column in features:
            if not column.is_text:
                names.append(column.name)
                blocks.append(standardise(column.values[:, None], train))
                columns.append({"name": column.name})
                scaling = column_scaling(column.values[:, None], train).plain()
                mean, std = mean + scaling["mean"], std + scaling["std"]
                continue
            categories = np.unique(column.values[train.numpy()])
            if len(categories) > self.max_categories:
                raise UserError(
                    f"data.max_categories: {self.max_categories}, but column {column.name!r} of {self.path} has "
                    f"{len(categories):,} of them; raise it, or leave the column out of data.features"
                )
            names += [f"{column.name}={category}" for category in categories]
            blocks.append(torch.from_numpy((column.values[:, None] == categories).astype(np.float32)))
            columns.append({"name": column.name, "categories": categories.tolist()})
            mean, std = mean + [0.0] * len(categories), std + [1.0] * len(categories)
        reading = {"columns": columns, "delimiter": self.delimiter, "scaling": {"mean": mean, "std": std}}
        return names, torch.cat(blocks, 1), reading

    def _classes(self, target: list[Column]) -> tuple[tuple[str, ...], Tensor]:
        """Returns the names of the classes, in order, and each row's class (rows,)."""
        if len(target) > 1:
            raise UserError(f"data.target: {', '.join(self.target)}; classify takes one column, regress several")
        (column,) = target
        if not column.is_text and np.any(column.values % 1):
            raise UserError(
                f"data.target: {column.name} of {self.path} has fractions, which are no classes; set data.task: regress"
            )
        # Over all rows: a class that the training part happens to lack still needs its number.
        values, number = np.unique(column.values, return_inverse=True)
        if len(values) < 2:
            raise UserError(
                f"data.target: {column.name} of {self.path} is {values[0]} in every row; give it two classes"
            )
        names = tuple(str(value) if column.is_text else f"{value:.0f}" for value in values)
        return names, torch.from_numpy(number.astype(np.int64).reshape(-1))

    def _real_values(self, target: list[Column], train: Tensor) -> Tensor:
        """Returns float32 (rows, targets)."""
        for column in target:
            if column.is_text:
                raise UserError(
                    f"data.target: {column.name} of {self.path} is text ({column.values[0]!r}); "
                    "set data.task: classify, or name a column of numbers"
                )
        values = _stacked(target)
        return standardise(values, train) if self.standardise_target else torch.from_numpy(values.astype(np.float32))


def _stacked(columns: list[Column]) -> NDArray[Any]:
    """Returns (rows, columns)."""
    return np.stack([column.values for column in columns], axis=1)
