"""Finds the data that comes with headway: recipes and cluster profiles.

They live at the top of the repository and travel in the wheel as `headway/recipes` and
`headway/cluster`. An editable install has only the former, a wheel only the latter: look in both.
"""

from __future__ import annotations

from pathlib import Path

from headway.config.errors import UserError, suggestion


def shipped_folder(name: str) -> Path:
    """Returns the folder `recipes` or `cluster` of a wheel or of a checkout."""
    package = Path(__file__).parents[1]
    for folder in (package / name, package.parents[1] / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"headway is installed without its {name}/")


def shipped_recipes() -> dict[str, Path]:
    """Returns the recipes that come along, by name: one for each architecture, then those of the lessons."""
    folder = shipped_folder("recipes")
    return {path.stem: path for pattern in ("*.yaml", "*/*.yaml") for path in sorted(folder.glob(pattern))}


def find_recipe(name_or_path: str) -> Path:
    """Returns the recipe file that a user named.

    Raises:
        UserError: neither a file nor the name of a recipe that comes along.
    """
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
        if path.is_dir() and (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
    except OSError as error:
        raise UserError(f"{name_or_path[:200]}: cannot be read ({error.strerror})") from None
    recipes = shipped_recipes()
    if name_or_path in recipes:
        return recipes[name_or_path]
    if path.suffix in (".yaml", ".yml") or "/" in name_or_path:
        raise UserError(f"{name_or_path}: no such file; `headway recipes` lists what comes along")
    raise UserError(f"{name_or_path}: no such recipe{suggestion(name_or_path, recipes)}")
