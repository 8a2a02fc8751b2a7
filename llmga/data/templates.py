"""Instruction templates of the training data by role, and the tagged answer.

The roles and their numbers are those of LLMGA's lists (7e32eb6, ``llava/prompt_temp.py``,
``prompt_zh_temp.py``); the words are ours. ``story`` and ``design`` belong to no released loader: they are
for data built from one's own texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from . import templates_en, templates_zh

Language = Literal["en", "zh"]
TemplateRole = Literal[
    "describe",  # a shown picture, no tags
    "similar",  # generate a picture like the shown one
    "inpaint",
    "outpaint",
    "generate_before",  # generate, said before the short caption
    "generate_behind",  # the same, said behind it
    "expand",  # describe a short caption at length, no tags
    "story",
    "design",
]

TEMPLATES: Mapping[Language, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"en": templates_en.ENGLISH_TEMPLATES, "zh": templates_zh.CHINESE_TEMPLATES}
)


def pick(role: TemplateRole, language: Language, rng: np.random.Generator) -> str:
    """One of the role's instructions, all equally likely."""
    choices = TEMPLATES[language][role]
    return choices[rng.integers(len(choices))]


def tagged(caption: str, tag: str) -> str:
    """The answer that is painted: ``<gen_image> caption </gen_image>``, single spaces."""
    return f"<{tag}> {caption} </{tag}>"
