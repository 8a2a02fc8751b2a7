"""What a language model needs beside its weights while it computes: keys and values, and one unpacked layer."""

from __future__ import annotations

from typing import Any

from .weight_only import WeightOnlyLinear


def cache_bytes(net: Any) -> int:
    """Bytes of the keys and values of one token, 0 where the config does not say it in the usual words.

    Layers that attend to a window, or keep a state in place of keys and values, need less.
    """
    config = net.config.get_text_config()
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    width = getattr(config, "hidden_size", None)
    if not (layers and heads and width):
        return 0
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return 2 * layers * key_heads * (getattr(config, "head_dim", None) or width // heads) * net.dtype.itemsize


def unpacked_bytes(net: Any) -> int:
    """Bytes of the largest layer of ``WeightOnlyLinear`` while it is unpacked; 0 where there is none."""
    sizes = [m.in_features * m.out_features for m in net.modules() if isinstance(m, WeightOnlyLinear)]
    return 2 * max(sizes, default=0) * net.dtype.itemsize


def memory_note(net: Any) -> str:
    """A sentence on the most memory that a model takes where it computes: weights, working space, keys and values."""
    tensors = {id(value): value.nbytes for value in (*net.parameters(), *net.buffers())}
    parts = [f"{sum(tensors.values()) / 1e9:.2f} GB of weights"]
    if unpacked := unpacked_bytes(net):
        parts.append(f"{unpacked / 1e9:.2f} GB while a layer is unpacked")
    if per_token := cache_bytes(net):
        parts.append(f"{2048 * per_token / 1e9:.2f} GB for every 2048 tokens read and written")
    return f"memory at most: {', '.join(parts)}"
