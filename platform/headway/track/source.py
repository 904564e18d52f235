"""The state of the code that makes a run: the commit, and what differs from it. Imports no torch."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from headway.run import JOB_FOLDER_VARIABLE

CODE_FILE = "code.json"
_MAX_DIFF_BYTES = 200_000
_MAX_PATCH_BYTES = 5_000_000
_SOURCES = ("*.py", "*.pyi", "*.yaml", "*.yml", "*.toml", "*.cfg", "*.sh")
"""Files that git does not know yet and that a patch takes along; anything else may be data, or secret."""


@cache
def code_state(folder: Path) -> dict[str, Any]:
    """Returns the git commit of a folder, and the diff where it is dirty; {} outside a repository.

    It is that of the process's first run, whose modules those after it use.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    diff = _git(folder, "diff", "HEAD") or ""
    untracked = (_git(folder, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    state: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(diff or untracked)}
    if diff:
        state["diff"] = diff[:_MAX_DIFF_BYTES]
        state["diff_truncated"] = len(diff) > _MAX_DIFF_BYTES
    if untracked:
        state["untracked"] = untracked[:200]
    return state


def submitted_code() -> dict[str, Any]:
    """Returns the code's state as it was where this job was submitted; {} outside a job."""
    folder = os.environ.get(JOB_FOLDER_VARIABLE)
    if folder is None:
        return {}
    try:
        state = json.loads((Path(folder) / CODE_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def code_patch(folder: Path) -> str:
    """Returns what `git apply` makes of a folder's commit what is there now; "" where nothing differs.

    New files of source code are in it, others are not. "" also outside a repository.
    """
    if _git(folder, "rev-parse", "HEAD") is None:
        return ""
    with tempfile.TemporaryDirectory() as scratch:
        # An index of its own: the person's is left as it is.
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        _git(folder, "read-tree", "HEAD", environment=index)
        _git(folder, "add", "--update", "--", ":/", environment=index)
        listed = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *_SOURCES, environment=index)
        new = [name for name in (listed or "").split("\0") if name]
        if new:
            _git(folder, "add", "--", *new[:1000], environment=index)
        patch = _git(folder, "diff", "--cached", "--binary", "HEAD", environment=index) or ""
    return patch if len(patch) <= _MAX_PATCH_BYTES else ""


def _git(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout
