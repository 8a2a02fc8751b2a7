"""Check of the attention: whether the map of a noun finds the object that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from llmga.evaluate import Estimate, mean, rate
from llmga.text import CLIPPromptEncoder, encode_sd15
from llmga.train import generator
from llmga.train.box_loss import AttentionMaps, PhraseTokens, batch_phrases, coverage, locate_phrases

from ..models.architecture import picture_size
from ..models.sampling import PaintConfig
from ..world.captions import detailed_caption, short_caption
from ..world.dataset import as_images
from ..world.grounding import named_boxes
from ..world.render import render
from ..world.scene import Scene

TIMESTEPS = (800, 500, 200)
TOUCHED = 0.1
"""How much of a cell a box must cover for the cell to be the box's."""


def check_attention(
    pipeline: Any, scenes: Sequence[Scene], config: PaintConfig, unet: Any = None, detailed: bool = False
) -> dict[str, dict[str, Estimate]]:
    """How well the up blocks' maps of nouns find their objects in noised true pictures, at ``TIMESTEPS``.

    Args:
        scenes: held-out ones; their captions are short, or detailed.
        unet: instead of the pipeline's.

    Returns:
        For each size of map (``8x8``, ``16x16``): ``mass``, the share of a noun's map in its object's box, ``pointing``,
        how often the map's highest cell lies in it, and ``area``, the share of the map's cells that the box takes.
    """
    unet = unet or pipeline.unet
    picture = picture_size(unet)
    encoder = CLIPPromptEncoder((pipeline.tokenizer,), (pipeline.text_encoder,))
    captions = [(detailed_caption if detailed else short_caption)(scene, i) for i, scene in enumerate(scenes)]
    found: dict[int, list[torch.Tensor]] = {}
    with _maps_of(unet) as maps:
        for first in range(0, len(scenes), config.batch):
            rows = range(first, min(first + config.batch, len(scenes)))
            named = [named_boxes(scenes[i], captions[i], i) for i in rows]
            phrases = nouns(
                batch_phrases(
                    [
                        locate_phrases(encoder, captions[i], boxes)
                        for i, boxes in zip(rows, named, strict=True)
                    ]
                )
            )
            context = encode_sd15(pipeline.tokenizer, pipeline.text_encoder, [captions[i] for i in rows])
            latents = _latents(pipeline, [scenes[i] for i in rows], picture)
            noise = torch.randn(latents.shape, generator=generator(config.seed, first, "attention"))
            for t in TIMESTEPS:
                noisy = pipeline.scheduler.add_noise(latents, noise, torch.tensor([t]))
                with torch.no_grad():
                    unet(noisy.to(unet.device), t, context.to(unet.device))
                for layer in maps.take():
                    found.setdefault(round(layer.shape[1] ** 0.5), []).append(
                        _find(layer.cpu().float(), phrases)
                    )
    return {f"{side}x{side}": _estimates(torch.cat(rows)) for side, rows in sorted(found.items())}


def nouns(phrases: PhraseTokens) -> PhraseTokens:
    """The same phrases by their last tokens alone, the nouns."""
    last = (phrases.tokens >= 0).sum(1, keepdim=True) - 1
    return phrases._replace(tokens=phrases.tokens.gather(1, last))


def _find(layer: torch.Tensor, phrases: PhraseTokens) -> torch.Tensor:
    """(P, 3): mass in the box, whether the highest cell is in it, and its area, from maps (B, N, L)."""
    side = round(layer.shape[1] ** 0.5)
    box = coverage(phrases.boxes, side, side).flatten(1) >= TOUCHED  # (P, N)
    of_noun = layer[phrases.example, :, phrases.tokens[:, 0]]  # (P, N)
    mass = (of_noun * box).sum(1) / of_noun.sum(1)
    points = box.gather(1, of_noun.argmax(1, keepdim=True))[:, 0]
    return torch.stack([mass, points.float(), box.float().mean(1)], 1)


def _estimates(rows: torch.Tensor) -> dict[str, Estimate]:
    mass, points, area = rows.T.tolist()
    return {"mass": mean(mass), "pointing": rate([point > 0 for point in points]), "area": mean(area)}


@torch.no_grad()
def _latents(pipeline: Any, scenes: Sequence[Scene], size: int) -> torch.Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(render(scene, size).image) for scene in scenes]))
    images = as_images(pixels).to(pipeline.vae.device)
    return (pipeline.vae.encode(images).latents * pipeline.vae.config.scaling_factor).cpu()


@contextmanager
def _maps_of(unet: Any) -> Iterator[AttentionMaps]:
    before = unet.attn_processors
    try:
        yield AttentionMaps(unet)
    finally:
        unet.set_attn_processor(before)
