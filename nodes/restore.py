"""Nodes for DiffRIR, the paper's restorer of inpainted images, and for measuring a seam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from ..llmga.images import channels_first, channels_last, fit_mask
from ..llmga.restore import DiffRIRS2, load_restorer, restore
from ..llmga.restore.colour import LEAST, ColourMatch, match_colour
from ..llmga.restore.network_input import blend_weights, resize_to
from ..llmga.restore.seam import Disparity, Seam, seam
from . import check, host, host_memory
from .types import Restorer as RestorerType

NO_RESTORER = "(no file in models/diffrir)"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NETWORK, COLOUR = "DiffRIR", "colour correction"
RING = 32  # pixels of preserved surroundings that the colour correction looks at
LARGE = 0.15  # of a correction at mid grey; a VAE shifts by a few hundredths
ENLARGED = 8  # how much stronger the difference preview shows differences
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Restorer:
    """A DiffRIR, and how to bring it to the compute device right before it is used."""

    net: DiffRIRS2
    load: Callable[[], torch.device]
    what: str

    def __str__(self) -> str:
        """What it is, which is all that a person may see of it."""
        return self.what


class DiffRIRLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_DiffRIRLoader",
            display_name="DiffRIR Loader",
            category="LLMGA/loaders",
            description="Loads a DiffRIR (x1, x2 or x4), the network of the LLMGA paper that fits an inpainted part to its "
            "surroundings in texture, brightness and contrast. DiffIR's own restoration files load too. The scale and all "
            "sizes are read from the file.",
            search_aliases=["DiffIR", "restore", "inpainting seam", "load restorer"],
            inputs=[
                io.Combo.Input(
                    "restorer_file",
                    options=host.names_on_disk(host.restorers) or [NO_RESTORER],
                    tooltip="A .pth or .safetensors file in models/diffrir: a second stage (S2 or S2-GAN) of DiffRIR.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="float32",
                    optional=True,
                    advanced=True,
                    tooltip="The type it computes in. float32 takes 100 MB and is exact; the others are for small GPUs.",
                ),
            ],
            outputs=[
                RestorerType.Output(display_name="restorer", tooltip="The network, for DiffRIR Restore."),
                io.String.Output(display_name="readout", tooltip="Its scale, stage and sizes."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, restorer_file, precision="float32") -> str:
        return host.state_of_choice(host.restorers(), restorer_file)

    @classmethod
    @host.guarded
    def execute(cls, restorer_file, precision) -> io.NodeOutput:
        host.require_reachable(host.RESTORERS, "restorer_file", restorer_file)
        files = host.restorers()
        path = files[check.choice("restorer_file", restorer_file, list(files))]
        dtype = PRECISIONS[check.choice("precision", precision, list(PRECISIONS))]
        loaded = load_restorer(path, dtype=dtype)
        try:
            net = loaded.restorer
        except ValueError as error:
            raise ValueError(f"restorer_file {restorer_file!r}: {error}") from error
        kind = "DiffRIR" if loaded.reference else "DiffIR (it does not look at the reference)"
        count = sum(weight.numel() for weight in net.parameters())
        what = f"{kind} x{loaded.scale}, {count:,} weights, {precision}"
        return io.NodeOutput(Restorer(net, host_memory.managed(net), what), what, ui={"text": [what]})


class DiffRIRRestore(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_DiffRIRRestore",
            display_name="DiffRIR Restore",
            category="LLMGA/restore",
            description="Fits what was painted into a hole to what was preserved around it: the seam in texture, "
            "brightness and contrast goes, and outside the mask every pixel is the reference's. Without weights, the method "
            "colour correction finds one gain and one bias for each channel instead.",
            search_aliases=[
                "seam",
                "colour match",
                "color match",
                "harmonize",
                "inpaint composite",
                "DiffIR",
            ],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="What was painted, whole, straight from VAE Decode. Do not paste the original in before: how "
                    "far the colours are off is read around the hole.",
                ),
                io.Image.Input(
                    "reference",
                    tooltip="The picture before painting, with the same framing; its size is the result's. It may be "
                    "larger than image: twice or four times for an x2 or x4 network.",
                ),
                io.Mask.Input(
                    "mask",
                    tooltip="1 = was painted. Any size; one for all pictures or one for each. Empty: no change.",
                ),
                io.Combo.Input(
                    "method",
                    options=[NETWORK, COLOUR],
                    default=NETWORK,
                    optional=True,
                    tooltip="DiffRIR: the network; connect restorer. colour correction: no network and no weights, one gain "
                    f"and one bias for each channel, from a ring of {RING} preserved pixels around the hole.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    optional=True,
                    min=0,
                    max=MAX_SEED,
                    tooltip="Of the noise that DiffRIR's prior starts from: same seed, same bytes. Its influence is small.",
                ),
                io.Combo.Input(
                    "blend",
                    options=["soft", "hard"],
                    default="soft",
                    optional=True,
                    tooltip="soft: a soft mask mixes painted and preserved by its values. hard: from one half on painted, "
                    "below preserved.",
                ),
                RestorerType.Input(
                    "restorer",
                    optional=True,
                    tooltip="From DiffRIR Loader; only the method DiffRIR needs it.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="restored", tooltip="The result, in the size of reference."),
                io.Image.Output(
                    display_name="difference",
                    tooltip=f"What was changed inside the hole, {ENLARGED} times as strong; black is no change.",
                ),
                io.String.Output(display_name="readout", tooltip="What was done, and what looks wrong."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, image, reference, mask, method, seed, blend, restorer=None) -> io.NodeOutput:
        image, reference = (
            channels_first(check.image(name, value))
            for name, value in (("image", image), ("reference", reference))
        )
        holes = check.mask("mask", mask)[:, None]
        check.choice("method", method, [NETWORK, COLOUR])
        check.integer("seed", seed, 0, MAX_SEED)
        check.choice("blend", blend, ["soft", "hard"])
        weights = blend_weights(holes, reference.shape[-2:], blend)
        if method == NETWORK:
            restorer = check.instance(
                "restorer", restorer, Restorer, "DiffRIR Loader (or set method to colour correction)"
            )
            restorer.load()
            result = restore(
                restorer.net, image, reference, holes, seed,
                blend=blend, on_step=host.progress(), on_strip=host.raise_if_cancelled,
            )  # fmt: skip
            readout = restorer.what
        else:
            found = match_colour(image, reference, weights, RING, on_picture=host.raise_if_cancelled)
            result, readout = found.image, colour_readout(found)
        pasted = torch.lerp(reference, resize_to(image, result.shape[-2:], "bicubic"), weights)
        result, broken = _without_broken(result, pasted)
        difference = ((result - pasted).abs() * ENLARGED).clamp(0, 1)
        readout = "\n".join([readout, *broken, *warnings(image, reference, holes, method, blend)])
        return io.NodeOutput(
            channels_last(result), channels_last(difference), readout, ui={"text": [readout]}
        )


def _without_broken(result: torch.Tensor, pasted: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
    """The results with what was painted where a picture's is not of numbers, and a sentence for each such picture.

    Raises:
        ValueError: no picture's is.
    """
    broken = [i for i, one in enumerate(result) if not torch.isfinite(one).all()]
    words = "gives NaN or infinite numbers"
    advice = "choose the precision float32 in DiffRIR Loader"
    if len(broken) == len(result):
        raise ValueError(f"restorer {words}; {advice}")
    result[broken] = pasted.expand_as(result)[broken]
    return result, [
        f"picture {i}: restorer {words}, so what was painted is left as it is; {advice}" for i in broken
    ]


def colour_readout(found: ColourMatch) -> str:
    lines = []
    for number, (gain, bias, pixels) in enumerate(
        zip(found.gain.tolist(), found.bias.tolist(), found.pixels.tolist(), strict=True)
    ):
        numbers = ", ".join(
            f"{name} × {g:.3f} {b:+.3f}" for name, g, b in zip("RGB", gain, bias, strict=True)
        )
        which = f"picture {number}: " if len(found.gain) > 1 else ""
        if pixels < LEAST:
            lines.append(
                f"{which}colour correction from {pixels} pixels: none, for {LEAST} that are neither black nor white are "
                "needed around the hole"
            )
            continue
        lines.append(f"{which}colour correction from {pixels:,} pixels: {numbers}")
        if max(abs(g / 2 + b - 0.5) for g, b in zip(gain, bias, strict=True)) > LARGE:
            lines.append(
                "that is more than a VAE does: around the hole something else was painted than what is there, and its "
                "colours are no guide; look at the prompt, or connect image and reference of one painting"
            )
    return "\n".join(lines)


def untouched(holes: torch.Tensor, blend: str) -> list[str]:
    """A sentence for each mask (B, 1, H, W) that leaves its picture as the reference is."""
    lines = []
    for number, hole in enumerate(holes):
        if not hole.any():
            lines.append(f"picture {number}: the mask is empty: nothing was changed")
        elif blend == "hard" and not (hole >= 0.5).any():
            lines.append(
                f"picture {number}: the mask is below one half everywhere, and blend is hard: nothing was changed"
            )
    return lines


def warnings(
    image: torch.Tensor, reference: torch.Tensor, holes: torch.Tensor, method: str, blend: str
) -> list[str]:
    """What a person would want to know about the inputs: (B, C, H, W) each."""
    readout = untouched(holes, blend)
    if len(readout) == len(holes):
        return readout if len(holes) > 1 else [readout[0].partition(": ")[2]]
    if (holes >= 0.5).all():
        readout.append("the mask covers everything: nothing is preserved to compare with")
    elif image.shape == reference.shape:
        kept = resize_to(holes, image.shape[-2:], "bilinear") == 0
        if kept.any() and torch.equal(image * kept, reference * kept):
            readout.append(
                "image equals reference around the hole: give what VAE Decode made, before the original is pasted in; "
                "otherwise it cannot be seen how far the colours are off"
            )
    if method == NETWORK and blend == "soft" and ((holes > 0) & (holes < 1)).any():
        readout.append(
            "the mask is soft: its values mix painted and preserved, while the network sees a hole from one half on; "
            "LLMGA's own script replaces from one half on, as blend: hard does"
        )
    if image.shape[-2:] != reference.shape[-2:]:
        sizes = (f"{x.shape[-1]}×{x.shape[-2]}" for x in (image, reference))
        readout.append("image is {}, reference and result are {}".format(*sizes))
    return readout


class SeamReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_SeamReport",
            display_name="Seam Report",
            category="LLMGA/restore",
            description="Measures how much the border of a mask shows in a picture: the disparity of texture, brightness "
            "and contrast across it, next to what it would be where nothing was painted.",
            search_aliases=["seam", "border", "inpainting quality", "measure"],
            inputs=[
                io.Image.Input("image", tooltip="A picture whose hole was painted and put back."),
                io.Mask.Input(
                    "mask", tooltip="1 = was painted. Any size; one for all pictures or one for each."
                ),
                io.Int.Input(
                    "band",
                    default=8,
                    optional=True,
                    min=1,
                    max=128,
                    tooltip="Pixels on each side of the border that are compared, 1 to 128.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="texture", tooltip="Root mean square disparity of the finest detail, 0 to 1."
                ),
                io.Float.Output(display_name="brightness", tooltip="The same of the mean."),
                io.Float.Output(
                    display_name="contrast", tooltip="The same of the spread, without the finest detail."
                ),
                io.Image.Output(
                    display_name="picture",
                    tooltip="The picture in grey; on the border red is texture, green brightness, blue contrast.",
                ),
                io.String.Output(display_name="readout", tooltip="The numbers in words, picture by picture."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, image, mask, band) -> io.NodeOutput:
        image = check.image("image", image)
        holes = fit_mask(check.mask("mask", mask), image)[:, None]
        check.integer("band", band, 1, 128)
        found = seam(channels_first(image), holes, band, on_part=host.raise_if_cancelled)
        readout = "\n".join(seam_readout(i, one) for i, one in enumerate(found))
        picture = channels_last(torch.stack([one.picture for one in found]))
        means = (mean(found, name) for name in ("texture", "brightness", "contrast"))
        return io.NodeOutput(*means, picture, readout, ui={"text": [readout]})


def mean(found: list[Seam], name: str) -> float:
    """Over the pictures that have a border; 0 if none has."""
    values = [getattr(one.disparity, name) for one in found if one.disparity is not None]
    return sum(values) / len(values) if values else 0.0


def seam_readout(index: int, found: Seam) -> str:
    if found.disparity is None:
        return (
            f"picture {index}: no border, the mask is empty, below one half everywhere, or covers everything"
        )
    calm = (
        "too little around it to compare"
        if found.baseline is None
        else f"beside it {numbers(found.baseline)}"
    )
    return f"picture {index}: {numbers(found.disparity)}; {calm}"


def numbers(found: Disparity) -> str:
    values: dict[str, Any] = {name: getattr(found, name) for name in ("texture", "brightness", "contrast")}
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


NODES = [DiffRIRLoader, DiffRIRRestore, SeamReport]
