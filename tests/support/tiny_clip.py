"""Tiny CLIP text models whose weights follow from a formula, so that a fixture needs to hold none."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any

import torch

WIDTH_L, WIDTH_G = 8, 12


def fill(parameters: Iterable[tuple[str, torch.Tensor]], seed: str) -> None:
    """Overwrite each named tensor with uniform numbers hashed from its name and the element's index.

    Matrices get variance 1/columns, embeddings 1, so that activations stay of order 1; norm weights stay near
    1. Integers only until the last step: the same bits on every machine.
    """
    for name, tensor in parameters:
        x = torch.arange(tensor.numel(), dtype=torch.int64) + (zlib.crc32(f"{seed}.{name}".encode()) << 20)
        for _ in range(3):
            x = ((x >> 16 ^ x) & 0xFFFFFFFF) * 0x45D9F3B & 0xFFFFFFFF
        uniform = (x.double() / 2**32 - 0.5).reshape(tensor.shape) * 12**0.5
        if tensor.ndim == 2:
            value = uniform if "embedding" in name else uniform * tensor.shape[1] ** -0.5
        else:
            value = 0.1 * uniform + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        with torch.no_grad():
            tensor.copy_(value)


def config(width: int, activation: str = "quick_gelu") -> dict[str, Any]:
    """Values of transformers' CLIPTextConfig, which are also what ComfyUI's CLIP configs hold."""
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "projection_dim": width,
        "hidden_act": activation,
        "max_position_embeddings": 77,
        "vocab_size": 49408,
        "eos_token_id": 49407,
        "layer_norm_eps": 1e-5,
    }


def clip_l() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    return _filled(CLIPTextModel(CLIPTextConfig(**config(WIDTH_L))), "l")


def clip_g() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return _filled(CLIPTextModelWithProjection(CLIPTextConfig(**config(WIDTH_G, "gelu"))), "g")


def _filled(net: torch.nn.Module, seed: str) -> torch.nn.Module:
    # transformers has moved the tower in and out of a "text_model" attribute; the formula must not notice.
    fill(((name.removeprefix("text_model."), p) for name, p in net.named_parameters()), seed)
    return net.eval()
