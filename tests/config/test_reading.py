"""YAML as its author meant it: the scalars of YAML 1.2, floats as people write them, and caps."""

import math

import pytest
import yaml

from headway.config.errors import UserError
from headway.config.reading import MAX_ALIASES, MAX_BYTES, MAX_DEPTH, MAX_VALUES, dump, read_file, read_text

pytestmark = pytest.mark.quick


def read(text):
    return read_text(text, source="here")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("3e-4", 3e-4), ("1E5", 1e5), ("+1e+2", 100.0), (".5", 0.5), ("1.", 1.0), ("-.5e3", -500.0), ("2.0", 2.0)],
        *[("7", 7), ("-7", -7), ("+7", 7), ("010", 10), ("0", 0)],
        *[("0o17", "0o17"), ("0x1f", "0x1f"), ("1_000", "1_000"), ("e5", "e5"), (".", "."), ("-", [None])],
        *[("-.inf", -math.inf), (".INF", math.inf), ("inf", "inf"), ("nan", "nan")],
        *[("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("y", "y"), ("true", True), ("FALSE", False)],
        *[("~", None), ("null", None), ("", None), ("'null'", "null"), ("'1'", "1"), ("None", "None")],
        *[("2026-01-02", "2026-01-02"), ("12:30:45", "12:30:45"), ("1e", "1e")],
        *[("1.2.3", "1.2.3"), ("=", "="), ("<<", "<<")],
        *[("[1, 2.0, x]", [1, 2.0, "x"]), ("{a: {b: 3}}", {"a": {"b": 3}}), ("!!str 3", "3"), ("!!float 3", 3.0)],
        *[("!!bool True", True), ("!!seq [2]", [2]), ("!!map {a: 2}", {"a": 2}), ("[&x 3, *x]", [3, 3])],
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text, value):
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_nan_is_a_number_that_is_none():
    assert math.isnan(read(".nan"))


def test_floats_are_exact():
    for value in (0.1, 1e-300, 1 / 3, 2.5e-5, 123456789.125):
        assert read(repr(value)) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "here: line 3: the key a stands twice"),
        ("x:\n  a: 1\n  a: 1", "here: line 3: the key a stands twice"),
        ("1: a", "here: line 1: the key 1 is not a name"),
        ("? [a]\n: b", "here: line 1: the key ['a'] is not a name"),
        ("? {a: b}\n: b", "here: line 1: the key {'a': 'b'} is not a name"),
        ("true: a", "here: line 1: the key True is not a name"),
        ("a: [1, 2", "here: line 1: expected ',' or ']'"),
        ("a: b: c", "here: line 1: mapping values are not allowed here"),
        ("a:\n\tb: 1", "here: line 2: found character '\\t' that cannot start any token"),
        ("'open", "here: line 1: found unexpected end of stream"),
        ("*nothing", "here: line 1: found undefined alias 'nothing'"),
        ("a: 1\n---\nb: 2", "here: line 2: but found another document"),
        ("&x [*x]", "here: line 1: found unconstructable recursive node"),
        ("a: &x {b: *x}", "here: line 1: found unconstructable recursive node"),
        ("9" * 41, "here: line 1: a number of more than 40 digits"),
        ("!!python/object/apply:os.system [ls]", "here: line 1: the tag !!python/object/apply:os.system is not known"),
        ("!!python/name:os.system", "here: line 1: the tag !!python/name:os.system is not known"),
        ("!mine 3", "here: line 1: the tag !mine is not known"),
        ("!!set {a, b}", "here: line 1: the tag !!set is not known"),
        ("!!timestamp soon", "here: line 1: the tag !!timestamp is not known"),
        ("!!binary aGk=", "here: line 1: the tag !!binary is not known"),
        ("!!bool maybe", "here: line 1: 'maybe' is neither true nor false"),
        ("!!int maybe", "here: not valid YAML: invalid literal for int()"),
        ("!!float maybe", "here: not valid YAML: could not convert string to float"),
        ("!!map [a, b]", "here: line 1: what is tagged a mapping is none"),
        ("!!seq {a: b}", "here: line 1: what is tagged a list is none"),
        ("a\x07b", "here: not valid YAML: unacceptable character #x0007"),
        ("a\udcffb", "here: not valid YAML: unacceptable character #xdcff"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, problem):
    with pytest.raises(UserError) as caught:
        read(text)
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


