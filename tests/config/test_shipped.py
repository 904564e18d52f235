"""Recipes are found by path and by name."""

from pathlib import Path

import pytest

from headway.config import shipped
from headway.config.errors import UserError
from headway.config.shipped import find_recipe, shipped_folder, shipped_recipes

pytestmark = pytest.mark.quick

ROOT = Path(__file__).parents[2]


def test_every_recipe_of_the_repository_comes_along():
    files = list((ROOT / "recipes").rglob("*.yaml"))
    assert sorted(shipped_recipes().values()) == sorted(files), "two of the same name, or one too deep to be found"
    assert all(path.stem == name for name, path in shipped_recipes().items())


def test_those_of_the_lessons_come_after_the_others():
    folders = [path.parent.name for path in shipped_recipes().values()]
    assert folders == sorted(folders, key=["recipes", "lessons"].index)
    assert find_recipe("xor-logistic") == ROOT / "recipes" / "lessons" / "xor-logistic.yaml"


def test_a_wheel_has_its_own_copy(tmp_path, monkeypatch):
    module = tmp_path / "site-packages" / "headway" / "config" / "shipped.py"
    recipes = tmp_path / "site-packages" / "headway" / "recipes"
    module.parent.mkdir(parents=True)
    recipes.mkdir()
    monkeypatch.setattr(shipped, "__file__", str(module))
    assert shipped_folder("recipes") == recipes
    with pytest.raises(FileNotFoundError, match="without its cluster/"):
        shipped_folder("cluster")


def test_a_recipe_is_found_by_name_by_path_and_by_run_folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("")
    other = tmp_path / "mine.yaml"
    other.write_text("")
    assert find_recipe("mlp-digits") == ROOT / "recipes" / "mlp-digits.yaml"
    assert find_recipe(str(other)) == other
    assert find_recipe(str(tmp_path)) == tmp_path / "recipe.yaml"


def test_a_file_in_the_way_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mlp-digits").write_text("")
    assert find_recipe("mlp-digits") == Path("mlp-digits")


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("mlp-digit", "mlp-digit: no such recipe; did you mean mlp-digits?"),
        ("zzz", "zzz: no such recipe; there is alexnet-cifar10, "),
        ("none.yaml", "none.yaml: no such file; `headway recipes` lists what comes along"),
        ("runs/none", "runs/none: no such file; `headway recipes` lists what comes along"),
        ("", ": no such recipe; there is "),
        ("x" * 5000, "x" * 200 + ": cannot be read (File name too long)"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(given, line):
    with pytest.raises(UserError) as caught:
        find_recipe(given)
    assert str(caught.value).startswith(line)
