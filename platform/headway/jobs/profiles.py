"""Reads a cluster profile: `--on gpu` is `cluster/gpu.yaml` of yours, or one that comes along."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from headway.config.errors import UserError, suggestion
from headway.config.kinds import check_kind, resolve_kind
from headway.config.overrides import override, parse_assignments
from headway.config.reading import read_file
from headway.config.section import validate_section
from headway.config.shipped import shipped_folder
from headway.launch.base import LAUNCHERS, Launcher


def load_profile(name_or_path: str, changes: Iterable[str] = ()) -> Launcher:
    """Returns a profile, with changes such as `nodes=4`.

    Raises:
        UserError: there is none, or something in it is wrong: one line with the setting, its value and the remedy.
    """
    path = find_profile(name_or_path)
    tree = override(read_file(path), parse_assignments(changes))
    try:
        tree = check_kind(LAUNCHERS, tree, ())
        profile = validate_section(resolve_kind(LAUNCHERS, str(tree["kind"])), tree, path="")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    assert isinstance(profile, Launcher)
    return profile


def find_profile(name_or_path: str) -> Path:
    """Returns a profile's file.

    Raises:
        UserError: neither a file nor the name of one here or of one that comes along.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"--on: {name_or_path}: no such file")
        return path
    known = known_profiles()
    if name_or_path not in known:
        raise UserError(f"--on: {name_or_path}: no such profile{suggestion(name_or_path, known)}")
    return known[name_or_path]


def known_profiles() -> dict[str, Path]:
    """Returns the profiles by name: those that come along, and those in ./cluster and ~/.config/headway/cluster."""
    folders = [shipped_folder("cluster"), Path.home() / ".config" / "headway" / "cluster", Path("cluster")]
    return {
        path.stem: path
        for folder in folders
        for pattern in ("*.yaml", "*/*.yaml")
        for path in sorted(folder.glob(pattern))
    }
