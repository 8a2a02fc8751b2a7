"""How a folder shall be read: what an official checkpoint may need beside its own folder, and how weights are held."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CheckpointOptions:
    """What a person or a host adds to an official checkpoint, where nothing is needed for a complete one; and the precision
    of the weights in memory, for every layout.

    Args:
        base: the language model's own folder, for a LoRA or a bare projector.
        vision_tower: a CLIP ViT-L/14-336, as a folder or one file, where the checkpoint holds none; where it holds one,
            this one takes its place.
        family: the transcript, a key of ``FAMILIES``, where the config cannot tell (``llava_llama_2``).
        towers: files to look for a vision tower in, where the checkpoint holds none and none is given.
        weight_bits: 8 or 4: the language model's linear layers are quantised while it is loaded; None keeps them whole.
    """

    base: Path | None = None
    vision_tower: Path | None = None
    family: str | None = None
    towers: tuple[Path, ...] = ()
    weight_bits: int | None = None
