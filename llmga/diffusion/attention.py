"""Attention over projected, un-split tensors, as taps see them."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, heads · dim), (B, T, heads · dim), (B, T, heads · width) -> (B, N, heads · width), probabilities never held."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