def test_nesting_has_a_cap():
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(UserError, match="nested more than 20 deep"):
        read("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_nesting_through_aliases_counts_as_written_out():
    levels = [f"a{level}: &a{level} [[[*a{level - 1}]]]" for level in range(1, 8)]
    assert read("\n".join(["a0: &a0 [1]", *levels[:6]]))
    with pytest.raises(UserError, match="nested more than 20 deep"):
        read("\n".join(["a0: &a0 [1]", *levels]))


def test_a_billion_laughs_are_refused_before_they_are_built():
    levels = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 10)]
    with pytest.raises(UserError, match="has more than"):
        read("\n".join(["a0: &a0 lol", *levels]))


def test_few_aliases_that_double_often_are_refused_too():
    # 34 aliases are within their cap, and stand for 2**17 values.
    levels = [f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 18)]
    with pytest.raises(UserError, match="more than 20,000 values"):
        read("\n".join(["a0: &a0 lol", *levels]))


def test_the_number_of_aliases_has_a_cap():
    assert len(read(f"[&x 1, {', '.join(['*x'] * MAX_ALIASES)}]")) == MAX_ALIASES + 1
    with pytest.raises(UserError, match="more than 50 aliases"):
        read(f"[&x 1, {', '.join(['*x'] * (MAX_ALIASES + 1))}]")


def test_the_number_of_values_has_a_cap():
    assert len(read(f"[{'1,' * (MAX_VALUES - 1)}]")) == MAX_VALUES - 1
    with pytest.raises(UserError, match="more than 20,000 values"):
        read(f"[{'1,' * MAX_VALUES}]")


def test_size_has_a_cap(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("#" * MAX_BYTES)
    with pytest.raises(UserError, match="is empty"):
        read_file(path)
    path.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(UserError, match=rf"^{path}: is larger than 256 KiB; a recipe is one page$"):
        read_file(path)
    with pytest.raises(UserError, match="larger than 256 KiB"):
        read("###" + "\N{EURO SIGN}" * (MAX_BYTES // 3))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: \xe9", bytes(range(256)), "a: 1".encode("utf-16")])
def test_what_is_no_utf_8_is_named(tmp_path, content):
    path = tmp_path / "binary.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: is not UTF-8 text"):
        read_file(path)


@pytest.mark.parametrize(("content", "found"), [("", "is empty"), ("# note\n", "is empty"), ("3", "holds a int"),
                                                ("[a]", "holds a list"), ("text", "holds a str")])  # fmt: skip
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content, found):
    path = tmp_path / "odd.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"^{path}: {found}; a recipe is a mapping of sections"):
        read_file(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: cannot be read \(No such file or directory\)"):
        read_file(tmp_path / "none.yaml")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_file(tmp_path)


@pytest.mark.parametrize(
    "value",
    [
        *["1e5", "1e-3", "2E7", "no", "010", "09", ".5", "1.", ".inf", "~", "", "null", "true"],
        *["2026-01-02", "12:30", "0x1f"],
        *["a: b", "# no comment", "*x", "&x", "!tag", "two\nlines", "\u00fcber", "\U0001f600", "- a", "'", '"', "%"],
        *[3e-4, 1e-300, 1e22, -0.0, math.inf, 7, -7, 2**63 - 1, True, None, [], {}, [None, 3], {"a": [{"b": "1e5"}]}],
    ],
)  # fmt: skip
def test_what_is_dumped_is_read_back_the_same(value):
    found = read(dump({"key": value}))["key"]
    assert found == value
    assert type(found) is type(value)


def test_other_readers_take_what_is_dumped_the_same_way():
    tree = {"a": "no", "b": "1e5", "c": 1e-5, "d": "010", "e": [1, "1", True, "true"]}
    assert yaml.safe_load(dump(tree)) == tree


def test_a_value_that_stands_twice_is_dumped_twice():
    shared = [2, 3]
    text = dump({"a": shared, "b": shared})
    assert "*" not in text
    assert read(text) == {"a": [2, 3], "b": [2, 3]}
