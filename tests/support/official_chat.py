"""What the recorder of LLMGA's own classes and the tests of what it recorded share: weights, a picture, a talk.

It runs under the transformers of LLMGA's pins too, so it imports numpy and Pillow alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

TALK = (
    "Like this?  A red fox in the snow.",
    "Bigger,  please:\n  1.  the snow\n      2. the fox",
    "  Two spaces first.  狐 🦊  é",
)
"""What the user says; the picture is shown with the first."""
NEW_TOKENS = 12
DIRECTIONS = 4
QUIET = 0.05
"""Factor of the rows that are not to be said: bytes and control tokens, so that replies are text."""


def picture() -> Image.Image:
    """A wide picture of 131 × 67 px, of plain waves."""
    y, x = np.mgrid[0:67, 0:131].astype(np.float64)
    waves = [np.sin(x / 9 + y / 17), np.cos(x / 23 - y / 5), np.sin(x * y / 700)]
    return Image.fromarray(np.stack([(wave + 1) * 127 for wave in waves], -1).round().astype(np.uint8))


def weight(name: str, shape: Sequence[int], quiet: Iterable[int] = ()) -> np.ndarray:
    """A weight by its name: uniform noise of the generator's raw bits, which is the same on every machine.

    Args:
        name: of the tensor in the official checkpoint.
        quiet: rows of the table that chooses the next token which are made small.
    """
    count = int(np.prod(shape))
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(count) >> np.uint64(40)
    noise = (raw.astype(np.float64) / (1 << 23) - 1).reshape(shape) * 3**0.5  # variance 1
    if len(shape) == 1:
        value = 0.1 * noise + (1 if "norm" in name and name.endswith("weight") else 0)
    else:
        value = noise * (0.3 if "embed" in name else 1.5 / float(np.prod(shape[1:])) ** 0.5)
    if name.startswith("lm_head") or (name == "model.embed_tokens.weight"):
        rows = list(quiet)
        value[rows] *= QUIET
    return value.astype(np.float32)


def directions(size: int) -> np.ndarray:
    """Vectors that logits of each position are projected on: (size, DIRECTIONS)."""
    return weight("directions", (size, DIRECTIONS)) / 1.5 * DIRECTIONS**0.5 / size**0.5
