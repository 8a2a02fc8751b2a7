"""What the nodes that cut out the part around a hole share: their inputs, and the check of them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import check

_MAX_SIDE = 8192
_MAX_CONTEXT = 8


def crop_inputs() -> list[Any]:
    """The inputs *width*, *height*, *context* and *enlarge*."""
    side: dict[str, Any] = {"default": 512, "optional": True, "min": 8, "max": _MAX_SIDE, "step": 8}
    side["tooltip"] = "Of the part: 512 for SD1.5, 1024 for SDXL and later."
    return [
        io.Int.Input("width", **side),
        io.Int.Input("height", **side),
        io.Float.Input(
            "context",
            default=1.5,
            optional=True,
            min=1.0,
            max=float(_MAX_CONTEXT),
            step=0.1,
            tooltip="How much is shown around the hole: the part's sides, at least, as multiples of the hole's, 1 to 8.",
        ),
        io.Boolean.Input(
            "enlarge",
            default=False,
            optional=True,
            tooltip="On: a small hole is painted larger than it is, with more detail. Off: never more than the "
            "picture's own pixels; the part shows more around the hole instead.",
        ),
    ]


def checked_crop(
    width: object, height: object, context: object, enlarge: object
) -> tuple[int, int, float, bool]:
    """What came in by ``crop_inputs``.

    Raises:
        ValueError: a value is not of its type, or out of range.
    """
    return (
        check.integer("width", width, 8, _MAX_SIDE),
        check.integer("height", height, 8, _MAX_SIDE),
        check.number("context", context, 1, _MAX_CONTEXT),
        check.flag("enlarge", enlarge),
    )
