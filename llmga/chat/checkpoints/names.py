"""The tensor names of a LLaVA: in transformers' files (``llava-hf``), in its modules, and in the official layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

_Value = TypeVar("_Value")

_TO_LLAVA_HF = (
    (r"(?:model\.)?vision_tower\.(?:vision_model\.)?", "vision_tower.vision_model."),
    (r"(?:model\.)?multi_modal_projector\.", "multi_modal_projector."),
    (r"(?:model\.language_model|language_model\.model)\.", "language_model.model."),
    (r"(?:language_model\.)?lm_head\.", "language_model.lm_head."),
)
OFFICIAL = (  # llava-hf, official
    ("vision_tower.vision_model.", "model.vision_tower.vision_tower.vision_model."),
    ("multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("multi_modal_projector.linear_2.", "model.mm_projector.2."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)
# Longest first: "model." is the start of them all.
_FROM_OFFICIAL = sorted(((there, here) for here, there in OFFICIAL), key=lambda pair: -len(pair[0]))
_COMPUTED = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Buffers that old versions of transformers saved and every version computes."""


def llava_hf_names(weights: Mapping[str, _Value]) -> dict[str, _Value]:
    """Weights under the names that every transformers reads from a file, from those of a module or a file."""
    named = {}
    for name, value in weights.items():
        for pattern, prefix in _TO_LLAVA_HF:
            if match := re.match(pattern, name):
                named[prefix + name[match.end() :]] = value
                break
        else:
            raise ValueError(f"the weight {name!r} belongs to no part of a LLaVA")
    return named


def from_official(name: str) -> str | None:
    """The llava-hf name of an official one; None if nothing of it is needed.

    Raises:
        ValueError: the name belongs to no part of a LLaVA.
    """
    if name.endswith(_COMPUTED):
        return None
    for old, new in _FROM_OFFICIAL:
        if name.startswith(old):
            return new + name[len(old) :]
    raise ValueError(f"the tensor {name!r} belongs to no part of LLMGA's language models")


def to_official_name(name: str) -> str:
    """The official name of a llava-hf one: how an error calls a tensor of an official checkpoint."""
    for old, new in OFFICIAL:
        if name.startswith(old):
            return new + name[len(old) :]
    return name
