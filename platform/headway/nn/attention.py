"""Attention: each query takes a weighted mean of values, the weights from how well it fits their keys.

Source: Vaswani et al. 2017, section 3.2. `attend` is the definition, to be read; the layers run
torch's fused kernel, which is held to it by test and never stores the (T, S) weights.

A mask is bool, True where a query may look, and broadcasts to (B, H, T, S). Causal means that the last
query stands at the last key: with S > T the first S - T keys lie before all queries. A query that
may look nowhere gets zeros.

Shapes: B sequences, T queries, S keys, D width, H heads, K = D / H width of a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def attend(
    query_BHTK: Tensor, key_BHSK: Tensor, value_BHSK: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the mixed values (B, H, T, K) and the weights (B, H, T, S), whose rows sum to one."""
    scores_BHTS = query_BHTK @ key_BHSK.transpose(2, 3) / math.sqrt(query_BHTK.shape[-1])
    if mask is not None:
        # Finite, so that a row without a key has no infinities to subtract; its weights are zeroed below.
        scores_BHTS = scores_BHTS.masked_fill(~mask, torch.finfo(scores_BHTS.dtype).min)
    weights_BHTS = torch.softmax(scores_BHTS, dim=-1)
    if mask is not None:
        weights_BHTS = weights_BHTS * mask
    return weights_BHTS @ value_BHSK, weights_BHTS


def causal_mask(num_queries: int, num_keys: int, device: torch.device | None = None) -> Tensor:
    """Returns bool (T, S): a query may look at its own place and at those before it."""
    query_T1 = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    return torch.arange(num_keys, device=device) <= query_T1


def attend_fused(
    query_BHTK: Tensor, key_BHSK: Tensor, value_BHSK: Tensor, mask: Tensor | None = None, *, causal: bool = False
) -> Tensor:
    """Returns what `attend` mixes, (B, H, T, K), by torch's fused kernel."""
    T, S = query_BHTK.shape[2], key_BHSK.shape[2]
    if causal and (mask is not None or T != S):
        # The kernel's own causal mask stands alone, and starts at the first key. One query sees every key.
        past = causal_mask(T, S, query_BHTK.device) if T > 1 else None
        mask = past if mask is None else mask if past is None else mask & past
        causal = False
    return F.scaled_dot_product_attention(query_BHTK, key_BHSK, value_BHSK, attn_mask=mask, is_causal=causal)


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on its own projections of width K: to itself, or to a memory.

    Args:
        width: D, a multiple of `num_heads`.
        num_heads: H.
        bias: whether the projections have one.
        fused: whether torch's kernel runs, or the readable reference, which `torch.vmap` can batch.
    """

    def __init__(self, width: int, num_heads: int, *, bias: bool = True, fused: bool = True) -> None:
        super().__init__()
        assert width % num_heads == 0, "the config refuses heads that do not divide the width"
        self.num_heads = num_heads
        self.fused = fused
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(
        self, x_BTD: Tensor, memory_BSD: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """Returns (B, T, D): queries from `x`, keys and values from the memory, or from `x` where there is none."""
        key_BHSK, value_BHSK = self.keys_values(x_BTD if memory_BSD is None else memory_BSD)
        return self.look_up(x_BTD, key_BHSK, value_BHSK, mask=mask, causal=causal)

    def keys_values(self, memory_BSD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of a memory, (B, H, S, K) both."""
        key_BHSK = split_heads(self.key(memory_BSD), self.num_heads)
        return key_BHSK, split_heads(self.value(memory_BSD), self.num_heads)

    def look_up(
        self,
        x_BTD: Tensor,
        key_BHSK: Tensor,
        value_BHSK: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        """Returns (B, T, D): queries from `x` to keys and values that are known already."""
        query_BHTK = split_heads(self.query(x_BTD), self.num_heads)
        if self.fused:
            return self.output(join_heads(attend_fused(query_BHTK, key_BHSK, value_BHSK, mask, causal=causal)))
        if causal:
            past_TS = causal_mask(query_BHTK.shape[2], key_BHSK.shape[2], x_BTD.device)
            mask = past_TS if mask is None else mask & past_TS
        mixed_BHTK, _ = attend(query_BHTK, key_BHSK, value_BHSK, mask)
        return self.output(join_heads(mixed_BHTK))


class CausalSelfAttention(nn.Module):
    """Each token looks at itself and at what came before it; one matrix gives queries, keys and values.

    Source: Radford et al. 2019.

    Args:
        width: D, a multiple of `num_heads`.
        num_heads: H.
        bias: whether the projections have one.
        fused: whether torch's kernel runs, or the readable reference, which `torch.vmap` can batch.
    """

    def __init__(self, width: int, num_heads: int, *, bias: bool = True, fused: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fused = fused
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        mixed_BTD, _, _ = self.extend(x_BTD, None, None)
        return mixed_BTD

    def extend(
        self, x_BTD: Tensor, key_BHPK: Tensor | None, value_BHPK: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns (B, T, D) for tokens that follow P earlier ones, and the keys and values of all P + T.

        None is the same as P = 0.
        """
        query_BHTK, key_BHSK, value_BHSK = (
            split_heads(part, self.num_heads) for part in self.query_key_value(x_BTD).chunk(3, dim=2)
        )
        if key_BHPK is not None and value_BHPK is not None:
            key_BHSK = torch.cat([key_BHPK, key_BHSK], dim=2)
            value_BHSK = torch.cat([value_BHPK, value_BHSK], dim=2)
        if self.fused:
            mixed_BHTK = attend_fused(query_BHTK, key_BHSK, value_BHSK, causal=True)
        else:
            mask_TS = causal_mask(x_BTD.shape[1], key_BHSK.shape[2], x_BTD.device)
            mixed_BHTK, _ = attend(query_BHTK, key_BHSK, value_BHSK, mask_TS)
        return self.output(join_heads(mixed_BHTK)), key_BHSK, value_BHSK


def split_heads(x_BTD: Tensor, num_heads: int) -> Tensor:
    """Returns (B, H, T, K)."""
    B, T, D = x_BTD.shape
    return x_BTD.view(B, T, num_heads, D // num_heads).transpose(1, 2)


def join_heads(x_BHTK: Tensor) -> Tensor:
    """Returns (B, T, D)."""
    return x_BHTK.transpose(1, 2).flatten(2)
