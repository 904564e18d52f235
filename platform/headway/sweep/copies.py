"""A sweep's state files, each in two copies: where one cannot be read, the other is used.

    plan.json       plan.copy.json
    status.json     status.copy.json

Both are replaced whole, so it takes a disk that loses data to damage one; a JSON object that was cut anywhere cannot be
read. The journal has no copy: what is before a damaged line counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headway.run import RunFolder


def write_both(folder: RunFolder, name: str, value: dict[str, Any]) -> None:
    """Replaces a JSON file and its copy."""
    for file in (name, copy_of(name)):
        folder.write_json(file, value)


def read_either(folder: Path, name: str) -> tuple[dict[str, Any], str | None]:
    """Returns a JSON file's object, {} where neither copy can be read, and a line for a person where the first cannot.

    A folder that never had the file gives {} and None.
    """
    run = RunFolder(folder)
    value = run.read_json(name)
    if value:
        return value, None
    other = run.read_json(copy_of(name))
    if other:
        return other, f"{folder / name} is damaged; its copy {copy_of(name)} is used"
    damaged = any((folder / file).exists() for file in (name, copy_of(name)))
    return {}, f"{folder / name} is damaged, and there is no copy of it" if damaged else None


def copy_of(name: str) -> str:
    """Returns the name of a file's copy."""
    return f"{Path(name).stem}.copy{Path(name).suffix}"
