"""Writes a sweep's trials as a table for others to read: one row a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from headway.config.errors import UserError
from headway.run import RunFolder
from headway.sweep.folder import SweepFolder
from headway.sweep.result import Trial

Form = Literal["csv", "parquet"]


def export_sweep(sweep: SweepFolder, form: Form, out: Path | None = None) -> tuple[Path, int]:
    """Writes the table and returns where it is and how many trials it has.

    Args:
        sweep: whose trials.
        form: csv or parquet.
        out: the file; trials.csv or trials.parquet of the sweep's folder when absent.

    Raises:
        UserError: there is no trial, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    result = sweep.result()
    if not result.trials:
        raise UserError(f"{sweep.id}: no trial has started; there is nothing to export")
    path = sweep.path / f"trials.{form}" if out is None else out
    table = pyarrow.table(_columns([_row(trial, result.metric) for trial in result.trials]))
    try:
        if form == "csv":
            pyarrow.csv.write_csv(table, str(path))
        else:
            pyarrow.parquet.write_table(table, str(path))
    except OSError as error:
        raise UserError(f"--out: {path} cannot be written ({error.strerror or error}); choose another file") from None
    return path, len(result.trials)


def _row(trial: Trial, metric: str) -> dict[str, Any]:
    final = RunFolder(Path(trial.run_dir)).status().get("final") or {}
    return {
        "run_id": trial.run_id,
        "status": trial.status,
        **trial.config,
        metric: trial.value,
        "step": trial.step,
        "reason": trial.reason,
        # The metric's best value stands under its own name; what it was at the end is another.
        **{f"final/{name}": value for name, value in final.items()},
    }


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _of_one_kind([row.get(name) for row in rows]) for name in names}


def _of_one_kind(values: list[Any]) -> list[Any]:
    """Returns a column's values, as JSON where a table could not hold them as they are: `[7, 5]` beside `none`."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) <= 1 and kinds <= {bool, int, float, str}:
        return values
    return [None if value is None else json.dumps(value) for value in values]
