"""Masks for painting: drawn as in training, hardened, grown, and softened inwards or outwards.

Masks are (B, H, W), 0 .. 1, 1 = to be generated.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from ..images import HOLE_FROM
from ..windows import greatest_around, sum_around
from .masks import MIXES, Borders, MaskMix

Drawing = Literal["narrow", "wide", "sides", "training"]
DRAWINGS: tuple[Drawing, ...] = get_args(Drawing)
_MIXES: dict[Drawing, MaskMix] = {
    "narrow": MIXES["narrow"],
    "wide": MIXES["wide"],
    "sides": MaskMix(((1.0, Borders((0.25, 0.4))),)),  # outpainting as stage 2 trains it
    "training": MIXES["stage2"],
}


def draw_masks(drawing: Drawing, batch: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Holes of the kind that the networks were trained or are measured on.

    Args:
        drawing: "narrow" or "wide" strokes (LaMa's evaluation), "sides" of the picture to be continued, or the mix of
            LLMGA's stage 2, "training".
        seed: of the first picture; each further one has the next.

    Returns:
        (batch, height, width) float32 of 0 and 1.

    Raises:
        ValueError: no such kind, or the picture is too small for it.
    """
    if drawing not in DRAWINGS:
        raise ValueError(f"drawing must be one of {', '.join(DRAWINGS)}, got {drawing!r}")
    rngs = (np.random.default_rng(seed + i) for i in range(batch))
    return torch.from_numpy(np.stack([_MIXES[drawing].draw(rng, height, width) for rng in rngs]))


def harden(mask: torch.Tensor, grow: int = 0) -> torch.Tensor:
    """A mask as training has them, 0 or 1 with the border at ½, after it has grown by ``grow`` pixels in a square."""
    hard = (mask >= 0.5).float()
    return greatest_around(hard, grow) if grow else hard


def inner_ramp(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Softened inwards over 2 · ``reach`` pixels: what was 0 stays 0, and the picture's own edge is no border.

    A part of a hole that is too narrow for it is softened over half as many pixels, or half of those, down to none: the
    middle of every part stays what it was, where the whole width of a wire would be softened away.
    """
    if not reach:
        return mask
    whole = sum_around(torch.ones_like(mask[:1]), reach)
    core = torch.minimum(sum_around(1 - greatest_around(1 - mask, reach), reach) / whole, mask)
    narrow = _narrow(mask, reach)
    if not narrow.any():
        return core
    # It fades where a narrow part ends in a wide one.
    share = sum_around(greatest_around(narrow, 3 * reach), reach) / whole
    return torch.minimum(torch.lerp(core, inner_ramp(mask, reach // 2), share), mask)


def _narrow(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """1 where the hole has no square of 4 · ``reach`` + 1 pixels within ``reach`` pixels, else 0."""
    wide = greatest_around(-greatest_around(-mask, 2 * reach), 3 * reach)
    return (mask - wide >= HOLE_FROM).float()


def outer_ramp(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Softened outwards over 2 · ``reach`` pixels: what was 1 stays 1, and the picture's own edge is no border."""
    if not reach:
        return mask
    whole = sum_around(torch.ones_like(mask[:1]), reach)
    return (sum_around(greatest_around(mask, reach), reach) / whole).clamp(0, 1)
