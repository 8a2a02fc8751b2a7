"""UNets of Stable Diffusion's shape whose weights follow from a formula, so that a fixture needs to hold none."""

from __future__ import annotations

import zlib
from typing import Any

import torch

from .tiny_clip import WIDTH_L, fill

SD15: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (8, 8, 16, 16),
    "layers_per_block": 2,
    "cross_attention_dim": WIDTH_L,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
SD15_INNER: dict[str, Any] = {
    **SD15,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
"""Without attention at the outermost level, whose matrices of probabilities take most of the reference's time."""
SD15_OUTER: dict[str, Any] = {
    **SD15_INNER,
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "attention_head_dim": 1,
}
"""With it on the way up, in one head."""
SDXL: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "layers_per_block": 2,
    "cross_attention_dim": WIDTH_L,
    "attention_head_dim": (2, 2, 4),
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": WIDTH_L + 6 * 4,
}
DAMPING = 0.05
"""Of the last convolution: undamped, the way of the latents is chaotic and every comparison drowns in rounding."""
SHARPNESS = 1.5
"""Of queries and keys: without it all tokens look alike and every place is attended to equally."""


def tiny_unet(config: dict[str, Any] = SD15, sharpness: float = SHARPNESS) -> Any:
    """A ``UNet2DConditionModel``; deep ones and small latents need less ``sharpness`` to stay well-conditioned."""
    from diffusers import UNet2DConditionModel

    return filled_unet(UNet2DConditionModel(**config), sharpness)


def filled_unet(net: Any, sharpness: float = SHARPNESS) -> Any:
    """The weights of ``tiny_unet`` in any network with the same names."""
    # A convolution is filled like a matrix: by its number of inputs.
    fill(
        ((name, p.detach().flatten(1) if p.ndim == 4 else p.detach()) for name, p in net.named_parameters()),
        "unet",
    )
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "to_q" in name or "to_k" in name:
                parameter.mul_(sharpness)
        net.conv_out.weight.mul_(DAMPING)
        net.conv_out.bias.mul_(DAMPING)
    return net.eval()


def noise(seed: str, *shape: int) -> torch.Tensor:
    """Uniform numbers of variance 1 in float32, the same bits on every machine."""
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.int64) + (zlib.crc32(seed.encode()) << 20)
    for _ in range(3):
        x = ((x >> 16 ^ x) & 0xFFFFFFFF) * 0x45D9F3B & 0xFFFFFFFF
    return ((x.double() / 2**32 - 0.5) * 12**0.5).reshape(shape).float()
