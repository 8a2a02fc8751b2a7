"""Check of the ControlNet: edges hold the layout, words decide the rest; both are measured, with it and without.

The words ask for a held-out scene. The edges are those of its own picture, or those of the same objects in other colours,
before another background and in another light, which the words must then win. What is painted is read, and its edges are
found at the same thresholds as those that were given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from llmga.data.edges import canny
from llmga.evaluate import Estimate, contact_sheet, edges_found, rate, table, write_json

from ..files import CHECKPOINT, CONTROLNET, READER, UNETS
from ..models.architecture import picture_size
from ..models.autoencoder import reconstruct
from ..models.controlnet import load_controlnet
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline, load_unet
from ..models.reader import Reader, load_reader
from ..models.sampling import Control, PaintConfig, paint
from ..world.captions import detailed_caption, short_caption
from ..world.dataset import as_images
from ..world.render import render
from ..world.scene import BACKGROUNDS, COLOURS, SIDES, TONES, Scene, choose, sample_scene
from .painter import score, truth_of

RESULT = "check_controlnet.json"
TOLERANCE = 1
"""Pixels: an edge is kept if one is found this near."""

Results = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class ControlNetCheckConfig(PaintConfig):
    pictures: int = 192
    captions: Literal["short", "detailed"] = "short"
    """``short`` for the checkpoint's UNet, ``detailed`` for that of stage 2."""
    low_threshold: float = 0.3
    high_threshold: float = 0.7
    """Those of the shipped workflow."""
    strength: float = 1.0


def check_controlnet(
    out: Path, config: ControlNetCheckConfig, on_step: Callable[..., object] | None = None
) -> Results:
    """Paint the same captions from the same noise with the ControlNet and without, and measure.

    Writes ``check_controlnet.json`` and a sheet of the first pictures.

    Args:
        on_step: ``on_step(i, n)`` after each set of pictures; may raise.

    Returns:
        By condition what ``score_controlled`` gives. Two conditions bound the others: what the autoencoder keeps of true
        pictures, and true pictures against edges of the other colouring.

    Raises:
        FileNotFoundError: a model is missing.
    """
    pipeline, net, reader = (
        load_pipeline(out / CHECKPOINT),
        load_controlnet(out / CONTROLNET),
        load_reader(out / READER),
    )
    unet = load_unet(out / UNETS["stage2"]) if config.captions == "detailed" else pipeline.unet
    autoencoder, size = narrowed(pipeline.vae), picture_size(unet)
    asked = asked_scenes(config)
    other = [recoloured(scene, i) for i, scene in enumerate(asked)]
    caption = detailed_caption if config.captions == "detailed" else short_caption
    captions = [caption(scene, i) for i, scene in enumerate(asked)]
    true, edges = pictures_of(asked, size), {}
    for name, scenes in (("its own edges", asked), ("edges of other colours", other)):
        edges[name] = _edges(pictures_of(scenes, size), config)
    made: dict[str, tuple[torch.Tensor, str]] = {}
    for i, name in enumerate(["without", *edges]):
        control = Control(net, edges[name].expand(-1, 3, -1, -1), config.strength) if name in edges else None
        painted = paint(pipeline, captions, config, unet, control=control)
        made[name] = painted, name if control else "its own edges"
        if on_step:
            on_step(i + 1, len(edges) + 1)
    round_trip = torch.cat([reconstruct(autoencoder, part).cpu() for part in true.split(config.batch)])
    made["the true picture, through the autoencoder"] = round_trip, "its own edges"
    made["the true picture"] = true, "edges of other colours"
    results = {
        name: score_controlled(reader, images, edges[given], asked, config)
        for name, (images, given) in made.items()
    }
    write_json(out / RESULT, {"config": config, "tolerance": TOLERANCE, "results": results})
    rows = [true / 2 + 0.5]
    for name in edges:
        rows += [edges[name].expand(-1, 3, -1, -1), made[name][0] / 2 + 0.5]
    contact_sheet([*rows, made["without"][0] / 2 + 0.5], out / "pictures" / "controlnet.png", 10)
    return results


def asked_scenes(config: ControlNetCheckConfig) -> list[Scene]:
    """Held-out scenes of 1 to 3 objects."""
    return [sample_scene(config.seed * 40_000_000 + i, (1, 3), "validation") for i in range(config.pictures)]


def recoloured(scene: Scene, seed: int) -> Scene:
    """The same objects in other colours, before another background, in another light: what words decide."""

    def another(options: Sequence[str], value: str, *key: object) -> str:
        return choose([option for option in options if option != value], seed, "recoloured", *key)

    things = tuple(
        replace(thing, colour=another(COLOURS, thing.colour, thing.place)) for thing in scene.objects
    )
    return replace(
        scene,
        objects=things,
        background=another(BACKGROUNDS, scene.background, "background"),
        tone=another(TONES, scene.tone, "tone"),
        light=another(SIDES, scene.light, "light"),
    )


def pictures_of(scenes: Sequence[Scene], size: int) -> torch.Tensor:
    """(B, 3, size, size) in -1 .. 1, as the world draws them."""
    return as_images(torch.from_numpy(np.stack([np.asarray(render(scene, size).image) for scene in scenes])))


def _edges(images: torch.Tensor, config: ControlNetCheckConfig) -> torch.Tensor:
    return canny(images / 2 + 0.5, config.low_threshold, config.high_threshold)


def score_controlled(
    reader: Reader,
    images: torch.Tensor,
    edges: torch.Tensor,
    asked: Sequence[Scene],
    config: ControlNetCheckConfig,
) -> dict[str, Estimate]:
    """What is read of pictures (B, 3, H, W) in -1 .. 1 as ``painter.score`` gives it, and what of the edges is there.

    Returns:
        also ``edges kept``, of the pixels of the given edges (B, 1, H, W) those that have one of the picture's edges within
        ``TOLERANCE``; and ``edges given``, of the picture's those that have one of the given.
    """
    found = _edges(images, config)
    measured = {
        "edges kept": rate(*edges_found(found, edges, TOLERANCE)),
        "edges given": rate(*edges_found(edges, found, TOLERANCE)),
    }
    return measured | score(reader.read(images), truth_of(asked))


def controlnet_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as text, a line for each condition."""
    columns = [
        "edges kept",
        "edges given",
        "background",
        "place",
        "colour",
        "shape",
        "size",
        "texture",
        "empty",
    ]
    return table(results, columns)
