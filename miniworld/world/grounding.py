"""Where a caption names the objects of its scene, and the boxes that hold them."""

from __future__ import annotations

from llmga.train.box_loss import NamedBox, RelativeBox

from .captions import object_texts
from .scene import SIZES, UNIT, Scene, Thing


def named_boxes(scene: Scene, caption: str, seed: int) -> list[NamedBox]:
    """The words of size, texture, colour and shape by which a caption of this scene and seed names each object.

    Objects whose texts are the same to the letter are left out: which of them is meant cannot be seen.
    """
    found = []
    for thing, texts in object_texts(scene, seed):
        for text, noun in texts:
            at = caption.find(text)
            if at < 0 or caption.find(text, at + 1) >= 0:
                continue
            start = caption.index(noun, at)
            found.append(NamedBox(start, start + len(noun), box_of(thing)))
            break
    return found


def box_of(thing: Thing) -> RelativeBox:
    """The box around an object without its shadow."""
    (x, y), half = thing.centre, SIZES[thing.size] / 2
    left, top, right, bottom = (
        min(max(edge / UNIT, 0.0), 1.0) for edge in (x - half, y - half, x + half, y + half)
    )
    return left, top, right, bottom
