"""Recipes read quickly are what the careful reader makes of them."""

import pytest

from headway.config.errors import UserError
from headway.config.reading import dump, read_file, read_text
from headway.config.shipped import shipped_recipes
from headway.dash.recipes import read_config

pytestmark = pytest.mark.quick


def flat(tree, prefix=""):
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_a_recipe_that_comes_along_is_read_as_it_is(name):
    tree = read_file(shipped_recipes()[name])
    for text in (dump(tree), shipped_recipes()[name].read_text()):
        found = read_config(text, source=name).as_dict()
        assert found == flat(tree)
        assert [type(value) for value in found.values()] == [type(value) for value in flat(tree).values()]


@pytest.mark.parametrize(
    "value",
    [
        "plain", "no", "Yes", "1e-3", 1e-3, 1, -7, 0.5, True, None, "", " ", "a: b", "- x", "-", "--", "---", "...",
        "'", '"', "it's", "#", "a #b", "a#b", "*x", "&x", "!x", "%x", "@x", "`x", "[", "{", "a,b", "1:30", "0x1F",
        "010", "1_000", ".5", "5.", "+.inf", "-.inf", ".nan", "+.5", "-.5", float("inf"), "null", "~", "a\nb", "ü",
        "\t", "a\tb", "  x", "x  ", "2001-01-01", "<<", "=", "?", "? x", "x" * 299, "words " * 60, [], {}, [1, 2],
        ["a", None], [[1], [2]], [{"a": 1}], {"b": {"c": [1]}}, ["- x", "a: b"], 10**39, "9" * 50,
    ],
)  # fmt: skip
def test_any_value_is_read_as_the_careful_reader_reads_it(value):
    tree = {"first": {"value": value, "after": 3}, "last": [value, value], "end": value}
    text = dump(tree)
    assert read_config(text, source="x").as_dict() == flat(read_text(text, source="x")) == flat(tree)


@pytest.mark.parametrize(
    "text",
    [
        "a:\n  b: 1\n c: 2\n",
        "a: 1\n  b: 2\n",
        "a:\n- 1\n  - 2\n",
        "a:\n  - 1\nb: 2\n",
        "a:\nb:\n  c:\n",
        "a:\n    b: 1\n",
        "a: 1\n\n\nb: 2\n",
        "# note\na: 1 # more\n",
        "a: |\n  text\nb: 1\n",
        "a: >-\n  x\n  y\n",
        "a: [1,\n 2]\n",
        "- 1\n- 2\n",
        "just text",
        "",
        "a:\n- b: 1\n  c: 2\n",
        "a: 'x\n  y'\n",
        "a: b\n  c\n",
        "? a\n: b\n",
        "a: 1\nb:\n- 1\nc: 3\n",
        "a:\n- 1\n\n- 2\n",
        "a: - 1\n",
        "a: 1\r\nb: 2\r\n",
        "a:\n  b:\n    c: 1\n  d: 2\n",
        "a.b: 1\n",
        "a:\n  b: 1\na.b: 2\n",
        "a: 1\na: 2\n",
        "a: {b: 1}\n",
        "%YAML 1.2\n---\na: 1\n",
        "---\na: 1\n",
        "a: 1\n---\nb: 2\n",
        "a: !!python/x y\n",
    ],
)
def test_any_text_is_read_as_the_careful_reader_reads_it_or_refused_as_it_refuses(text):
    try:
        tree = read_text(text, source="x")
    except UserError as error:
        with pytest.raises(UserError, match=r"^x"):
            read_config(text, source="x")
        assert str(error).startswith("x")
        return
    if isinstance(tree, dict):
        if text != "a:\n  b: 1\na.b: 2\n":  # two names for one place: either will do
            assert read_config(text, source="x").as_dict() == flat(tree)
    else:
        with pytest.raises(UserError, match="is no recipe"):
            read_config(text, source="x")


def test_a_bomb_of_aliases_is_refused_at_once():
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    with pytest.raises(UserError, match=r"values|aliases"):
        read_config("\n".join(lines), source="x")


def test_runs_of_one_shape_share_their_names():
    first, second = (read_config(f"a: {value}\nb: 2\n", source="x") for value in (1, 7))
    assert first.names is second.names
    assert (first.get("a"), second.get("a"), first.get("c"), second.has("b")) == (1, 7, None, True)
