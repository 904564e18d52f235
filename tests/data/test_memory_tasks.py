"""The adding and the copying problem: what is asked is what the sequence says, and it depends on the seed alone."""

import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import adding, copying
from headway.data._windows import IGNORED

pytestmark = pytest.mark.quick

PARTS = ("train", "validation", "test")


def load(module, **settings):
    kind = module.__name__.rpartition(".")[2]
    tree = {"kind": kind, "seed": 3, "num_samples": 211, **settings}
    return validate_section(module.Config, tree, path="data").load()


def everything(data):
    parts = [getattr(data, part) for part in PARTS]
    batches = [part.gather(torch.arange(len(part)), epoch=0) for part in parts]
    return tuple(torch.cat([batch[name] for batch in batches]) for name in ("input", "target"))


@pytest.mark.parametrize("length", [2, 3, 23, 101])
def test_the_sum_of_the_two_marked_numbers_is_asked(length):
    data = load(adding, length=length)
    value, target = everything(data)
    assert value.shape == (211, length, 2)
    assert target.shape == (211, 1)
    assert value.dtype == target.dtype == torch.float32
    number, mark = value.unbind(2)
    assert mark[:, : length // 2].sum(1).eq(1).all()
    assert mark[:, length // 2 :].sum(1).eq(1).all()
    assert set(mark.unique().tolist()) <= {0.0, 1.0}
    assert ((number >= 0) & (number < 1)).all()
    torch.testing.assert_close((number * mark).sum(1, keepdim=True), target, rtol=0, atol=1e-6)
    assert data.spec.input_kind == "sequence"
    assert data.spec.input_shape == (length, 2)
    assert data.spec.target_size == 1


def test_answering_one_has_an_error_of_a_sixth():
    _, target = everything(load(adding, num_samples=20_011))
    assert abs((target - 1).square().mean().item() - 1 / 6) < 0.005


def test_every_step_of_a_half_is_marked_sometime():
    value, _ = everything(load(adding, num_samples=1009, length=11))
    assert value[:, :, 1].sum(0).min() > 50


@pytest.mark.parametrize(("length", "num_symbols", "alphabet"), [(1, 1, 2), (5, 3, 2), (23, 7, 8), (200, 10, 26)])
def test_the_symbols_are_asked_again_after_the_blanks(length, num_symbols, alphabet):
    data = load(copying, length=length, num_symbols=num_symbols, alphabet=alphabet)
    token, target = everything(data)
    steps = length + 2 * num_symbols + 1
    assert token.shape == target.shape == (211, steps)
    assert token.dtype == target.dtype == torch.int64
    assert token[:, :num_symbols].max() < alphabet
    assert token[:, num_symbols : num_symbols + length].eq(alphabet).all()
    assert token[:, num_symbols + length].eq(alphabet + 1).all()
    assert token[:, -num_symbols:].eq(alphabet).all()
    assert torch.equal(target[:, -num_symbols:], token[:, :num_symbols])
    assert target[:, :-num_symbols].eq(IGNORED).all()
    assert data.spec.vocab_size == alphabet + 2
    assert data.spec.input_kind == "tokens"
    assert data.spec.input_shape == (steps,)
    assert data.spec.num_classes is None


def test_a_sequence_to_copy_can_be_read():
    data = load(copying, length=5, num_symbols=3, alphabet=2)
    shown = data.decode(everything(data)[0][0].tolist())
    assert shown[:3].strip("ab") == ""
    assert shown[3:] == "_____:___"


def test_every_symbol_is_drawn_as_often():
    token, _ = everything(load(copying, num_samples=5003))
    share = torch.bincount(token[:, :10].flatten()).float() / 50_030
    assert (share - 1 / 8).abs().max() < 0.01


@pytest.mark.parametrize("module", [adding, copying])
def test_the_seed_and_nothing_else_says_what_is_drawn(module):
    torch.manual_seed(1)
    one = load(module)
    torch.manual_seed(2)
    two, other = load(module), load(module, seed=4)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    assert all(torch.equal(a, b) for a, b in zip(everything(one), everything(two), strict=True))
    assert [len(getattr(one, part)) for part in PARTS] == [147, 32, 32]


@pytest.mark.parametrize(
    ("module", "settings", "line"),
    [
        (adding, {"length": 1}, "data.length: input should be greater than or equal to 2 (got 1)"),
        (copying, {"length": 0}, "data.length: input should be greater than or equal to 1 (got 0)"),
        (copying, {"alphabet": 27}, "data.alphabet: input should be less than or equal to 26 (got 27)"),
        (copying, {"num_symbols": 0}, "data.num_symbols: input should be greater than 0 (got 0)"),
    ],
)
def test_sizes_that_make_no_task_are_refused(module, settings, line):
    with pytest.raises(UserError) as caught:
        load(module, **settings)
    assert str(caught.value) == line
