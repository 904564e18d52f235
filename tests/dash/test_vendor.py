"""What the page uses of others is what its maker published, and says so."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import headway.dash

pytestmark = pytest.mark.quick
VENDOR = Path(headway.dash.__file__).parent / "assets" / "vendor"


def test_echarts_is_the_file_that_its_readme_names() -> None:
    readme = (VENDOR / "README.md").read_text()
    sums = dict(re.findall(r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", readme, flags=re.MULTILINE))
    assert set(sums) == {path.name for path in VENDOR.glob("*.js")}
    for name, digest in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_echarts_comes_with_its_licence() -> None:
    assert "Apache License" in (VENDOR / "LICENSE").read_text()
    assert "Apache ECharts" in (VENDOR / "NOTICE").read_text()
    assert "Copyright 2010-2016 Mike Bostock" in (VENDOR / "LICENSE-d3").read_text()
