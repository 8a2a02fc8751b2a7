"""Nodes for inpainting that core lacks: masks as in training, and crop and stitch around the hole."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..llmga.images import fit_mask
from ..llmga.paint.crop import Box, Crop, crop, stitch
from ..llmga.paint.prepare import DRAWINGS, draw_masks, harden
from . import check, host
from .crop_inputs import checked_crop, crop_inputs
from .types import Crop as CropType

GIVEN = "given"
SOURCES = (GIVEN, *DRAWINGS)
MAX_GROW = 512
MAX_SEED = 2**63 - 1


class PrepareMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_PrepareMask",
            display_name="Prepare Mask",
            category="LLMGA/paint",
            description="Makes a mask as LLMGA's inpainting UNets and DiffRIR were trained with: 0 or 1, in the size of the "
            "picture, one for each. It takes yours, or draws one: narrow or wide strokes, sides to be continued, or "
            "training's own mix.",
            search_aliases=[
                "random mask",
                "grow mask",
                "threshold mask",
                "binary mask",
                "outpainting mask",
                "inpaint",
                "outpaint",
                "remove object",
            ],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures that the mask is for; only their size and number count."
                ),
                io.Combo.Input(
                    "source",
                    options=list(SOURCES),
                    default=GIVEN,
                    optional=True,
                    tooltip="given: your mask, from one half on. narrow, wide: strokes as in LaMa's evaluation. sides: a "
                    "quarter to two fifths of one to four sides. training: the mix of LLMGA's stage 2.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    optional=True,
                    min=0,
                    max=MAX_GROW,
                    tooltip=f"Pixels by which the hole grows on every side, 0 to {MAX_GROW}: it should cover the edges of "
                    "what is to go.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    optional=True,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=True,
                    tooltip="Of a drawn mask; each further picture of a batch has the next. Without effect on your own.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Your mask, 1 = to be painted. Any size, one or one for each picture.",
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="prepared", tooltip="The mask, 0 or 1, one for each picture."),
                io.String.Output(
                    display_name="readout", tooltip="How much of each picture is to be painted."
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, image, source, grow, seed, mask=None) -> io.NodeOutput:
        image = check.image("image", image)
        check.choice("source", source, SOURCES)
        check.integer("grow", grow, 0, MAX_GROW)
        check.integer("seed", seed, 0, MAX_SEED)
        if source != GIVEN:
            drawn = draw_masks(source, len(image), image.shape[1], image.shape[2], seed)
        elif mask is None:
            raise ValueError("mask is not connected; connect one, or set source to what should be drawn")
        else:
            drawn = fit_mask(check.mask("mask", mask), image)
        prepared = harden(drawn, grow)
        if not prepared.any():
            raise ValueError(
                f"mask 0 {_why_empty(drawn[0])}: there is nothing to paint; draw one in Load Image (Open in MaskEditor), "
                "or set source to what should be drawn"
            )
        readout = "\n".join(
            f"picture {i}: {one.mean().item():.1%} to be painted"
            if one.any()
            else f"picture {i}: nothing to be painted, the mask {_why_empty(given)}"
            for i, (one, given) in enumerate(zip(prepared, drawn, strict=True))
        )
        return io.NodeOutput(prepared, readout, ui={"text": [readout]})


def _why_empty(mask: torch.Tensor) -> str:
    """Why nothing of a mask is left at one half; a soft mask below it is not an empty one."""
    highest = mask.max().item()
    return f"is below one half everywhere, {highest:.2g} at most" if highest > 0 else "is empty"


class CropForPainting(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_CropForPainting",
            display_name="Crop for Painting",
            category="LLMGA/paint",
            description="Cuts out the hole of a big picture with what is around it, at the size that the UNet paints best. "
            "Stitch Painting puts the painted part back; outside the mask the picture stays as it is, bit for bit.",
            search_aliases=["inpaint", "inpaint crop", "crop and stitch", "masked area", "crop by mask"],
            inputs=[
                io.Image.Input("image", tooltip="The whole pictures. Alpha is dropped."),
                io.Mask.Input(
                    "mask", tooltip="1 = to be painted. Any size; one for all pictures or one for each."
                ),
                *crop_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="part", tooltip="The parts, all of width × height."),
                io.Mask.Output(display_name="part_mask", tooltip="Their masks."),
                CropType.Output(display_name="crop", tooltip="Where they belong, for Stitch Painting."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, image, mask, width, height, context, enlarge) -> io.NodeOutput:
        image, mask = check.image("image", image), check.mask("mask", mask)
        part, part_mask, plan = crop(image, mask, *checked_crop(width, height, context, enlarge))
        readout = "\n".join(_placed(i, box, i in plan.empty) for i, box in enumerate(plan.boxes))
        return io.NodeOutput(part, part_mask, plan, ui={"text": [readout]})


def _placed(index: int, box: Box, empty: bool) -> str:
    where = f"picture {index}: {box.width}×{box.height} pixels at left {box.left}, top {box.top}"
    return f"{where}; its mask is empty, so Stitch Painting gives it back as it is" if empty else where


class StitchPainting(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_StitchPainting",
            display_name="Stitch Painting",
            category="LLMGA/paint",
            description="Puts a painted part back into the picture that Crop for Painting cut it from. Outside the mask the "
            "picture stays as it is, bit for bit.",
            search_aliases=["inpaint stitch", "paste back", "composite", "uncrop"],
            inputs=[
                CropType.Input("crop", tooltip="From Crop for Painting."),
                io.Image.Input(
                    "painted",
                    tooltip="The painted parts, one for each picture, or any number for a single one. Any size.",
                ),
                io.Int.Input(
                    "blend",
                    default=8,
                    optional=True,
                    min=0,
                    max=256,
                    tooltip="Pixels of the whole picture: the hole's edge is softened inwards over twice as many; 0 to 256. "
                    "0 after DiffRIR Restore keeps what it did at the border.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The whole pictures.")],
        )

    @classmethod
    @host.guarded
    def execute(cls, crop, painted, blend) -> io.NodeOutput:
        check.instance("crop", crop, Crop, "Crop for Painting")
        painted = check.image("painted", painted)
        check.integer("blend", blend, 0, 256)
        return io.NodeOutput(stitch(crop, painted, blend, host.raise_if_cancelled))


NODES = [PrepareMask, CropForPainting, StitchPainting]
