"""DIRformer: a Restormer-like U-Net with channel attention whose blocks are modulated by one prior vector per image.

Modules are named as in the official weights. All convolutions of the blocks are without bias.

Source: DiffIR (arXiv 2303.09472, §3.1), whose blocks are Restormer's (arXiv 2111.09881, §3.1-3.2) under a
modulation; names and the reference's way in: DiffRIR 9f3931e ``DiffRIR/archs/S2_arch.py``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_EPS = 1e-5


class Norm(nn.Module):
    """Bias-free layer norm over channels: it divides by the standard deviation but does not subtract the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.ParameterDict({"weight": torch.ones(width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        deviation = (x.var(1, correction=0, keepdim=True) + _EPS).sqrt()
        return x / deviation * self.body["weight"].to(x)[:, None, None]


class Modulated(nn.Module):
    """Base of the layers whose input is scaled and shifted per channel by a projection of the prior."""

    def __init__(self, width: int, prior: int, operations: Any) -> None:
        super().__init__()
        self.kernel = nn.Sequential(operations.Linear(prior, 2 * width, bias=False))

    def modulate(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        scale, shift = self.kernel(prior)[..., None, None].chunk(2, 1)
        return x * scale + shift


class Attention(Modulated):
    """Transposed (channel) attention: each head's map is c × c, whatever the size of the image."""

    def __init__(self, width: int, heads: int, prior: int, operations: Any) -> None:
        super().__init__(width, prior, operations)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = operations.Conv2d(width, 3 * width, 1, bias=False)
        self.qkv_dwconv = operations.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=False)
        self.project_out = operations.Conv2d(width, width, 1, bias=False)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv_dwconv(self.qkv(self.modulate(x, prior)))
        # B(3·heads·c)HW -> three of (B, heads, c, H·W)
        q, k, v = qkv.flatten(2).unflatten(1, (3, len(self.temperature), -1)).unbind(1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # over the pixels
        weights = (q @ k.transpose(-2, -1) * self.temperature.to(q)).softmax(-1)
        return self.project_out((weights @ v).reshape(x.shape))


class FeedForward(Modulated):
    """Gated feed-forward layer with depthwise convolutions (Restormer's GDFN)."""

    def __init__(self, width: int, expansion: float, prior: int, operations: Any) -> None:
        super().__init__(width, prior, operations)
        hidden = int(width * expansion)
        self.project_in = operations.Conv2d(width, 2 * hidden, 1, bias=False)
        self.dwconv = operations.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = operations.Conv2d(hidden, width, 1, bias=False)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        gate, value = self.dwconv(self.project_in(self.modulate(x, prior))).chunk(2, 1)
        return self.project_out(F.gelu(gate) * value)


class Block(nn.Module):
    """Pre-norm transformer block: channel attention, then the gated feed-forward layer."""

    def __init__(self, width: int, heads: int, expansion: float, prior: int, operations: Any) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(width), Norm(width)
        self.attn = Attention(width, heads, prior, operations)
        self.ffn = FeedForward(width, expansion, prior, operations)

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x), prior)
        return x + self.ffn(self.norm2(x), prior)


class Level(nn.ModuleList):
    """A sequence of blocks that share one prior."""

    def forward(self, x: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        for block in self:
            x = block(x, prior)
        return x


class DIRformer(nn.Module):
    """The restoring U-Net: takes the output of ``join_inputs`` and gives (B, 3, scale·h, scale·w).

    Four levels, the first at a quarter of the output's size: its sides must be multiples of 32.

    Args:
        channels: of the input once it is folded to a quarter of the output's size.
        prior: length of the prior.
    """

    def __init__(
        self,
        channels: int,
        scale: int,
        dim: int,
        num_blocks: tuple[int, int, int, int],
        num_refinement_blocks: int,
        heads: tuple[int, int, int, int],
        expansion: float,
        prior: int,
        operations: Any = nn,
    ) -> None:
        super().__init__()
        self.scale = scale
        one, two, three, four = (dim * 2**level for level in range(4))

        def level(width: int, at: int, count: int | None = None) -> Level:
            blocks = range(num_blocks[at] if count is None else count)
            return Level(Block(width, heads[at], expansion, prior, operations) for _ in blocks)

        def down(width: int) -> nn.ModuleDict:
            conv = operations.Conv2d(width, width // 2, 3, padding=1, bias=False)
            return nn.ModuleDict({"body": nn.Sequential(conv, nn.PixelUnshuffle(2))})

        def up(width: int) -> nn.ModuleDict:
            conv = operations.Conv2d(width, 2 * width, 3, padding=1, bias=False)
            return nn.ModuleDict({"body": nn.Sequential(conv, nn.PixelShuffle(2))})

        self.patch_embed = nn.ModuleDict({"proj": operations.Conv2d(channels, one, 3, padding=1, bias=False)})
        self.encoder_level1, self.down1_2 = level(one, 0), down(one)
        self.encoder_level2, self.down2_3 = level(two, 1), down(two)
        self.encoder_level3, self.down3_4 = level(three, 2), down(three)
        self.latent, self.up4_3 = level(four, 3), up(four)
        self.reduce_chan_level3 = operations.Conv2d(four, three, 1, bias=False)
        self.decoder_level3, self.up3_2 = level(three, 2), up(three)
        self.reduce_chan_level2 = operations.Conv2d(three, two, 1, bias=False)
        self.decoder_level2, self.up2_1 = level(two, 1), up(two)
        # No 1×1 convolution here: the first level is twice as wide on the way back.
        self.decoder_level1 = level(two, 0)
        self.refinement = level(two, 0, num_refinement_blocks)
        twice = [layer for _ in range(2) for layer in (_conv(two, 4 * two, operations), nn.PixelShuffle(2))]
        self.tail = nn.Sequential(nn.Sequential(*twice), _conv(two, 3, operations))

    def forward(self, inputs: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        x = self.patch_embed["proj"](F.pixel_unshuffle(inputs, 4 // self.scale))
        first = self.encoder_level1(x, prior)
        second = self.encoder_level2(self.down1_2["body"](first), prior)
        third = self.encoder_level3(self.down2_3["body"](second), prior)
        x = self.latent(self.down3_4["body"](third), prior)
        x = self.reduce_chan_level3(torch.cat([self.up4_3["body"](x), third], 1))
        x = self.decoder_level3(x, prior)
        x = self.reduce_chan_level2(torch.cat([self.up3_2["body"](x), second], 1))
        x = self.decoder_level2(x, prior)
        x = self.decoder_level1(torch.cat([self.up2_1["body"](x), first], 1), prior)
        x = self.tail(self.refinement(x, prior))
        return x + F.interpolate(inputs[:, :3], scale_factor=self.scale, mode="nearest")


def _conv(width: int, out: int, operations: Any) -> nn.Module:
    return operations.Conv2d(width, out, 3, padding=1)
