"""Causal multi-head self-attention through torch's fused kernel.

Source: Vaswani et al. 2017, section 3.2; heads as in Radford et al. 2019.

Shapes: B sequences, T tokens, D width, H heads, K = D / H width of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CausalSelfAttention(nn.Module):
    """Each token looks at itself and at what came before it.

    Args:
        width: D, a multiple of `num_heads`.
        num_heads: H.
        bias: whether the projections have one.
    """

    def __init__(self, width: int, num_heads: int, *, bias: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(width, 3 * width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Returns (B, T, D)."""
        B, T, D = x_BTD.shape
        query_BHTK, key_BHTK, value_BHTK = (
            part.view(B, T, self.num_heads, D // self.num_heads).transpose(1, 2)
            for part in self.query_key_value(x_BTD).split(D, dim=2)
        )
        mixed_BHTK = F.scaled_dot_product_attention(query_BHTK, key_BHTK, value_BHTK, is_causal=True)
        return self.output(mixed_BHTK.transpose(1, 2).reshape(B, T, D))
