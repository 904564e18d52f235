"""Multi-head attention against torch's with the weights carried over, against numpy, and fused against readable."""

import numpy as np
import pytest
import torch
from torch import nn

from headway.nn.attention import CausalSelfAttention, MultiHeadAttention, attend, attend_fused, causal_mask

pytestmark = pytest.mark.quick

B, T, S, H, D = 2, 7, 5, 3, 15
K = D // H


def draw(*shape, seed=5):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def twins(bias=True, fused=True):
    torch.manual_seed(3)
    ours = MultiHeadAttention(D, H, bias=bias, fused=fused).double()
    theirs = nn.MultiheadAttention(D, H, bias=bias, batch_first=True, dtype=torch.float64)
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.out_proj.weight.copy_(ours.output.weight)
        if bias:
            theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            theirs.out_proj.bias.copy_(ours.output.bias)
    return ours, theirs


def masks(kind, num_keys):
    """Returns our mask, and torch's arguments for the same: there True hides."""
    if kind == "none":
        return None, {}
    if kind == "padding":
        keep_BS = torch.arange(num_keys) < torch.tensor([num_keys, 2])[:, None]
        return keep_BS[:, None, None, :], {"key_padding_mask": ~keep_BS}
    keep_BHTS = torch.rand(B, H, T, num_keys, generator=torch.Generator().manual_seed(7)) < 0.5
    keep_BHTS[..., 1] = True  # torch's gives nan where a query may look nowhere
    return keep_BHTS, {"attn_mask": ~keep_BHTS.flatten(0, 1)}


def assert_same(ours, theirs, memory, arguments, **settings):
    one, two = draw(B, T, D).requires_grad_(), draw(B, T, D).requires_grad_()
    context = two if memory is None else memory
    out = ours(one, memory, **settings)
    expected, _ = theirs(two, context, context, need_weights=False, **arguments)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weighting = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    (out * weighting).sum().backward()
    (expected * weighting).sum().backward()
    torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=1e-12)
    parts = (ours.query, ours.key, ours.value)
    stacked = torch.cat([part.weight.grad for part in parts])
    torch.testing.assert_close(stacked, theirs.in_proj_weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.output.weight.grad, theirs.out_proj.weight.grad, rtol=0, atol=1e-12)
    if ours.output.bias is not None:
        biases = torch.cat([part.bias.grad for part in parts])
        torch.testing.assert_close(biases, theirs.in_proj_bias.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", ["none", "padding", "any"])
@pytest.mark.parametrize("cross", [True, False])
def test_outputs_and_gradients_are_those_of_torchs(cross, mask, bias, fused):
    memory = draw(B, S, D, seed=11) if cross else None
    own, theirs = masks(mask, S if cross else T)
    assert_same(*twins(bias, fused), memory, theirs, mask=own)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("mask", ["none", "padding", "any"])
def test_causal_outputs_and_gradients_are_those_of_torchs(mask, fused):
    own, theirs = masks(mask, T)
    future_TT = torch.ones(T, T, dtype=torch.bool).triu(1)
    if "attn_mask" in theirs:
        own[..., 0] = True
        theirs["attn_mask"] = ~own.flatten(0, 1) | future_TT
    else:
        theirs["attn_mask"] = future_TT
    assert_same(*twins(fused=fused), None, theirs, mask=own, causal=True)


def test_attend_is_a_softmax_of_scaled_products_that_weighs_the_values():
    query, key, value = draw(B, H, T, K), draw(B, H, S, K, seed=7), draw(B, H, S, K, seed=11)
    keep = torch.rand(B, 1, T, S, generator=torch.Generator().manual_seed(7)) < 0.6
    keep[..., 2] = True
    mixed, weights = attend(query, key, value, keep)
    q, k, v, visible = (tensor.numpy() for tensor in (query, key, value, keep))
    for b, h, t in np.ndindex(B, H, T):
        scores = np.array([np.dot(q[b, h, t], k[b, h, s]) / np.sqrt(K) for s in range(S)])
        likeness = np.where(visible[b, 0, t], np.exp(scores), 0.0)
        by_hand = likeness / likeness.sum()
        np.testing.assert_allclose(weights[b, h, t].numpy(), by_hand, atol=1e-12)
        np.testing.assert_allclose(mixed[b, h, t].numpy(), by_hand @ v[b, h], atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("queries", [1, 2, T])
def test_the_fused_kernel_is_the_readable_reference(queries, causal):
    query, key, value = (draw(B, H, n, K, seed=n).requires_grad_() for n in (queries, T, T))
    keep = torch.rand(B, 1, 1, T, generator=torch.Generator().manual_seed(5)) < 0.5
    keep[..., 0] = True
    for mask in (None, keep):
        whole = mask
        if causal:
            past = causal_mask(queries, T)
            whole = past if mask is None else mask & past
        fused = attend_fused(query, key, value, mask, causal=causal)
        readable, _ = attend(query, key, value, whole)
        torch.testing.assert_close(fused, readable, rtol=0, atol=1e-12)
        one, two = (torch.autograd.grad(out.square().sum(), (query, key, value)) for out in (fused, readable))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("fused", [True, False])
def test_a_query_that_may_look_nowhere_gets_zeros_and_no_nan(fused):
    query, key, value = draw(B, H, T, K).requires_grad_(), draw(B, H, S, K), draw(B, H, S, K)
    mask = torch.ones(B, 1, T, S, dtype=torch.bool)
    mask[1, :, 3] = False
    mixed = attend_fused(query, key, value, mask) if fused else attend(query, key, value, mask)[0]
    assert mixed[1, :, 3].eq(0).all()
    assert mixed[0].ne(0).all()
    mixed.sum().backward()
    assert query.grad.isfinite().all()


def test_causal_queries_stand_at_the_last_keys():
    assert causal_mask(2, 5).tolist() == [[True, True, True, True, False], [True] * 5]


def test_attention_without_positions_does_not_know_the_order_of_its_memory():
    ours, _ = twins()
    memory, order = draw(B, S, D, seed=11), [3, 0, 4, 1, 2]
    torch.testing.assert_close(ours(draw(B, T, D), memory[:, order]), ours(draw(B, T, D), memory), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cuts", [[1] * T, [3, 4], [2, 1, 4], [T]])
def test_a_sequence_in_pieces_with_cached_keys_is_the_sequence_whole(cuts):
    torch.manual_seed(3)
    net = CausalSelfAttention(D, H).double()
    x_BTD = draw(B, T, D)
    key = value = None
    pieces = []
    for piece in x_BTD.split(cuts, dim=1):
        mixed, key, value = net.extend(piece, key, value)
        pieces.append(mixed)
    torch.testing.assert_close(torch.cat(pieces, dim=1), net(x_BTD), rtol=0, atol=1e-12)
    assert key.shape == value.shape == (B, H, T, K)
