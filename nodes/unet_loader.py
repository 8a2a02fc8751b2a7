"""LLMGA UNet Loader: a fine-tuned UNet as it is published, checked before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..llmga.diffusion.unet_files import VARIANTS, find_unet, fingerprint
from ..llmga.downloads import PUBLISHED, download_unet
from . import check, host, host_unet


class UNetLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_UNetLoader",
            display_name="LLMGA UNet Loader",
            category="LLMGA/loaders",
            description="Loads a fine-tuned UNet of SD1.5 or SDXL, for text-to-image or inpainting, as it is published: a "
            "diffusers folder or one file, in parts, in half precision or smoothed (EMA). Every weight is checked before "
            "loading, and the MODEL samples as the scheduler next to it says. CLIP and VAE come from a base checkpoint.",
            search_aliases=[
                "load diffusion model",
                "load unet",
                "diffusers loader",
                "inpainting model",
                "shards",
            ],
            inputs=[
                io.Combo.Input(
                    "unet",
                    options=host.names_on_disk(choices) or list(PUBLISHED_CHOICES),
                    tooltip="A diffusers folder (its name ends in /) or a file below models/diffusion_models or "
                    "models/unet. LLMGA's four published UNets are always listed; they need download if they are not here.",
                ),
                io.Combo.Input(
                    "variant",
                    options=list(VARIANTS),
                    default="auto",
                    optional=True,
                    advanced=True,
                    tooltip="Which weights of a folder. auto: half precision before full, smoothed (EMA) before others. "
                    "fp16, full: that precision only. not_ema: the weights that were trained on. A file is what it is.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(host_unet.WEIGHT_DTYPES),
                    default="default",
                    optional=True,
                    advanced=True,
                    tooltip="The weights' type in memory, as in Load Diffusion Model. default: as the device likes it. fp8: "
                    "half the memory, a little less exact.",
                ),
                io.Boolean.Input(
                    "download",
                    default=False,
                    optional=True,
                    tooltip="On: one of LLMGA's four published UNets that is not here is fetched from Hugging Face (1.7 to "
                    "10 GB) into models/diffusion_models, if the machine's owner allows it (see this node's help). It can "
                    "be cancelled and goes on later. Off: nothing is fetched.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The UNet, for LoRA, ControlNet and samplers."),
                io.String.Output(
                    display_name="readout",
                    tooltip="What it is: base, task, input channels, prediction type, weights and file.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, unet, variant: Any = "auto", weight_dtype="default", download=False) -> str:
        try:
            there = host_unet.unets()
            if unet is None or variant is None:  # it comes by a link, and may be any file
                return host.state_of_choice({k: v for k, v in there.items() if unet in (None, k)}, None)
            return fingerprint(find_unet(there[unet], variant))
        except (ValueError, OSError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"

    @classmethod
    @host.guarded
    def execute(cls, unet, variant, weight_dtype, download) -> io.NodeOutput:
        check.choice("variant", variant, VARIANTS)
        host.require_reachable(host_unet.DIFFUSION_MODELS, "unet", unet)
        check.choice("weight_dtype", weight_dtype, list(host_unet.WEIGHT_DTYPES))
        place = place_of(check.choice("unet", unet, list(choices())), check.flag("download", download))
        with check.about("unet"):
            found = find_unet(place, variant)
        readout = found.describe()
        return io.NodeOutput(host_unet.load_unet(found, weight_dtype), readout, ui={"text": [readout]})


PUBLISHED_CHOICES = tuple(f"{name}/" for name in PUBLISHED)


def choices() -> dict[str, Path | None]:
    """What is here, and LLMGA's published UNets that are not (None)."""
    here = host_unet.unets()
    return {**here, **{name: None for name in PUBLISHED_CHOICES if name not in here}}


def place_of(name: str, download: bool) -> Path:
    """Where a choice is, after a download if that is needed and wanted."""
    place, published = choices()[name], name.removesuffix("/")
    if download and published in PUBLISHED and not _is_whole(place):
        if not host.downloads_allowed():
            raise ValueError(
                f"unet {name!r} is not whole on this machine, and its owner has not allowed downloads: a workflow alone "
                "starts none. Set LLMGA_ALLOW_DOWNLOADS=1 where ComfyUI starts, or make an empty file allow_downloads in "
                f"user/__llmga; or put the unet folder of {PUBLISHED[published]} into models/diffusion_models/{published}"
            )
        return download_unet(published, host_unet.download_folder(), host.progress())
    if place is None:
        raise FileNotFoundError(
            f"unet {name!r} is not on this machine; turn 'download' on to fetch it from Hugging Face "
            f"({PUBLISHED[published]}), or put that repository's unet folder into models/diffusion_models/{published}"
        )
    return place


def _is_whole(place: Path | None) -> bool:
    """Whether nothing of a UNet is missing; a download may also have stopped between two of its files."""
    if place is None or any(place.rglob("*.part")):
        return False
    try:
        find_unet(place)
    except FileNotFoundError:
        return False
    except ValueError:  # it is here, and something else is wrong with it
        pass
    return True


NODES = [UNetLoader]
