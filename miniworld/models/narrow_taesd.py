"""Narrow TAESD: the layers of ``AutoencoderTiny`` with fewer channels, and its exact copy in TAESD's own layout.

TAESD spends most of its time at full and half size, on 64 channels and residual blocks that a drawn world does not need.
Here full size has 16 channels, half size 32, and eight of the fourteen blocks are a ReLU. TAESD's layout holds zeros for
what is missing: a channel of zeros adds nothing, and a residual block of zeros gives back what it gets, which has passed
a ReLU. So every TAESD loader takes the file, and ``narrowed`` finds the small net in it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

StateDict = dict[str, torch.Tensor]

CHANNELS = 4
WIDTHS = (16, 32, 64, 64)
"""Channels at full, half, quarter and eighth size."""
ENCODER_BLOCKS = (9, 11, 12, 13)
DECODER_BLOCKS = (2, 3, 4, 7, 8, 12)
"""The residual blocks that are trained, by their place among the layers."""


class ResidualBlock(nn.Module):
    """Three convolutions and a skip, (B, C, H, W) -> the same: diffusers' ``AutoencoderTinyBlock``, by its names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.fuse = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fuse(self.conv(x) + x)


class NarrowEncoder(nn.Module):
    """Pictures (B, 3, H, W) in -1 .. 1 -> latents (B, 4, H / 8, W / 8)."""

    def __init__(self) -> None:
        super().__init__()
        full, half, quarter, eighth = WIDTHS

        def block(place: int, channels: int) -> nn.Module:
            return ResidualBlock(channels) if place in ENCODER_BLOCKS else nn.ReLU()

        self.layers = nn.Sequential(
            nn.Conv2d(3, full, 3, 1, 1), block(1, full),
            nn.Conv2d(full, half, 3, 2, 1, bias=False), *(block(i, half) for i in (3, 4, 5)),
            nn.Conv2d(half, quarter, 3, 2, 1, bias=False), *(block(i, quarter) for i in (7, 8, 9)),
            nn.Conv2d(quarter, eighth, 3, 2, 1, bias=False), *(block(i, eighth) for i in (11, 12, 13)),
            nn.Conv2d(eighth, CHANNELS, 3, 1, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images / 2 + 0.5)


class NarrowDecoder(nn.Module):
    """Latents (B, 4, h, w) -> pictures (B, 3, 8 h, 8 w) in about -1 .. 1."""

    def __init__(self) -> None:
        super().__init__()
        full, half, quarter, eighth = WIDTHS

        def block(place: int, channels: int) -> nn.Module:
            return ResidualBlock(channels) if place in DECODER_BLOCKS else nn.ReLU()

        def larger(channels_in: int, channels: int) -> tuple[nn.Module, nn.Module]:
            return nn.Upsample(scale_factor=2), nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)

        self.layers = nn.Sequential(
            nn.Conv2d(CHANNELS, eighth, 3, 1, 1), nn.ReLU(), *(block(i, eighth) for i in (2, 3, 4)),
            *larger(eighth, quarter), *(block(i, quarter) for i in (7, 8, 9)),
            *larger(quarter, half), *(block(i, half) for i in (12, 13, 14)),
            *larger(half, full), block(17, full),
            nn.Conv2d(full, 3, 3, 1, 1),
        )  # fmt: skip

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.tanh(latents / 3) * 3) * 2 - 1


class NarrowTaesd(nn.Module):
    """The two halves, under ``AutoencoderTiny``'s names."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = NarrowEncoder(), NarrowDecoder()


class InBf16(nn.Module):
    """A net that runs in bf16 autocast and gives float32: latents are rounded to half precision anyway."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.net(x.contiguous(memory_format=torch.channels_last)).float()


def widened(narrow: StateDict) -> StateDict:
    """A ``NarrowTaesd``'s weights in the layout of diffusers' ``AutoencoderTiny``: zeros for what is not there.

    Raises:
        KeyError: a weight's name is none of ``AutoencoderTiny``'s.
    """
    from diffusers import AutoencoderTiny

    net: Any = AutoencoderTiny()
    wide = {name: torch.zeros_like(value) for name, value in net.state_dict().items()}
    for name, value in narrow.items():
        wide[name][tuple(slice(0, side) for side in value.shape)] = value
    return wide


def narrowed(net: Any) -> Any:
    """Take the zeros out of an ``AutoencoderTiny``, in place, so that it gives the same pictures in less time.

    What ``widened`` made gets its narrow layers back; of another net the residual blocks that are all 0 become a ReLU.
    Returns the net.
    """
    wide, narrow = net.state_dict(), NarrowTaesd()
    shapes = {name: value.shape for name, value in narrow.state_dict().items()}
    if shapes.keys() <= wide.keys():
        cut = {name: wide[name][tuple(slice(0, side) for side in shape)] for name, shape in shapes.items()}
        if all(torch.equal(value, wide[name]) for name, value in widened(cut).items()):
            narrow.load_state_dict(cut)
            narrow.to(next(net.parameters())).train(net.training)
            net.encoder.layers, net.decoder.layers = narrow.encoder.layers, narrow.decoder.layers
            return net
    for half in (net.encoder, net.decoder):
        for i, layer in enumerate(half.layers):
            if hasattr(layer, "conv") and not any(weight.any() for weight in layer.parameters()):
                half.layers[i] = nn.ReLU()
    return net
