"""Crop Each Region and Stitch Regions: several holes of one picture, each with its own words, painted in turn."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..llmga.paint.regions import MAX_REGIONS, SPLITS, add_painted, crop_region, start_regions
from ..llmga.paint.regions import Regions as RegionsOfPicture
from . import check, host
from .crop_inputs import checked_crop, crop_inputs
from .host_repeat import Repeated, find_repeated, run_again
from .types import Regions

START = "LLMGA_CropEachRegion"
"""Where a repetition begins."""
REGIONS_SLOT = 1
"""Of Stitch Regions: the output that goes on to the next region."""


class CropEachRegion(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_CropEachRegion",
            display_name="Crop Each Region",
            category="LLMGA/paint",
            description="Several holes of one picture, each with its own instruction: cuts out the first one with what is "
            "around it. Everything from here to Stitch Regions runs again for each further hole, in the picture with "
            "those before it painted.",
            search_aliases=[
                "multiple masks",
                "several masks",
                "regional prompt",
                "mask batch",
                "inpaint each mask",
                "detailer",
                "separate mask",
                "connected components",
                "loop",
                "for each",
                "inpaint crop",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The whole picture, a single one. Alpha is dropped."),
                io.Mask.Input(
                    "mask",
                    tooltip=f"1 = to be painted. A batch of masks, a region each, or one mask with several areas; any size, "
                    f"up to {MAX_REGIONS} regions.",
                ),
                io.String.Input(
                    "instructions",
                    multiline=True,
                    default="",
                    optional=True,
                    tooltip="What belongs into each region: a line for each, in the order of the masks, or of the areas "
                    "from left to right; a blank line leaves it open. A single line is for all.",
                ),
                io.Combo.Input(
                    "split",
                    options=list(SPLITS),
                    default="auto",
                    optional=True,
                    tooltip="masks: each mask is a region. areas: each area of a mask that is apart from the others. auto: "
                    "areas of a single mask, otherwise masks.",
                ),
                *crop_inputs(),
                Regions.Input(
                    "regions",
                    optional=True,
                    tooltip="Only where Stitch Regions does not repeat: its regions, to go on with the next one by nodes of "
                    "its own. image, mask, instructions and split then say nothing new.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="part", tooltip="The part around the region, width × height."),
                io.Mask.Output(display_name="part_mask", tooltip="Its mask."),
                io.String.Output(display_name="instruction", tooltip="Its line of the instructions."),
                Regions.Output(display_name="regions", tooltip="All regions, for Stitch Regions."),
                io.Image.Output(
                    display_name="picture",
                    tooltip="The whole picture with the regions before this one painted.",
                ),
                io.Mask.Output(display_name="hole", tooltip="The region in the whole picture."),
                io.Int.Output(display_name="index", tooltip="The number of the region, from 0."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, image, mask, instructions, split, width, height, context, enlarge, regions=None
    ) -> io.NodeOutput:
        if regions is None:
            regions = start_regions(
                check.image("image", image),
                check.mask("mask", mask),
                check.optional_text("instructions", instructions),
                check.choice("split", split, SPLITS),  # type: ignore[arg-type]
            )
        check.instance("regions", regions, RegionsOfPicture, "Stitch Regions")
        part, part_mask, regions = crop_region(regions, *checked_crop(width, height, context, enlarge))
        return io.NodeOutput(
            part, part_mask, regions.instruction, regions, regions.picture[None], regions.mask[None], regions.index,
            ui={"text": [regions.report()]},
        )  # fmt: skip


class StitchRegions(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_StitchRegions",
            display_name="Stitch Regions",
            category="LLMGA/paint",
            description="Ends what Crop Each Region begins: takes the painted part, has everything between the two run "
            "again for each further region, and stitches them all into the original at once. Outside the masks the picture "
            "stays as it is, bit for bit.",
            search_aliases=[
                "inpaint stitch",
                "several masks",
                "paste back",
                "composite",
                "loop",
                "for each end",
            ],
            inputs=[
                Regions.Input("regions", tooltip="Straight from Crop Each Region."),
                io.Image.Input("painted", tooltip="The painted part, a single picture. Any size."),
                io.Int.Input(
                    "blend",
                    default=8,
                    optional=True,
                    min=0,
                    max=256,
                    tooltip="Pixels of the whole picture: the border of all that is stitched is softened inwards over twice "
                    "as many; 0 to 256.",
                ),
                io.Mask.Input(
                    "stitch_mask",
                    optional=True,
                    tooltip="Where painted pixels go into the picture, instead of the painted masks: wider, for a shadow "
                    "beyond them, or narrower. One, divided by the nearest region, or one for each region. Empty: none.",
                ),
                io.Boolean.Input(
                    "repeat",
                    default=True,
                    optional=True,
                    advanced=True,
                    tooltip="On: everything between Crop Each Region and here runs again for each further region. Off: this "
                    "region alone; regions goes to the next Crop Each Region.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The whole picture, all regions in it."),
                Regions.Output(
                    display_name="regions", tooltip="For the next Crop Each Region, where repeat is off."
                ),
                io.Mask.Output(display_name="stitched", tooltip="Where painted pixels are in it."),
                io.String.Output(
                    display_name="readout",
                    tooltip="A line for each region: its place, its words, what was left out.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            is_input_list=True,  # to see a list, which would paint each region as often
            enable_expand=True,
        )

    @classmethod
    @host.guarded
    def execute(cls, regions, painted, blend, repeat, stitch_mask=None) -> io.NodeOutput:
        regions = check.instance("regions", _single("regions", regions), RegionsOfPicture, "Crop Each Region")
        stitch_mask = _single("stitch_mask", stitch_mask)
        done = add_painted(
            regions,
            check.image("painted", _single("painted", painted)),
            check.integer("blend", _single("blend", blend), 0, 256),
            None if stitch_mask is None else check.mask("stitch_mask", stitch_mask),
        )
        if check.flag("repeat", _single("repeat", repeat)) and not done.done:
            return _go_on(cls.hidden)
        readout = done.report()
        return io.NodeOutput(done.picture[None], done, done.stitched[None], readout, ui={"text": [readout]})


def _single(name: str, values: Any) -> Any:
    """The one value of an input that ComfyUI gives as a list; a default is none."""
    if not isinstance(values, list):
        return values
    if len(values) != 1:
        raise ValueError(
            f"{name} is a list of {len(values)}: the regions of one picture are painted at a time, each once; give Crop "
            "Each Region a single picture, and paint from an output that is not a list (of LLMGA Chat prompt, not prompts)"
        )
    return values[0]


def _go_on(hidden: Any) -> io.NodeOutput:
    """The graph that paints the next region, and gives this node's outputs after it."""
    if hidden is None or hidden.dynprompt is None:
        raise ValueError(
            "repeat needs a running workflow of ComfyUI; set it to off to call this node by itself"
        )
    repeated = find_repeated(hidden.dynprompt, hidden.unique_id, "regions", START)
    _refuse_edited_replies(repeated)
    graph, output = run_again(hidden.dynprompt, repeated, "regions", REGIONS_SLOT, repeat=False)
    return io.NodeOutput(*(output(i) for i in range(4)), expand=graph)


def _refuse_edited_replies(repeated: Repeated) -> None:
    for one in repeated.between:
        edited = repeated.nodes[one]["inputs"].get("edited_reply")
        if isinstance(edited, str) and edited.strip():
            raise ValueError(
                "LLMGA Chat between Crop Each Region and Stitch Regions has an edited reply (edited_reply), which every "
                "region would get; clear it in its panel, or set repeat to off and give each region nodes of its own"
            )


NODES = [CropEachRegion, StitchRegions]
