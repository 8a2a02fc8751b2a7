"""The pictures of the help pages in ``web/docs``: what a template paints, cut out of its card.

The chat's own (``LLMGA_Chat.jpg``) is a part of ``docs/screenshot.jpg``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from . import ROOT

DOCS = ROOT / "web" / "docs"
# A template's name: the nodes whose help pages show what it paints. A page and its picture have the same name.
SHOWN = {
    "similar_images": ("LLMGA_ChatPerPicture",),
    "instruction_edit": ("LLMGA_EditInstruction",),
    "qwen_image_edit_keep": ("LLMGA_KeepTheRest",),
    "inpaint": ("LLMGA_CropForPainting",),
    "outpaint": ("LLMGA_DiffRIRRestore",),
    "inpaint_regions": ("LLMGA_CropEachRegion",),
}
DIFFERS = 24
"""From a card's background, in 8-bit values: more than JPEG's noise."""


def write_help_pictures(name: str, card: Path) -> None:
    """Write the pictures of all help pages that show what a template paints."""
    for node in SHOWN.get(name, ()):
        with Image.open(card) as whole:
            painted(whole).save(DOCS / f"{node}.jpg", quality=85, optimize=True)


def painted(card: Image.Image) -> Image.Image:
    """The pictures of a card, without its words: the highest band of rows that are not background alone."""
    pixels = np.asarray(card.convert("RGB"), int)
    filled = (np.abs(pixels - pixels[0, 0]) > DIFFERS).any((1, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], filled, [False]])))
    top, bottom = max(edges.reshape(-1, 2).tolist(), key=lambda band: band[1] - band[0])
    return card.crop((0, top, card.width, bottom))
