"""Adversarial and perceptual losses for the restorer: a U-Net discriminator and a VGG feature distance.

Source: Real-ESRGAN (arXiv 2107.10833, §3.3 and §4.1), whose losses DiffRIR's last stage has (9f3931e,
``options/train_DiffRIRS2_GAN_x1.yml``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

VGG_LAYERS: Mapping[int, float] = {2: 0.1, 7: 0.1, 16: 1.0, 25: 1.0, 34: 1.0}
"""Places in torchvision's ``vgg19().features`` and their weights: conv1_2, 2_2, 3_4, 4_4, 5_4, before their ReLU."""


class UNetCritic(nn.Module):
    """U-Net discriminator with spectral norm: (B, 3, H, W), sides multiples of 8, to logits (B, 1, H, W)."""

    def __init__(self, features: int = 64) -> None:
        super().__init__()
        f = features
        self.conv0 = nn.Conv2d(3, f, 3, 1, 1)
        for i, (width, out) in enumerate(((f, 2 * f), (2 * f, 4 * f), (4 * f, 8 * f)), 1):
            self.add_module(f"conv{i}", spectral_norm(nn.Conv2d(width, out, 4, 2, 1, bias=False)))
        for i, (width, out) in enumerate(((8 * f, 4 * f), (4 * f, 2 * f), (2 * f, f), (f, f), (f, f)), 4):
            self.add_module(f"conv{i}", spectral_norm(nn.Conv2d(width, out, 3, 1, 1, bias=False)))
        self.conv9 = nn.Conv2d(f, 1, 3, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        def layer(i: int, x: torch.Tensor) -> torch.Tensor:
            return F.leaky_relu(self.get_submodule(f"conv{i}")(x), 0.2)

        skips = [layer(0, images)]
        for i in (1, 2, 3):
            skips.append(layer(i, skips[-1]))
        x = skips.pop()
        for i in (4, 5, 6):
            x = layer(i, F.interpolate(x, scale_factor=2, mode="bilinear")) + skips.pop()
        return self.conv9(layer(8, layer(7, x)))


class FeatureDistance(nn.Module):
    """The weighted mean absolute difference of two pictures' features, taken at places of a sequence of layers.

    Args:
        layers: such as torchvision's ``vgg19().features``; frozen.
        weights: of the outputs of these layers.

    ``forward`` takes pictures (B, 3, H, W), 0 .. 1, and normalises them as ImageNet's are.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, layers: nn.Sequential, weights: Mapping[int, float] = VGG_LAYERS) -> None:
        super().__init__()
        used = list(layers)[: max(weights) + 1]
        # In place a ReLU would change the features before it.
        self.layers = nn.ModuleList(nn.ReLU() if isinstance(layer, nn.ReLU) else layer for layer in used)
        self.weights = dict(weights)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, made: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        a, b = ((x - self.mean) / self.deviation for x in (made, truth))
        total = made.new_zeros(())
        for i, layer in enumerate(self.layers):
            a, b = layer(a), layer(b)
            if i in self.weights:
                total = total + self.weights[i] * F.l1_loss(a, b)
        return total


def vgg_distance(path: Path) -> FeatureDistance:
    """The distance in VGG19's features, from a file of torchvision's weights (``vgg19-dcbb9e9d.pth``).

    Raises:
        FileNotFoundError: there is no such file.
    """
    from torchvision.models import vgg19

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; it should be torchvision's VGG19 (vgg19-dcbb9e9d.pth). "
            "perceptual_weight=0 trains without"
        )
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    layers: Any = vgg19().features
    layers.load_state_dict(
        {
            name.removeprefix("features."): value
            for name, value in state.items()
            if name.startswith("features.")
        }
    )
    return FeatureDistance(layers)
