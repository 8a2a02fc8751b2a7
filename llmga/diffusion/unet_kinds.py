"""What a weight file is that somebody took for a UNet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from ..files.header import Header

_CHOOSE = "choose another 'unet'"


def something_else(header: Header, found: Header) -> str | None:
    """What a file is and where it belongs, or None if it is at least a part of an SD1.5 or SDXL UNet.

    Args:
        header: all the weights of a file.
        found: those under the prefix of a UNet, or all of them.
    """
    if not header:
        return "a file without a single weight; download it again"
    for matches, words in _BY_NAME:
        if matches(header):
            return words
    if not any(_OF_A_UNET.match(name) for name in found):
        some = ", ".join(sorted(header)[:3])
        return f"no Stable Diffusion UNet (its weights are called {some} …); {_CHOOSE}"
    return _other_unet(found)


def _other_unet(found: Header) -> str | None:
    contexts = {weight.shape[1] for name, weight in found.items() if name.endswith(".attn2.to_k.weight")}
    if contexts == {1024}:
        return "a UNet of SD2, which LLMGA has not (SD1.5 and SDXL only); load it with Load Diffusion Model"
    if contexts == {1280}:
        return "the UNet of the SDXL refiner, which LLMGA has not; load it with Load Diffusion Model"
    stem = found.get("conv_in.weight") or found.get("input_blocks.0.0.weight")
    if stem is not None and stem.shape[1:2] == (8,):
        return "an InstructPix2Pix UNet (8 input channels), which LLMGA has not; load it with Load Diffusion Model"
    return None


def _any(pattern: str) -> Callable[[Iterable[str]], bool]:
    search = re.compile(pattern).search
    return lambda names: any(search(name) for name in names)


_OF_A_UNET = re.compile(
    r"(down_blocks|up_blocks|mid_block|conv_in|conv_out|conv_norm_out|time_embedding|add_embedding)\."
    r"|(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\."
)
_UNET_INSIDE = _any(r"^model\.diffusion_model\.")
# In this order: a LoRA names the layers it changes, a ControlNet has half a UNet of its own.
_BY_NAME: tuple[tuple[Callable[[Iterable[str]], bool], str], ...] = (
    (
        _any(r"lora_(up|down|A|B|unet|te)|\.lora[._]|hada_w1|lokr_w1|\.oft_"),
        "a LoRA, which changes a UNet and is none; load it with Load LoRA after this node",
    ),
    (
        _any(r"^(controlnet_|control_model\.|input_hint_block|zero_convs)"),
        "a ControlNet; load it with Load ControlNet Model",
    ),
    (
        _any(r"motion_modules|temporal_transformer"),
        f"an AnimateDiff motion module, or a UNet with one; {_CHOOSE}",
    ),
    (
        lambda names: (
            not _UNET_INSIDE(names)
            and _any(r"(^|\.)(text_model|transformer\.resblocks|encoder\.block)\.")(names)
        ),
        "a text encoder; load it with Load CLIP",
    ),
    (
        lambda names: not _UNET_INSIDE(names) and _any(r"^(first_stage_model|vae|encoder|decoder)\.")(names),
        "a VAE; load it with Load VAE",
    ),
    (
        _any(
            r"double_blocks\.|joint_blocks\.|(^|\.)transformer_blocks\.\d+\.attn\.|single_transformer_blocks\."
        ),
        "a diffusion transformer (Flux, SD3 or a relative) and no UNet; load it with Load Diffusion Model",
    ),
    (_any(r"^G\.patch_embed\.|^diffusion\.betas$"), "a DiffRIR; load it with DiffRIR Loader"),
    (_any(r"^(image_proj|ip_adapter)\."), f"an IPAdapter; {_CHOOSE}"),
    (_any(r"^(model\.0|conv_first|body\.\d+|RRDB_trunk)\."), "an upscaler; load it with Load Upscale Model"),
)
