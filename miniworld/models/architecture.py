"""The miniature Stable Diffusion: SD1.5's architecture at a width that runs anywhere.

The widths are multiples of 32 (GroupNorm) and whole multiples of the first (ComfyUI divides them when it looks at a
checkpoint), the four attention heads are the same at every level, and the autoencoder has TAESD's layout: so diffusers
and ComfyUI both build it, ComfyUI once ``miniworld/pack`` has added the widths. The levels of 16 × 16 and 8 × 8 cells
attend to the text: an object's place is 5 and 3 of them wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..pack.sizes import CONTEXT_DIM, HEADS, MODEL_CHANNELS, TEXT, WIDTHS

__all__ = [
    "CONTEXT_DIM",
    "HEADS",
    "MODEL_CHANNELS",
    "PICTURE",
    "SCHEDULER",
    "TEXT",
    "config_of_weights",
    "picture_size",
    "picture_size_of_checkpoint",
    "unet_config",
]

PICTURE = 256
"""Pixels of a side of what is built; a miniature that was built is of the size that its checkpoint shows."""


def unet_config(picture: int) -> dict[str, Any]:
    """The configuration of diffusers' ``UNet2DConditionModel`` for pictures of so many pixels a side.

    Raises:
        ValueError: the miniature has no such size.
    """
    if picture not in WIDTHS:
        raise ValueError(f"the miniature paints {' or '.join(map(str, WIDTHS))} pixels, not {picture}")
    widths = WIDTHS[picture]
    attending = len(widths) - 1
    return {
        "sample_size": picture // 8,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": widths,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * attending),
        "up_block_types": (*["CrossAttnUpBlock2D"] * attending, "UpBlock2D"),
        "cross_attention_dim": CONTEXT_DIM,
        "attention_head_dim": HEADS,  # diffusers reads this as the number of heads, for SD1.5 too
        "norm_num_groups": 32,
    }


def config_of_weights(unet: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a UNet of the miniature, from its weights under their single-file names: a level is two
    input blocks, but the first has the first convolution and the last no downsampler."""
    blocks = 1 + max(int(name.split(".")[1]) for name in unet if name.startswith("input_blocks."))
    return next(unet_config(size) for size, widths in WIDTHS.items() if 2 * len(widths) == blocks)


def picture_size_of_checkpoint(path: Path) -> int:
    """The pixels of a side of what a miniature's checkpoint paints, from the header of the file alone."""
    from safetensors import safe_open

    prefix = "model.diffusion_model."
    with safe_open(path, "pt") as file:
        names = [name.removeprefix(prefix) for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
    return config_of_weights(dict.fromkeys(names))["sample_size"] * 8


def picture_size(unet: Any) -> int:
    """The pixels of a side of what a UNet of the miniature paints."""
    return unet.config.sample_size * 8


SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
