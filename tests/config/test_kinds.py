"""`kind:` names a file, or a class of the user's own where they trust it."""

import sys

import pytest

from headway.config.contracts import DATA, FAMILIES, INIT, MODEL, OBJECTIVE, STRATEGY
from headway.config.errors import UserError
from headway.config.kinds import check_kind, resolve_kind

pytestmark = pytest.mark.quick

OWN = """
from headway.config.contracts import InitConfig

class TheirConfig(InitConfig):
    def fill(self, weight, *, generator):
        weight.fill_(3.0)

not_a_class = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "their_init_for_a_test.py").write_text(OWN)
    (tmp_path / "their_broken_for_a_test.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    yield "their_init_for_a_test"
    sys.modules.pop("their_init_for_a_test", None)


def test_a_kind_is_a_file_of_its_folder():
    assert {"mlp", "gpt", "convnet", "logistic"} <= set(MODEL.names())
    assert {"single", "ddp", "fsdp", "deepspeed"} == set(STRATEGY.names())
    for family in FAMILIES:
        assert not [name for name in family.names() if name.startswith("_") or name == "base"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.section)
def test_every_file_of_a_family_has_its_config(family):
    for name in family.names():
        config = resolve_kind(family, name)
        assert issubclass(config, family.base)
        assert config.__doc__, name
        for field, info in config.model_fields.items():
            assert info.description, f"{family.section}.{field} of {name} is not described"


def test_a_name_alone_is_a_section():
    assert check_kind(MODEL, "mlp", ()) == {"kind": "mlp"}
    assert check_kind(MODEL, {"kind": "mlp", "hidden": [3]}, ()) == {"kind": "mlp", "hidden": [3]}


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ("mpl", "model.kind: 'mpl' is not known; did you mean mlp?"),
        ("zzzz", "model.kind: 'zzzz' is not known; there is "),
        ({"kind": "base"}, "model.kind: 'base' is not known"),
        ({"kind": "_sizes"}, "model.kind: '_sizes' is not known"),
        ({"kind": "../data/xor"}, "model.kind: '../data/xor' is not known"),
        ({"kind": ""}, "model.kind: '' is not known"),
        ({"kind": 3}, "model.kind: should be a name (got 3)"),
        ({"kind": ["mlp"]}, "model.kind: should be a name (got ['mlp'])"),
        ({"hidden": [3]}, "model.kind is missing; there is "),
        ({"kind": None}, "model.kind is missing; there is "),
        (3, "model: is 3; write model: {kind: ...}"),
        (["mlp"], "model: is ['mlp']; write model: {kind: ...}"),
        ("os:system:x", "model.kind: 'os:system:x' should be module:Class"),
        ("os path:C", "model.kind: 'os path:C' should be module:Class"),
        (":C", "model.kind: ':C' should be module:Class"),
        ("os:", "model.kind: 'os:' should be module:Class"),
        ("their.module:C", "model.kind: 'their.module:C' is code outside headway, which importing would run; "
                           "add --trust their.module if you trust it"),
    ],
)  # fmt: skip
def test_a_wrong_kind_is_answered_with_what_to_write(tree, line):
    with pytest.raises(UserError) as caught:
        check_kind(MODEL, tree, ())
    assert str(caught.value).startswith(line)


def test_checking_a_kind_imports_nothing(own):
    assert check_kind(INIT, f"{own}:TheirConfig", [own]) == {"kind": f"{own}:TheirConfig"}
    assert own not in sys.modules


def test_trust_is_of_a_module_and_those_inside_it():
    for trusted in ("their", "their.module"):
        assert check_kind(MODEL, "their.module:C", [trusted])
    for other in ("the", "their.mod", "their.module.inner", ""):
        with pytest.raises(UserError, match=r"add --trust their\.module"):
            check_kind(MODEL, "their.module:C", [other])


def test_a_class_of_ones_own_is_found(own):
    assert resolve_kind(INIT, f"{own}:TheirConfig").__name__ == "TheirConfig"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("Missing", r"cannot be imported: AttributeError: .* has no attribute 'Missing'"),
        ("not_a_class", r"is not a headway\.config\.contracts:InitConfig"),
    ],
)
def test_a_class_of_ones_own_that_is_none_is_refused(own, name, line):
    with pytest.raises(UserError, match=line):
        resolve_kind(INIT, f"{own}:{name}")


def test_a_class_of_another_family_is_refused(own):
    with pytest.raises(UserError, match=r"^data\.kind: .* is not a headway\.config\.contracts:DataConfig"):
        resolve_kind(DATA, f"{own}:TheirConfig")


def test_a_module_that_is_not_there_or_fails_is_named(own):
    with pytest.raises(
        UserError, match="cannot be imported: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    ):
        resolve_kind(OBJECTIVE, "nowhere_to_be_found:C")
    with pytest.raises(UserError, match="cannot be imported: ZeroDivisionError: division by zero"):
        resolve_kind(OBJECTIVE, "their_broken_for_a_test:C")
