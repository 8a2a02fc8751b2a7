"""Every CLIP that ComfyUI's loader can choose: its own choice for each CLIP type and each kind of weight file.

The loader is run for real. Only what looks into the file is told the kind, and only what would build the network is asked
what it was to build; the network is then built without memory, on torch's meta device.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import torch

from .host_tokenizers import tokenizer_data

EXTRA_KEYS = (  # two choices are made by a key of the file
    {},
    {"text_embedding_projection.video_aggregate_embed.weight": torch.zeros(1, 1, device="meta")},
)


class _File(dict[str, Any]):
    kind: Any = None


@dataclass
class Choice:
    """What ComfyUI builds for some CLIP types and kinds of files.

    Attributes:
        target: its ``clip`` is the network's class and ``tokenizer`` the tokenizer's.
        types: the names of the CLIP types.
        kinds: the names of the kinds of weight files.
    """

    target: Any
    types: set[str] = field(default_factory=set)
    kinds: set[str] = field(default_factory=set)

    @cached_property
    def network(self) -> Any:
        """The network at its real size, without memory; one for all who ask."""
        return self.build()

    def build(self) -> Any:
        """Another network."""
        with torch.device("meta"):
            return self.target.clip(
                device="meta", dtype=torch.bfloat16, model_options={}, **self.target.params
            )

    @cached_property
    def tokenizer(self) -> Any:
        return self.target.tokenizer(embedding_directory=None, tokenizer_data=tokenizer_data())

    def clip(self, network: Any) -> Any:
        """A CLIP of ComfyUI's class that tokenizes for real."""
        clip = object.__new__(importlib.import_module("comfy.sd").CLIP)
        clip.cond_stage_model, clip.tokenizer, clip.tokenizer_options = network, self.tokenizer, {}
        return clip


@lru_cache(maxsize=1)
def choices() -> tuple[Choice, ...]:
    """All choices of the ComfyUI under test, each once."""
    sd: Any = importlib.import_module("comfy.sd")
    real = sd.detect_te_model, sd.CLIP
    found: dict[Any, Choice] = {}
    sd.detect_te_model = lambda file: file.kind
    sd.CLIP = lambda target, **_: target
    try:
        for clip_type in sd.CLIPType:
            for kind in sd.TEModel:
                for keys in EXTRA_KEYS:
                    for count in (1, 2, 3, 4):
                        target = _choose(sd, clip_type, kind, keys, count)
                        choice = found.setdefault(_identity(target), Choice(target))
                        choice.types.add(clip_type.name)
                        choice.kinds.add(kind.name)
    finally:
        sd.detect_te_model, sd.CLIP = real
    return tuple(found.values())


def types_by_row(rows: list[tuple[str, str, Choice]]) -> dict[tuple[str, str], set[str]]:
    """The CLIP types that lead to each (tokenizer, network) row."""
    types = defaultdict(set)
    for tokenizer, network, choice in rows:
        types[tokenizer, network] |= choice.types
    return dict(types)


def _choose(sd: Any, clip_type: Any, kind: Any, keys: dict[str, Any], count: int) -> Any:
    files = [_File(keys if index == 0 else {}) for index in range(count)]
    for file in files:
        file.kind = sd.TEModel.CLIP_L
    files[0].kind = kind
    return sd.load_text_encoder_state_dicts(files, clip_type=clip_type, disable_dynamic=True)


def _identity(target: Any) -> tuple[Any, ...]:
    """Equal for two choices of the same classes; ComfyUI makes many of its classes anew in each call."""
    return (*_class_identity(target.clip), *_class_identity(target.tokenizer))


def _class_identity(made: Any) -> tuple[Any, ...]:
    out: list[Any] = [made.__module__, made.__qualname__, *(id(base) for base in made.__bases__)]
    out.append(id(getattr(made, "tokenizer_class", None)))  # tells the sizes of Gemma 4 apart
    for cell in getattr(made.__init__, "__closure__", None) or ():
        value = cell.cell_contents
        if isinstance(value, str | bool):
            out.append(value)
        elif isinstance(value, type) and value is not made:
            out.append((value.__qualname__, id(getattr(value, "tokenizer", None))))
    return tuple(out)
