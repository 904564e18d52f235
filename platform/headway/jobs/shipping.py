"""What travels with a job: the recipe as it was checked, the code's state, the lock of the environment.

The code that runs is the headway that is installed there; what is shipped says what it should be, and modules of
the person's own that the recipe names (`--trust`) come along as files.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Collection
from pathlib import Path

from headway.config.errors import UserError
from headway.launch.base import RECIPE_FILE
from headway.track.source import CODE_FILE, code_patch, code_state

PATCH_FILE = "code.patch"
LOCK_FILE = "environment.txt"
_MAX_MODULE_BYTES = 500_000


def shipped_files(recipe_yaml: str, trust: Collection[str]) -> dict[str, str]:
    """Returns the files of a job's folder, by name.

    Raises:
        UserError: a module of the person's own is too large to come along.
    """
    here = Path.cwd()
    state = {key: value for key, value in code_state(here).items() if key not in ("diff", "diff_truncated")}
    files = {RECIPE_FILE: recipe_yaml, LOCK_FILE: environment_lock()}
    patch = code_patch(here)
    if patch:
        files[PATCH_FILE] = patch
        state["patch"] = {"file": PATCH_FILE, "sha256": hashlib.sha256(patch.encode()).hexdigest()}
    files[CODE_FILE] = json.dumps(state, indent=2) + "\n"
    for module in trust:
        files.update(_module_files(module, here))
    return files


def environment_lock() -> str:
    """Returns every installed package with its version, as pip reads them."""
    found = {f"{one.metadata['Name']}=={one.version}" for one in importlib.metadata.distributions()}
    return "".join(f"{line}\n" for line in sorted(found, key=str.lower))


def _module_files(module: str, here: Path) -> dict[str, str]:
    """Returns the source of a module that lies where the person stands; one that is installed is in the lock."""
    top = module.partition(".")[0]
    alone = here / f"{top}.py"
    paths = [alone] if alone.is_file() else sorted((here / top).rglob("*.py"))
    files = {str(path.relative_to(here)): path.read_text() for path in paths}
    size = sum(map(len, files.values()))
    if size > _MAX_MODULE_BYTES:
        raise UserError(f"--trust: {module} is {size:,} bytes of source, too much to ship; install it where jobs run")
    return files
