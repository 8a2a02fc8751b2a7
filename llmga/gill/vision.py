"""The frozen vision encoder of GILL: a CLIP, one vector for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..chat.checkpoints.vision import MEAN, STD, read_tower
from ..chat.engines.transformers_names import dtype_argument
from ..chat.folder_check import one_kind_of_error
from ..chat.folders.loaded import check_loaded

_PREFIX = "vision_tower."
_LONGEST = 16


class FrozenVision:
    """A CLIP vision model, of which the pooled output counts: the class token after the last norm.

    For a vision tower whose class token was never trained, as that of a LLaVA, ``use_grid`` takes the means of the last
    layer's patches over a grid of cells instead, one behind the other.

    Attributes:
        net: the bare ``CLIPVisionModel``, for the host to place.
        width: of a picture's vector.
        grid: cells along each side; 0 takes the class token.
        size: side of the pictures that it reads, in pixels.
    """

    def __init__(self, net: Any, name: str) -> None:
        self.net = net.eval().requires_grad_(False)
        self.name = name
        self.width: int = net.config.hidden_size
        self.size: int = net.config.image_size
        self.grid = 0

    def use_grid(self, grid: int) -> None:
        """Take the means over ``grid`` × ``grid`` cells, 1 .. 8, or the class token for 0."""
        if not 0 <= grid <= 8:
            raise ValueError(f"grid must be between 0 and 8, got {grid}")
        self.grid = grid
        self.width = self.net.config.hidden_size * max(grid, 1) ** 2

    def use_width(self, width: int) -> None:
        """Choose what a GILL was trained on by the width of its pictures' vectors.

        Raises:
            ValueError: neither the class token nor a grid has that width.
        """
        fitting = [
            grid for grid in (0, *range(2, 9)) if self.net.config.hidden_size * max(grid, 1) ** 2 == width
        ]
        if not fitting:
            raise ValueError(
                f"this GILL was trained for a vision encoder of width {width}; {self.name!r} has "
                f"{self.net.config.hidden_size}. Choose the one that it was trained with in 'vision' (CLIP ViT-L/14 for the "
                "released one)"
            )
        self.use_grid(fitting[0])

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def pixels(self, picture: Image.Image) -> torch.Tensor:
        """A picture as the encoder takes it, (3, size, size), float32: the shorter side scaled, the middle cut out.

        Source: transformers 4.30.2's CLIPImageProcessor: bicubic on 8 bits, crop, mean and deviation. Deviation: of a
        picture that is more than ``_LONGEST`` times longer than wide the middle alone is scaled, since all of it would fill
        the memory.
        """
        rgb = _middle(picture.convert("RGB"))
        short, long = sorted(rgb.size)
        scaled = int(self.size * long / short)
        side = (self.size, scaled) if rgb.width <= rgb.height else (scaled, self.size)
        rgb = rgb.resize(side, Image.Resampling.BICUBIC)
        left, top = (rgb.width - self.size) // 2, (rgb.height - self.size) // 2
        rgb = rgb.crop((left, top, left + self.size, top + self.size))
        values = torch.from_numpy(np.asarray(rgb, dtype=np.float32) / 255).permute(2, 0, 1)  # HWC to CHW
        return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    @torch.no_grad()
    def pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        """Vectors (B, width), float32, of pictures (B, 3, size, size)."""
        weight = next(self.net.parameters())
        output = self.net(pixel_values=pixels.to(weight.device, weight.dtype))
        if not self.grid:
            return output.pooler_output.float()
        patches = output.last_hidden_state[:, 1:].float().transpose(1, 2)  # (B, d, patches)
        side = round(patches.shape[-1] ** 0.5)
        cells = torch.nn.functional.adaptive_avg_pool2d(patches.unflatten(-1, (side, side)), self.grid)
        return cells.flatten(2).transpose(1, 2).flatten(1)  # cell by cell, (B, grid² · d)


def _middle(picture: Image.Image) -> Image.Image:
    """A picture without the ends of a side that is longer than ``_LONGEST`` times the other."""
    most = _LONGEST * min(picture.size)
    width, height = (min(side, most) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return (
        picture.crop((left, top, left + width, top + height)) if picture.size != (width, height) else picture
    )


def load_vision(source: Path, dtype: torch.dtype | None = None) -> FrozenVision:
    """Load a CLIP vision model from a transformers folder or from one file, as ``models/clip_vision`` holds them.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is not a CLIP vision model in transformers' naming, or not whole.
    """
    config, tensors = read_tower(source)
    from transformers import CLIPVisionConfig, CLIPVisionModel

    tower: Any = CLIPVisionModel
    with one_kind_of_error(source, "the vision encoder"):
        settings = CLIPVisionConfig(**config)
        with torch.device("meta"):
            names = tower(settings).state_dict()
        # transformers 5 has no "vision_model." before the names
        inner = "" if next(iter(names)).startswith("vision_model.") else "vision_model."
        own = {name.removeprefix(_PREFIX + inner): value for name, value in tensors.items()}
        net, info = tower.from_pretrained(
            None,
            config=settings,
            state_dict=own,
            output_loading_info=True,
            **{dtype_argument(): dtype or next(iter(own.values())).dtype},
        )
        check_loaded(info)
    return FrozenVision(net, source.stem if source.is_file() else source.name)
