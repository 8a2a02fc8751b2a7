"""What a file is that is no DiffRIR, as far as its first bytes and the names of its tensors tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files.header import kind_of

_ACCIDENTS = {
    "empty": "an empty file",
    "pointer": "a pointer of Git LFS; the weights themselves were never fetched",
    "page": "a web page; the download led to a page instead of the file",
    "gguf": "a GGUF file",
}
_PATTERNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    # What it is, and regular expressions each of which the beginning of some name must match.
    ("a LoRA", (r".*(lora_|\.lora\.|lora_[AB]|\.hada_|\.lokr_)",)),
    ("a ControlNet", (r"control_model\.|controlnet_|input_hint_block\.",)),
    ("a whole Stable Diffusion checkpoint", (r"model\.diffusion_model\.", r"first_stage_model\.")),
    (
        "a UNet of Stable Diffusion in a single file",
        (r"model\.diffusion_model\.|diffusion_model\.|input_blocks\.",),
    ),
    ("a diffusers UNet", (r"down_blocks\.", r"mid_block\.", r"time_embedding\.")),
    ("a VAE", (r"(first_stage_model\.)?encoder\.(down_blocks|down)\.", r"(first_stage_model\.)?decoder\.")),
    ("a vision model", (r"(vision_model|visual)\.",)),
    ("a text encoder", (r"(text_model|cond_stage_model|encoder\.block)\.",)),
    ("a language model", (r"(model\.|language_model\.)*layers\.\d+\.(self_attn|mlp)\.",)),
    ("an ESRGAN upscaler", (r"RRDB_trunk\.|body\.\d+\.rdb1\.|model\.1\.sub\.",)),
    ("a compact upscaler (SRVGG)", (r"body\.0\.weight", r"body\.1\.weight", r"body\.2\.weight")),
    ("a transformer upscaler (SwinIR, HAT, DAT)", (r"layers\.\d+\.(residual_group|blocks)\.",)),
    ("the discriminator of a DiffRIR's training", (r"conv0\.(weight|parametrizations)", r"conv9\.")),
    ("a Restormer, whose blocks are not steered by a prior", (r"patch_embed\.proj\.", r"encoder_level1\.")),
    (
        "a part of a DiffRIR or DiffIR",
        (r"(G\.encoder_level1|condition\.E|diffusion\.model|denoise\.resmlp)\.",),
    ),
)
_TRAINING_STATE = {"epoch", "iter", "optimizers"}


def foreign(content: Mapping[Any, Any]) -> str:
    """What holds these names, in words, and that it is no DiffRIR."""
    names = [str(name) for name in content]
    if set(names) >= _TRAINING_STATE:
        return "the state of a training (BasicSR's .state), which holds no weights; the weights are in models/net_g_*.pth"
    for what, patterns in _PATTERNS:
        if all(any(re.match(pattern, name) for name in names) for pattern in patterns):
            return f"{what}, not a DiffRIR"
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"not a DiffRIR: it lacks G.patch_embed.proj.weight; it holds {len(names)} entries ({shown or 'none'})"


def sniff(path: Path) -> str:
    """ "safetensors" or "torch", or in words what else the first bytes say."""
    with path.open("rb") as file:
        head = file.read(64)
    kind = kind_of(head)
    return f"no file of weights (it begins with {head[:8]!r})" if kind is None else _ACCIDENTS.get(kind, kind)
