"""A scene plan as a picture: every box in its colour, with its name."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import torch

from ..images import from_pil, to_pil
from .plan import ScenePlan

if TYPE_CHECKING:
    from PIL import Image

_GREY = (44, 46, 50)
_DIMMED = 0.45  # of a picture under the boxes
_GOLDEN = 0.6180339887


def object_colour(number: int) -> tuple[int, int, int]:
    """The colour of an object's box, mask and map, far from those of its neighbours; 0 .. 255 each."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * _GOLDEN) % 1, 0.62, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_plan(
    plan: ScenePlan,
    width: int,
    height: int,
    image: torch.Tensor | None = None,
    masks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw a plan.

    Args:
        width, height: pixels of the drawing; those of ``image`` if there is one.
        image: (1, H, W, C) in 0 .. 1, dimmed under the boxes.
        masks: (objects, h, w) in 0 .. 1, each tinted in its object's colour.

    Returns:
        (1, height, width, 3) float32 in 0 .. 1.
    """
    from PIL import Image, ImageDraw, ImageFont

    if image is None:
        canvas = Image.new("RGB", (width, height), _GREY)
    else:
        canvas = to_pil(image[:1] * _DIMMED)[0]
    for number, mask in enumerate(masks if masks is not None else ()):
        tint = Image.new("RGB", canvas.size, object_colour(number))
        canvas.paste(tint, mask=_mask_of(mask * 0.6, canvas.size))
    draw = ImageDraw.Draw(canvas)
    size = max(10, min(canvas.size) // 24)
    font = ImageFont.load_default(size)
    for number, one in enumerate(plan.objects):
        colour = object_colour(number)
        left, top = one.box.x * canvas.width, one.box.y * canvas.height
        right, bottom = one.box.right * canvas.width - 1, one.box.bottom * canvas.height - 1
        draw.rectangle(
            (left, top, max(right, left + 1), max(bottom, top + 1)), outline=colour, width=max(2, size // 8)
        )
        label = f"{number + 1} {one.name}"
        reach = draw.textbbox((0, 0), label, font=font)[2]
        at = (min(left, max(canvas.width - reach - 6, 0)), top)
        draw.rectangle((at[0], at[1], at[0] + reach + 6, at[1] + size + 6), fill=colour)
        draw.text((at[0] + 3, at[1] + 1), label, fill=(10, 10, 12), font=font)
    return from_pil([canvas])


def _mask_of(mask: torch.Tensor, size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    levels = (mask.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(levels, "L").resize(size, Image.Resampling.BILINEAR)
