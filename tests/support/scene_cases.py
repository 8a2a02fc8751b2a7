"""What the recording of RFNet's released code and the test against it share: network, words, boxes and masks."""

from __future__ import annotations

from typing import Any

import torch

from .tiny_clip import WIDTH_L
from .tiny_unet import SD15, noise

UNET: dict[str, Any] = {**SD15, "attention_head_dim": 8}
"""Eight heads at every level, as SD1.5 has: the released losses are sums over the heads."""
SHARPNESS = 0.7
"""Of the network's attention: sharper, the largest cells change places by rounding, and a gradient of them jumps."""
SMALL: dict[str, Any] = {
    **SD15,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": 4,
}
"""Two levels, as the miniature has: quick, for whole scenes."""
LATENT = 24
STEPS = 5
PASSES = (2, 1, 1, 1, 1)
"""Gradient passes before each step."""
CFG = 7.5
ALONE_BOX = (0.25, 0.3, 0.75, 0.8)
SCENE_BOXES = ((0.05, 0.3, 0.45, 0.8), (0.55, 0.1, 0.95, 0.6))
"""Left, top, right, bottom."""
ALONE_TOKENS = [4, 5, 6]
SCENE_TOKENS = [[4, 5, 6], [9, 10]]

_LOOKS = "old small proud sleepy frightened shiny broken gigantic calm furious glass wooden".split()
_DOES = "runs away|leaps ahead|sits in the sun|looks back|carries a lamp|holds its breath|waits|roars|melts|sings".split(
    "|"
)


def described(case: int) -> list[list[str]]:
    """One to three objects with three descriptions each, different in every case."""
    objects = []
    for number in range(case % 3 + 1):
        texts = []
        for k in range(3):
            place = case * 31 + number * 17 + k * 7
            look, other = _LOOKS[place % 12], _LOOKS[(place * 5 + 3 + k) % 12]
            texts.append(
                f"{look} and {other}, it {_DOES[(place * 3 + k * k) % 10]}" + ", again" * (place % 4)
            )
        objects.append(texts)
    return objects


def attention_maps(seed: str, cells: int, tokens: int = 77, heads: int = 8) -> torch.Tensor:
    """(heads, cells, tokens) like a softmax over tokens."""
    return (2 * noise(f"maps {seed}", heads, cells, tokens)).softmax(-1)


def context(name: str) -> torch.Tensor:
    """(1, 77, dim): the states of a prompt that no text encoder needs to make."""
    return noise(f"context {name}", 1, 77, WIDTH_L)


def masks(case: int, size: int) -> list[torch.Tensor]:
    """Three objects' masks (size, size), bool: blobs of different places, sizes and shapes."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    found = []
    for number in range(3):
        y, x = size * (3 + number + case) / 8, size * (4 - number + case % 2) / 8
        radius = size * (0.1 + 0.05 * ((number + case) % 3))
        found.append(((rows - y) ** 2 + (columns - x) ** 2 * (1 + number) / 2) < radius**2)
    return found


PLACES = (
    ((0.05, 0.1, 0.4, 0.5), (0.5, 0.4, 0.9, 0.9), (0.3, 0.3, 0.7, 0.7)),
    ((0.6, 0.0, 1.0, 0.3), (0.0, 0.6, 0.3, 1.0), (0.4, 0.5, 0.6, 0.9)),
    ((0.1, 0.1, 0.2, 0.2), (0.75, 0.75, 0.95, 0.95), (0.2, 0.55, 0.75, 0.8)),
    ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.25, 0.25, 0.75, 0.75)),
)
"""Boxes for the masks of four cases."""
