"""The page's scripts: read by the browser as they are, and without a way from data to markup."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import headway.dash

ASSETS = Path(headway.dash.__file__).parent / "assets"
SCRIPTS = sorted(ASSETS.glob("*.js"))
INDEX = (ASSETS / "index.html").read_text()
pytestmark = pytest.mark.quick


def test_the_page_loads_every_script_once() -> None:
    loaded = re.findall(r'<script defer src="assets/([^"?]+)\?v=VERSION"></script>', INDEX)
    assert sorted(loaded) == [path.name for path in SCRIPTS]
    assert INDEX.count("<script") == len(loaded)


def test_nothing_in_the_page_is_inline() -> None:
    assert not re.search(r"<style|\son\w+=|javascript:|style=", INDEX)
    assert INDEX.index("<!-- EXPORT -->") < INDEX.index("<script")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_makes_no_markup_from_text(path: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|https?://(?!www\.w3\.org)"
    assert re.findall(ways, path.read_text()) == []


def test_scripts_parse() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed here")
    for path in SCRIPTS:
        checked = subprocess.run([node, "--check", str(path)], capture_output=True, text=True, timeout=30)
        assert checked.returncode == 0, checked.stderr
