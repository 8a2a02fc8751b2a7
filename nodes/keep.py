"""LLMGA Keep the Rest: what an editor changed on purpose, in the original picture."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..llmga.paint.keep import MAX_GROW, keep_rest
from . import check, host


class KeepTheRest(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_KeepTheRest",
            display_name="LLMGA Keep the Rest",
            category="LLMGA/paint",
            description="After any editor (Qwen-Image-Edit, Kontext, Klein, an online one): aligns the edited picture with "
            "the original, matches its colours, finds what was changed on purpose and puts only that into the original. "
            "Everything else stays as it was, bit for bit.",
            search_aliases=[
                "pixel shift",
                "color shift",
                "colour shift",
                "qwen edit zoom",
                "kontext",
                "restore background",
                "composite edit",
                "image difference",
                "difference mask",
                "align images",
                "color match",
                "image edit",
            ],
            inputs=[
                io.Image.Input(
                    "original",
                    tooltip="The picture before the edit; its size, and its alpha if it has one, are the result's.",
                ),
                io.Image.Input(
                    "edited",
                    tooltip="What the editor gave, whole. Any size of about the same shape; one for each original, or any "
                    "number for a single one.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=0,
                    max=MAX_GROW,
                    optional=True,
                    tooltip=f"Pixels by which the change that was found grows on every side, 0 to {MAX_GROW}: more of it "
                    "for shadows and reflections. Without effect on a mask of yours.",
                ),
                io.Int.Input(
                    "feather",
                    default=4,
                    min=0,
                    max=MAX_GROW,
                    optional=True,
                    tooltip=f"Pixels over which the border is softened, 0 to {MAX_GROW}: outwards, or inwards from a mask "
                    "of yours.",
                ),
                io.Boolean.Input(
                    "align",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Estimates how the editor shifted and zoomed the picture, and undoes it.",
                ),
                io.Boolean.Input(
                    "match_colours",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="Brings the edited picture's colours back to the original's, by what did not change.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = changed: says where the change is, instead of looking for it. Any size; one, or one for "
                    "each picture. An empty one counts as none.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The original with the change in it."),
                io.Mask.Output(
                    display_name="change", tooltip="How much of the edited picture is in it at each pixel."
                ),
                io.Image.Output(
                    display_name="matched",
                    tooltip="The whole edited picture, aligned and colour-matched, for a composite of your own.",
                ),
                io.String.Output(
                    display_name="readout",
                    tooltip="Shift, zoom and colours; the share changed; PSNR outside and the seam, before and after.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, original, edited, grow, feather, align, match_colours, mask=None) -> io.NodeOutput:
        original, edited = check.image("original", original), check.image("edited", edited)
        found = keep_rest(
            original,
            edited,
            None if mask is None else check.mask("mask", mask),
            grow=check.integer("grow", grow, 0, MAX_GROW),
            feather=check.integer("feather", feather, 0, MAX_GROW),
            match_alignment=check.flag("align", align),
            match_colours=check.flag("match_colours", match_colours),
            on_part=host.raise_if_cancelled,
        )
        readout = "\n".join(f"picture {i}: {one.report()}" for i, one in enumerate(found))
        images, masks, matched = (
            torch.stack([getattr(one, name) for one in found]) for name in ("image", "mask", "matched")
        )
        return io.NodeOutput(images, masks, matched, readout, ui={"text": [readout]})


NODES = [KeepTheRest]
