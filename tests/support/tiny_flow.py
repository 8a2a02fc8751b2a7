"""Tiny flow transformers of four families whose weights follow from a formula, and their velocities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .tiny_clip import WIDTH_G, WIDTH_L, fill
from .tiny_unet import noise

CHANNELS = 16
_PATCHED = {"in_channels": 4 * CHANNELS, "num_attention_heads": 2, "attention_head_dim": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "sd3": {
        "sample_size": 16,
        "num_layers": 2,
        "attention_head_dim": 64,
        "num_attention_heads": 2,
        "joint_attention_dim": 4096,  # ComfyUI pads SD3's text to it
        "caption_projection_dim": 128,
        "pooled_projection_dim": WIDTH_L + WIDTH_G,
        "pos_embed_max_size": 16,
    },
    "flux": {
        **_PATCHED,
        "num_layers": 1,
        "num_single_layers": 1,
        "joint_attention_dim": WIDTH_L,
        "pooled_projection_dim": WIDTH_L,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 6, 6),
    },
    "qwen_image": {
        **_PATCHED,
        "num_layers": 2,
        "joint_attention_dim": WIDTH_L,
        "axes_dims_rope": (4, 6, 6),
    },
    "z_image": {
        "dim": 288,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "n_heads": 9,
        "n_kv_heads": 9,
        "cap_feat_dim": WIDTH_L,
        "axes_dims": [8, 12, 12],
        "axes_lens": [256, 32, 32],
    },
}
"""By ComfyUI's name of the family: what diffusers' transformer is made with."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """An encoded prompt: text (1, T, width), the pooled vector (1, width'), and the embedded guidance of Flux."""

    text: torch.Tensor
    pooled: torch.Tensor
    guidance: float = 3.5


def transformer(family: str) -> Any:
    """A diffusers transformer in float32."""
    import diffusers

    kind = {
        "sd3": "SD3Transformer2DModel",
        "flux": "FluxTransformer2DModel",
        "qwen_image": "QwenImageTransformer2DModel",
        "z_image": "ZImageTransformer2DModel",
    }[family]
    net = getattr(diffusers, kind)(**CONFIGS[family])
    fill(net.named_parameters(), family)
    return net.eval()


def prompt(family: str, name: str, tokens: int = 5, guidance: float = 3.5) -> Prompt:
    config = CONFIGS[family]
    width = config["joint_attention_dim" if "joint_attention_dim" in config else "cap_feat_dim"]
    pooled = noise(f"{name} pooled", 1, config.get("pooled_projection_dim", 1))
    return Prompt(noise(f"{name} text", 1, tokens, width), pooled, guidance)


@torch.no_grad()
def velocity(family: str, net: Any, x: torch.Tensor, sigma: float, one: Prompt) -> torch.Tensor:
    """dx / dsigma of a latent (B, 16, h, w)."""
    batch, _, height, width = x.shape
    text, pooled = (each.expand(batch, *each.shape[1:]) for each in (one.text, one.pooled))
    level = torch.full((batch,), sigma)
    if family == "sd3":
        return net(x, text, pooled, level * 1000).sample
    if (
        family == "z_image"
    ):  # it answers with the velocity from noise to picture, at a time that grows that way
        rows = [row[:, None] for row in x]
        return -torch.stack(net(rows, 1 - level, list(text)).sample)[:, :, 0]
    size = (height // 2, width // 2)
    if family == "qwen_image":
        mask = torch.ones(text.shape[:2], dtype=torch.long)
        out = net(pack(x), text, mask, level, img_shapes=[[(1, *size)]] * batch)
        return unpack(out.sample, size)
    guidance = torch.full((batch,), one.guidance)
    out = net(pack(x), text, pooled, level, positions(*size), torch.zeros(text.shape[1], 3), guidance)
    return unpack(out.sample, size)


def pack(x: torch.Tensor) -> torch.Tensor:
    """(B, C, 2h, 2w) -> (B, h·w, 4C): Flux's patches."""
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, channels * 4)


def unpack(patches: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    batch, _, channels = patches.shape
    x = patches.reshape(batch, *size, channels // 4, 2, 2)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, size[0] * 2, size[1] * 2)


def positions(height: int, width: int) -> torch.Tensor:
    at = torch.cartesian_prod(torch.zeros(1), torch.arange(height).float(), torch.arange(width).float())
    return at.reshape(-1, 3)
