"""Image conversions at the border of the library: tensors and PIL images, BHWC and BCHW, masks fitted to images.

Tensors are IMAGE (BHWC, float, 0 .. 1) and MASK (BHW, float, 0 .. 1, 1 = to be generated).
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

HOLE_FROM = 1 / 64
"""The least mask value that is a hole. File readers and segmenters give masks that are nowhere exactly 0: 1/256 where
black was meant is common, and 4/255 occurs."""


def holes(mask: torch.Tensor) -> torch.Tensor:
    """What a mask says: float32, 0 .. 1, and 0 where it is below ``HOLE_FROM``. Everything that asks where a hole is asks
    here first."""
    weight = mask.to(torch.float32).clamp(0, 1)
    return torch.where(weight < HOLE_FROM, 0.0, weight)


def to_pil(image: torch.Tensor) -> list[Image.Image]:
    """Convert to one RGB image per batch item: grey is repeated, alpha dropped, values clamped and rounded to 8 bits.

    Args:
        image: (B, H, W, C) with C = 1, 3 or 4, any float dtype and device.
    """
    rgb = image.detach().to("cpu", torch.float32)
    rgb = rgb.expand(-1, -1, -1, 3) if rgb.shape[-1] == 1 else rgb[..., :3]
    bytes_ = rgb.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()
    return [Image.fromarray(np.ascontiguousarray(item), "RGB") for item in bytes_]


def from_pil(pictures: list[Image.Image]) -> torch.Tensor:
    """Convert images of one size to (B, H, W, 3) float32 in 0 .. 1.

    Raises:
        ValueError: there is no picture, or their sizes differ.
    """
    sizes = {picture.size for picture in pictures}
    if len(sizes) != 1:
        raise ValueError(f"a batch needs pictures of one size, got {sorted(sizes) or 'none'}")
    arrays = [np.asarray(picture.convert("RGB"), dtype=np.float32) / 255 for picture in pictures]
    return torch.from_numpy(np.stack(arrays))


def paint_hole_black(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Paint the hole black, as in the images that LLMGA was trained to see.

    Args:
        image: (B, H, W, C).
        mask: (B or 1, h, w), resized bilinearly to the picture.

    Raises:
        ValueError: there are several masks, but not one for each picture.

    Source: LLMGA, llmga/llava/train/inpainting_dataset.py:104-108.
    """
    keep = 1 - fit_mask(mask, image)[..., None]  # BHW -> BHW1
    return image * keep.to(image.dtype)


def channels_first(image: torch.Tensor) -> torch.Tensor:
    """Convert BHWC, C = 1, 3 or 4, to (B, 3, H, W): grey is repeated, alpha dropped, values clamped to 0 .. 1."""
    rgb = image.expand(-1, -1, -1, 3) if image.shape[-1] == 1 else image[..., :3]
    return rgb.movedim(-1, 1).clamp(0, 1)


def channels_last(image: torch.Tensor) -> torch.Tensor:
    """Convert BCHW to contiguous BHWC."""
    return image.movedim(1, -1).contiguous()


def fit_mask(mask: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Resize masks to the images and give one for each: (B, H, W) float32, what ``holes`` says of them.

    Args:
        mask: (B or 1, h, w), resized bilinearly to the pictures.
        image: (B, H, W, C).

    Raises:
        ValueError: there are several masks, but not one for each picture.
    """
    if mask.shape[0] not in (1, image.shape[0]):
        raise ValueError(
            f"mask holds {mask.shape[0]} masks for {image.shape[0]} pictures in image; give one, or one each"
        )
    weight = holes(mask.to(image.device))[:, None]  # BHW -> B1HW
    if weight.shape[-2:] != image.shape[1:3]:
        weight = torch.nn.functional.interpolate(
            weight, size=image.shape[1:3], mode="bilinear", antialias=True
        )
    return holes(weight[:, 0]).expand(image.shape[0], -1, -1)
