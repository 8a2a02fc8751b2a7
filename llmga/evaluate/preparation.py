"""Pictures as a vision network wants them: resized, cropped and normalised, as torchvision's transforms do on PIL images.

Every step is Pillow's own, so that a score does not depend on which image processor of transformers is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image


@dataclass(frozen=True)
class Preparation:
    """How a picture becomes a tensor.

    Args:
        resize: the shorter side, in pixels, by bicubic interpolation; None leaves the size.
        crop: side of the square cut out of the middle; None cuts nothing.
        mean, std: of the normalisation, for each channel of 0 .. 1.
    """

    resize: int | None
    crop: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __str__(self) -> str:
        size = "own size" if self.resize is None else f"shorter side {self.resize} bicubic"
        return size if self.crop is None else f"{size}, centre {self.crop}"

    def tensor(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """(B, 3, H, W) float32.

        Raises:
            ValueError: without a crop, the pictures' sizes differ.
        """
        prepared = [np.asarray(self._cropped(self._resized(picture.convert("RGB")))) for picture in pictures]
        if len({array.shape for array in prepared}) != 1:
            raise ValueError("pictures of different sizes cannot be one batch; give 'crop'")
        values = torch.from_numpy(np.stack(prepared)).movedim(-1, 1).float() / 255
        mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (self.mean, self.std))
        return (values - mean) / std

    def _resized(self, picture: Image.Image) -> Image.Image:
        if self.resize is None:
            return picture
        width, height = picture.size
        short = min(width, height)
        size = tuple(
            self.resize if side == short else int(self.resize * side / short) for side in picture.size
        )
        return picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)

    def _cropped(self, picture: Image.Image) -> Image.Image:
        if self.crop is None:
            return picture
        left, top = (round((side - self.crop) / 2) for side in picture.size)
        return picture.crop((left, top, left + self.crop, top + self.crop))


CLIP = Preparation(224, 224, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""OpenAI's CLIP."""
DINO = Preparation(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""As MagicBrush's evaluation reads pictures for DINO."""
