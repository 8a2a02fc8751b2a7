"""UNet weights under their single-file (LDM) names, from the names that diffusers gives them.

Source: the layout of CompVis/latent-diffusion ``openaimodel.py``; diffusers ``UNet2DConditionModel``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

_Value = TypeVar("_Value")

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_STEM = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_BLOCK = re.compile(
    r"(down|up)_blocks\.(\d{1,2})\.(resnets|attentions|downsamplers|upsamplers)\.(\d{1,2})\.(.{1,200})"
)
_MID = re.compile(r"mid_block\.(resnets|attentions)\.(\d{1,2})\.(.{1,200})")


def unet_to_ldm(state_dict: Mapping[str, _Value]) -> dict[str, _Value]:
    """Rename the weights of a diffusers ``UNet2DConditionModel`` (SD1.x, SD2.x, SDXL; any width and depth).

    Raises:
        ValueError: a name does not belong to such a network.
    """
    layers = 1 + max((int(m[4]) for m in _matches(state_dict, "down", "resnets")), default=-1)
    attending = {int(m[2]) for m in _matches(state_dict, "up", "attentions")}
    return {_unet_name(name, layers, attending): value for name, value in state_dict.items()}


def _matches(state_dict: Mapping[str, Any], side: str, kind: str) -> list[re.Match[str]]:
    found = (_BLOCK.fullmatch(name) for name in state_dict)
    return [match for match in found if match and match[1] == side and match[3] == kind]


def _unet_name(name: str, layers: int, attending: set[int]) -> str:
    stem, _, leaf = name.rpartition(".")
    if stem in _STEM:
        return f"{_STEM[stem]}.{leaf}"
    if match := _MID.fullmatch(name):
        kind, index, rest = match[1], int(match[2]), match[3]
        return (
            f"middle_block.1.{rest}"
            if kind == "attentions"
            else f"middle_block.{2 * index}.{_resnet_name(rest)}"
        )
    if not (match := _BLOCK.fullmatch(name)):
        raise ValueError(f"{name!r} is not a weight of a Stable Diffusion UNet in the diffusers layout")
    side, block, kind, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    # Each block is `layers` (down) or `layers + 1` (up) entries; on the way down one more holds the downsampler.
    first = block * (layers + 1) + (1 if side == "down" else 0)
    column = "input_blocks" if side == "down" else "output_blocks"
    if kind == "resnets":
        return f"{column}.{first + index}.0.{_resnet_name(rest)}"
    if kind == "attentions":
        return f"{column}.{first + index}.1.{rest}"
    if kind == "downsamplers":
        return f"{column}.{first + layers}.0.{rest.replace('conv.', 'op.', 1)}"
    return f"{column}.{first + layers}.{2 if block in attending else 1}.{rest}"


def _resnet_name(rest: str) -> str:
    part, _, leaf = rest.partition(".")
    return f"{_RESNET[part]}.{leaf}"
