"""Inpainting and repainting with the miniature's stage-2 inpainting UNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from llmga.train import derive

from ..files import CHECKPOINT, UNETS
from ..world.captions import detailed_caption
from ..world.dataset import as_images, as_pixels
from ..world.scene import Scene
from .architecture import picture_size
from .narrow_taesd import narrowed
from .painter import load_pipeline, load_unet
from .sampling import PaintConfig, paint

LEFT_OUT = (0.4, 0.55, 0.7, 0.85, 1.0)
"""At 1 nothing is painted: what remains is the autoencoder's doing."""


class Painter:
    """The stage-2 inpainting UNet of a miniature; pictures are (B, 3, S, S) in 0 .. 1, S its ``picture``."""

    def __init__(self, out: Path) -> None:
        self.pipeline = load_pipeline(out / CHECKPOINT)
        self.picture = picture_size(self.pipeline.unet)
        self.autoencoder = narrowed(self.pipeline.vae)
        self.unet = load_unet(out / UNETS["stage2_inpainting"])

    def fill(
        self, images: torch.Tensor, masks: torch.Tensor, prompts: Sequence[str], config: PaintConfig
    ) -> torch.Tensor:
        """Whole pictures as the autoencoder gives them, with something else where the masks (B, 1, S, S) are 1."""
        beside = self._beside(images, masks, config.batch)
        return paint(self.pipeline, prompts, config, self.unet, beside=beside) / 2 + 0.5

    def repaint(self, pixels: np.ndarray, scenes: Sequence[Scene], config: PaintConfig) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8 as the painter would have them: made noisy, and painted again by their own captions
        with nothing preserved. Each leaves out one of the shares ``LEFT_OUT`` of the steps, in turn."""
        made = np.empty_like(pixels)
        for turn, share in enumerate(LEFT_OUT):
            chosen = range(turn, len(pixels), len(LEFT_OUT))
            if not chosen:
                continue
            captions = [detailed_caption(scenes[i], i, order="reading") for i in chosen]
            images = as_images(torch.from_numpy(pixels[turn :: len(LEFT_OUT)]))
            begin = self._latents(images, config.batch), round(share * config.steps)
            hidden = self._joined(torch.zeros_like(images), torch.ones_like(images[:, :1]), config.batch)
            settings = replace(config, seed=derive(config.seed, turn, "repaint"))
            painted = paint(self.pipeline, captions, settings, self.unet, beside=hidden, begin=begin)
            made[turn :: len(LEFT_OUT)] = as_pixels(painted)
        return made

    def _beside(self, images: torch.Tensor, masks: torch.Tensor, batch: int) -> torch.Tensor:
        # Grey, not black, as in training: 0 in -1 .. 1.
        return self._joined((images * 2 - 1) * (1 - masks), masks, batch)

    def _joined(self, images: torch.Tensor, masks: torch.Tensor, batch: int) -> torch.Tensor:
        latents = self._latents(images, batch)
        return torch.cat([F.interpolate(masks, latents.shape[-2:]), latents], 1)

    @torch.no_grad()
    def _latents(self, images: torch.Tensor, batch: int) -> torch.Tensor:
        scale = self.autoencoder.config.scaling_factor
        return torch.cat([self.autoencoder.encode(part).latents * scale for part in images.split(batch)])
