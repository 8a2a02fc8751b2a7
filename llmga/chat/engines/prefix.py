"""Prefix cache: keys and values of earlier conversations, so that a longer chat prefills only what is new.

A conversation is a value and no session: what is kept here changes the time of a reply and never the reply. Two
positions are the same if their token is, and their picture: a reply of other words, an edited turn or another picture
ends the common part, and the rest is read anew.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_log = logging.getLogger(__name__)

Position = int | tuple[int, str]
"""A token, with the picture's hash where it stands for a part of one."""
CONVERSATIONS = 4
MAX_CACHE_BYTES = 2**31
_LENGTH_DEPENDENT = ("longrope", "dynamic", "su", "yarn_dynamic")


@dataclass
class _Kept:
    positions: list[Position]
    cache: Any


class PrefixCache:
    """Keys and values of the last conversations, newest last.

    Attributes:
        usable: whether this network can continue from cached keys at all.
        conversations, max_bytes: at most so many are kept, of so many bytes together; 0 keeps nothing.
    """

    def __init__(self, net: Any) -> None:
        self.conversations = CONVERSATIONS
        self.max_bytes = MAX_CACHE_BYTES
        self._kept: list[_Kept] = []
        self._stable_up_to = _stable_length(net.config.get_text_config())
        # Qwen-VL's position of a token depends on the pictures before it, and the net remembers that of its last call.
        self.usable = not any(hasattr(module, "rope_deltas") for module in net.modules())

    @property
    def nbytes(self) -> int:
        """Memory of everything kept, on the device where the network ran."""
        return sum(_nbytes(kept.cache) for kept in self._kept)

    def clear(self) -> None:
        """Drop everything; the next reply prefills its conversation from the start."""
        self._kept.clear()

    def take(self, positions: Sequence[Position], total: int, device: torch.device) -> tuple[Any, int]:
        """The cache that holds most of a conversation's beginning, cut to it, and the length of that; (None, 0) if none.

        It is not kept any more: an interrupted reply leaves it half written. At least one position is left to read, and
        no picture is cut in two.

        Args:
            positions: of the whole conversation.
            total: with the longest possible reply.
        """
        if total > self._stable_up_to:
            return None, 0
        commons = [_common(kept.positions, positions) for kept in self._kept]
        length = max(commons, default=0)
        if length == 0:
            return None, 0
        kept = self._kept.pop(commons.index(length))
        if next(iter(_tensors(kept.cache))).device != device:
            _log.info("a kept beginning of %d tokens is dropped: it is on another device", length)
            return None, 0
        if surplus := len(kept.positions) - length:
            kept.cache.crop(-surplus)  # of both meanings that `crop` has had, this one is in every version
        return kept.cache, length

    def put(self, positions: list[Position], cache: Any) -> None:
        """Keep a conversation; ``cache`` holds ``positions`` or their beginning."""
        if not self.usable or not _can_be_cut(cache):
            return
        if _nbytes(cache) > self.max_bytes:
            _log.info("%d bytes of keys and values are dropped: more than %d", _nbytes(cache), self.max_bytes)
            return
        positions = positions[: cache.get_seq_length()]
        if len(positions) > self._stable_up_to:
            return
        self._kept.append(_Kept(positions, cache))
        while len(self._kept) > self.conversations or self.nbytes > self.max_bytes:
            del self._kept[0]


def positions_of(ids: Sequence[int], image_id: int | None, pictures: Sequence[str]) -> list[Position] | None:
    """Every position of a conversation; None if it cannot be told which belong to which picture.

    Args:
        ids: its tokens.
        image_id: the token that stands for a part of a picture.
        pictures: a hash of each, in order; all take the same number of tokens.
    """
    places = [i for i, token in enumerate(ids) if token == image_id] if pictures else []
    if pictures and (not places or len(places) % len(pictures)):
        return None
    positions: list[Position] = list(ids)
    for order, i in enumerate(places):
        positions[i] = (ids[i], pictures[order * len(pictures) // len(places)])
    return positions


def pictures_in(positions: Sequence[Position], length: int, pictures: int) -> int:
    """How many of so many pictures, all of one size, lie before ``length``."""
    places = [i for i, position in enumerate(positions) if isinstance(position, tuple)]
    return sum(i < length for i in places) * pictures // len(places)


def _common(kept: Sequence[Position], asked: Sequence[Position]) -> int:
    """The length of the common beginning, without a picture's half and without the last position that is asked for."""
    limit = min(len(kept), len(asked) - 1)
    length = next((i for i in range(limit) if kept[i] != asked[i]), limit)
    # Two pictures may be the same one, side by side: then both are read again.
    while 0 < length < len(asked) and isinstance(asked[length], tuple) and asked[length] == asked[length - 1]:
        length -= 1
    return length


def _stable_length(config: Any) -> int:
    """Up to how many positions the keys do not depend on the length of the whole: there are scalings that change them."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type"))
    if kind not in _LENGTH_DEPENDENT:
        return 2**31
    original = rope.get("original_max_position_embeddings")
    return (
        original
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
    )


def _can_be_cut(cache: Any) -> bool:
    """A plain cache that grows; one with a window or a state has forgotten what a cut would need."""
    plain = all(type(layer).__name__ == "DynamicLayer" for layer in getattr(cache, "layers", ()))
    return type(cache).__name__ == "DynamicCache" and plain and cache.get_seq_length() > 0


def _tensors(cache: Any) -> list[torch.Tensor]:
    layers = getattr(cache, "layers", None)
    if layers is None:  # transformers below 4.54
        return [*cache.key_cache, *cache.value_cache]
    return [tensor for layer in layers for tensor in (layer.keys, layer.values)]


def _nbytes(cache: Any) -> int:
    return sum(tensor.nbytes for tensor in _tensors(cache))
