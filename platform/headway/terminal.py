"""What a command says to a person: results on standard output, all else on standard error."""

from __future__ import annotations

import json
import sys
from typing import Any


def tell(line: str) -> None:
    """Says something that is not the result."""
    print(line, file=sys.stderr)  # noqa: T201 - the command's word to a person


def print_json(value: dict[str, Any]) -> None:
    """Prints one JSON object on one line."""
    print(json.dumps(value, default=str))  # noqa: T201 - the command's output


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Prints rows under their columns' names, in the terminal's width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
