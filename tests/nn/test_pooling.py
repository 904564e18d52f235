"""Pooling against torch's, and the output-size formula against what torch makes."""

import itertools

import pytest
import torch
from torch import nn

from headway.nn.pooling import L2Pool, build_pooling, output_pixels

pytestmark = pytest.mark.quick


def test_the_formula_is_what_a_filter_bank_and_a_pooling_give():
    for size, window, stride, padding in itertools.product((7, 11, 32), (1, 3, 5), (1, 2, 4), (0, 1, 2)):
        x = torch.zeros(1, 1, size, size)
        got = nn.Conv2d(1, 1, window, stride=stride, padding=padding)(x).shape[-1]
        assert output_pixels(size, window=window, stride=stride, padding=padding) == got
        assert output_pixels(size, window=window, stride=stride) == nn.MaxPool2d(window, stride)(x).shape[-1]


@pytest.mark.parametrize(
    ("kind", "twin"), [("max", nn.MaxPool2d), ("average", nn.AvgPool2d), ("l2", lambda *a: nn.LPPool2d(2, *a))]
)
@pytest.mark.parametrize(("size", "stride"), [(2, 2), (3, 2), (3, 1)])
def test_pooling_is_torchs(kind, twin, size, stride):
    x = torch.randn(2, 3, 11, 7, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = build_pooling(kind, size, stride)(ours), twin(size, stride)(theirs)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_l2_pooling_of_nothing_has_no_gradient_rather_than_none_at_all():
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    L2Pool(2, 2)(x).sum().backward()
    assert x.grad.eq(0).all()
