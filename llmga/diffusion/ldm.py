"""Weights of UNets and ControlNets under their single-file (LDM) names, from the names that diffusers gives them.

Source: the layout of CompVis/latent-diffusion ``openaimodel.py`` and lllyasviel/ControlNet ``cldm.py``; diffusers
``UNet2DConditionModel`` and ``ControlNetModel``.
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


def controlnet_to_ldm(state_dict: Mapping[str, _Value]) -> dict[str, _Value]:
    """Rename the weights of a diffusers ``ControlNetModel`` as lllyasviel/ControlNet's files name them.

    Those files are the network's part of a whole model: each name begins with ``control_model.``.

    Raises:
        ValueError: a name does not belong to such a network.
    """
    own = {name: value for name, value in state_dict.items() if name.startswith("controlnet_")}
    encoder = {name: value for name, value in state_dict.items() if name not in own}
    blocks = len({name for name in own if name.startswith("controlnet_cond_embedding.blocks.")}) // 2
    renamed = {_controlnet_name(name, blocks): value for name, value in own.items()}
    return {f"control_model.{name}": value for name, value in {**unet_to_ldm(encoder), **renamed}.items()}


def _controlnet_name(name: str, blocks: int) -> str:
    """``blocks`` convolutions of the hint's encoder lie between its first and its last; a SiLU follows each."""
    stem, _, leaf = name.rpartition(".")
    if match := re.fullmatch(r"controlnet_down_blocks\.(\d{1,2})", stem):
        return f"zero_convs.{match[1]}.0.{leaf}"
    if match := re.fullmatch(r"controlnet_cond_embedding\.blocks\.(\d{1,2})", stem):
        return f"input_hint_block.{2 * (int(match[1]) + 1)}.{leaf}"
    fixed = {
        "controlnet_mid_block": "middle_block_out.0",
        "controlnet_cond_embedding.conv_in": "input_hint_block.0",
        "controlnet_cond_embedding.conv_out": f"input_hint_block.{2 * (blocks + 1)}",
    }
    if stem not in fixed:
        raise ValueError(f"{name!r} is not a weight of a ControlNet in the diffusers layout")
    return f"{fixed[stem]}.{leaf}"


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
