"""Attention over projected tensors that are not yet split into heads, as taps see them."""

from __future__ import annotations

import torch
from torch.nn.functional import scaled_dot_product_attention


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Fused attention: (B, N, heads · dim), (B, T, heads · dim), (B, T, heads · width) -> (B, N, heads · width)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, N or T, dim)
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def token_attention(q: torch.Tensor, k: torch.Tensor, values: torch.Tensor, heads: int) -> torch.Tensor:
    """The attention that goes to sets of tokens, averaged over the heads.

    The added probabilities of some tokens are attention whose values are 1 at these tokens and 0 elsewhere, so the
    matrix of probabilities (B, heads, N, T) is never held.

    Args:
        q, k: (B, N, heads · dim), (B, T, heads · dim).
        values: (T, sets): how much each token counts in each set.

    Returns:
        (B, N, sets) float32.
    """
    sets = values.shape[1]
    # At least as wide as a head: for narrower values torch falls back to a kernel that holds the probabilities.
    width = max(sets, q.shape[-1] // heads)
    padded = torch.zeros(len(values), width, device=q.device)
    padded[:, :sets] = values.to(q.device)
    v = padded.repeat(1, heads).expand(len(q), -1, -1)  # (B, T, heads · width)
    out = attention(q.float(), k.float(), v, heads)
    return out.unflatten(-1, (heads, width))[..., :sets].mean(-2)
