"""Reads the columns of a CSV or Parquet file as plain arrays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headway.config.errors import UserError


@dataclass(frozen=True)
class Column:
    """A named column."""

    name: str
    values: NDArray[Any]
    """float64, NaN where a value is missing, or strings, None where one is."""
    is_text: bool
    type_name: str
    """As the file has it."""
    is_usable: bool = True
    """False for dates, lists and other things that are neither numbers nor strings."""

    def refuse_gaps(self, *, setting: str, path: str) -> None:
        """Raises a UserError for a column of another type, and for the first value that is missing or infinite."""
        if not self.is_usable:
            raise UserError(
                f"{setting}: column {self.name!r} of {path} is {self.type_name}, neither numbers nor text; "
                "convert it, or leave it out with data.features"
            )
        gap_N = (
            np.array([value is None for value in self.values])
            if self.is_text
            else ~np.isfinite(self.values.astype(np.float64))
        )
        if gap_N.any():
            row = int(gap_N.argmax())
            infinite = not self.is_text and np.isinf(self.values[row])
            raise UserError(
                f"{setting}: row {row + 1} of {path} has {'an infinite' if infinite else 'no'} value in column "
                f"{self.name!r} ({int(gap_N.sum()):,} such rows); fill it in, take the row out, "
                "or leave the column out with data.features"
            )


def read_table(path: Path, *, delimiter: str) -> dict[str, Column]:
    """Returns the columns by name, in the file's order.

    Raises:
        UserError: a file that is missing, of another kind, damaged or empty, or a name that stands twice.
    """
    import pyarrow

    if not path.is_file():
        raise UserError(f"data.path: {path} is not there; name a .csv, .csv.gz or .parquet file")
    try:
        table = _read(path, delimiter)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"data.path: {path} cannot be read ({error})") from None
    if table.num_rows == 0:
        raise UserError(f"data.path: {path} has no rows; name a file that has")
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"data.path: {path} has two columns {twice[0]!r}; rename one")
    return {name: _column(name, table.column(name)) for name in table.column_names}


def _read(path: Path, delimiter: str) -> Any:
    """Returns a pyarrow Table."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        with path.open("rb") as file:
            return parquet.read_table(file, use_threads=False)
    if path.suffix == ".csv" or path.name.endswith(".csv.gz"):
        from pyarrow import csv

        return csv.read_csv(
            str(path),
            read_options=csv.ReadOptions(use_threads=False),
            parse_options=csv.ParseOptions(delimiter=delimiter),
            convert_options=csv.ConvertOptions(strings_can_be_null=True),
        )
    raise UserError(f"data.path: {path} is neither .csv, .csv.gz nor .parquet; convert it, or rename it if it is one")


def _column(name: str, chunked: Any) -> Column:
    import pyarrow

    kind = chunked.type
    if pyarrow.types.is_dictionary(kind):
        chunked = chunked.cast(kind.value_type)
        kind = chunked.type
    is_number = (
        pyarrow.types.is_integer(kind)
        or pyarrow.types.is_floating(kind)
        or pyarrow.types.is_boolean(kind)
        or pyarrow.types.is_decimal(kind)
        or pyarrow.types.is_null(kind)
    )
    if is_number:
        # Through int8, for there is no cast from a truth value or from nothing to a float.
        if pyarrow.types.is_boolean(kind) or pyarrow.types.is_null(kind):
            chunked = chunked.cast(pyarrow.int8())
        # Not safe: an integer beyond 2**53 loses digits that a float32 net would lose anyway.
        return Column(name, chunked.cast(pyarrow.float64(), safe=False).to_numpy(), False, str(kind))
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind):
        return Column(name, np.array(chunked.to_pylist(), dtype=object), True, str(kind))
    return Column(name, np.empty(len(chunked), dtype=object), False, str(kind), is_usable=False)
