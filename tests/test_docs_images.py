"""The pictures of the documentation: there, told of in words, and made by a script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = [
    ((page.parent / path).resolve(), words)
    for page in PAGES
    for words, path in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text())
]
pytestmark = pytest.mark.quick


def test_every_picture_that_is_shown_is_there_and_told_of_in_words() -> None:
    assert SHOWN
    assert [path.name for path, words in SHOWN if not path.is_file() or not words] == []


def test_every_picture_is_shown_and_can_be_made_again() -> None:
    made = re.findall(r"Picture\(\s*\"([a-z-]+)\"", (ROOT / "docs" / "make_images.py").read_text())
    there = sorted(path.stem for path in (ROOT / "docs" / "images").iterdir())
    assert there == sorted(made)
    assert there == sorted({path.stem for path, _ in SHOWN})
