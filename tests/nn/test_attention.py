"""Attention against torch's own with the weights carried over, and no look into the future."""

import pytest
import torch
from torch import nn

from headway.nn.attention import CausalSelfAttention

pytestmark = pytest.mark.quick

B, T, H, D = 2, 7, 3, 15


@pytest.fixture
def x_BTD():  # noqa: N802 - names its axes
    return torch.randn(B, T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def twins(bias):
    torch.manual_seed(3)
    ours = CausalSelfAttention(D, H, bias=bias).double()
    theirs = nn.MultiheadAttention(D, H, bias=bias, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.out_proj.weight.copy_(ours.output.weight)
        if bias:
            theirs.in_proj_bias.copy_(ours.query_key_value.bias)
            theirs.out_proj.bias.copy_(ours.output.bias)
    return ours, theirs


@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torchs_multihead_attention(x_BTD, bias):
    ours, theirs = twins(bias)
    mask_TT = nn.Transformer.generate_square_subsequent_mask(T, dtype=torch.float64)
    one, two = x_BTD.clone().requires_grad_(), x_BTD.clone().requires_grad_()
    out = ours(one)
    expected, _ = theirs(two, two, two, attn_mask=mask_TT, need_weights=False, is_causal=True)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weighting = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    (out * weighting).sum().backward()
    (expected * weighting).sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.query_key_value.weight.grad, theirs.in_proj_weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.output.weight.grad, theirs.out_proj.weight.grad, rtol=0, atol=1e-12)
    if bias:
        torch.testing.assert_close(ours.query_key_value.bias.grad, theirs.in_proj_bias.grad, rtol=0, atol=1e-12)


def test_causal_mask_hides_the_future(x_BTD):
    ours, _ = twins(True)
    out = ours(x_BTD)
    for now in range(T):
        changed = x_BTD.clone()
        changed[:, now + 1 :] += 100.0
        assert torch.equal(ours(changed)[:, : now + 1], out[:, : now + 1])


def test_a_token_looks_at_itself_and_at_everything_before(x_BTD):
    ours, _ = twins(True)
    x_BTD.requires_grad_()
    for now in range(T):
        (gradient,) = torch.autograd.grad(ours(x_BTD)[:, now].sum(), x_BTD)
        seen = gradient.abs().sum((0, 2)) > 1e-9
        assert seen.tolist() == [place <= now for place in range(T)]


def test_one_sequence_does_not_look_at_another(x_BTD):
    ours, _ = twins(True)
    changed = x_BTD.clone()
    changed[1] += 100.0
    assert torch.equal(ours(changed)[0], ours(x_BTD)[0])
