"""The world as evaluation sets, networks and painters of ``llmga evaluate``: the paper's tables in miniature.

A configuration names the functions below, as ``miniworld.checks.paper:captions``; see ``llmga.evaluate``. ``folder`` of a
set names a miniature's folder: its pictures are of that miniature's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llmga.evaluate import Estimate, perceptual_distance, rate
from llmga.evaluate.data import DataConfig
from llmga.evaluate.extractors import Distance, Extractor, Images, digest_of
from llmga.evaluate.paint_jobs import PainterConfig
from llmga.evaluate.painters import DiffusersPainter
from llmga.evaluate.sources import CaptionItem, EditItem, FillItem
from llmga.evaluate.stages import save_picture

from ..files import CHECKPOINT, UNETS
from ..models.architecture import picture_size_of_checkpoint
from ..models.painter import load_pipeline, load_unet
from ..models.reader import Reader, Reading, halved, load_reader
from ..world.captions import short_caption
from ..world.dataset import ATTRIBUTES
from ..world.facts import Facts, caption_facts
from ..world.render import render
from ..world.scene import BACKGROUNDS, PLACES, UNIT, Scene, sample_scene
from .editors import EditsConfig
from .edits import sample_edits
from .sampled_holes import HolesConfig, Kind, sample_holes

COUNT = 192
"""Items of a set whose configuration names no count."""
_SCENES = 7_000_000


# --- evaluation sets -----------------------------------------------------------------------------


def captions(config: DataConfig, work: Path) -> list[CaptionItem]:
    """Held-out scenes of 1 to 3 objects with short captions."""
    size, items = picture_side(config), []
    for i in range(config.count or COUNT):
        scene = sample_scene(_SCENES + i, (1, 3), "validation")
        items.append(
            CaptionItem(
                f"{i:05d}", short_caption(scene, i), drawn_scene(work / "captions", f"{i:05d}", scene, size)
            )
        )
    return items


def inpainting(config: DataConfig, work: Path) -> list[FillItem]:
    """Held-out scenes with a hole somewhere inside."""
    return _holes("inpaint", config, work)


def outpainting(config: DataConfig, work: Path) -> list[FillItem]:
    """Held-out scenes whose border is missing."""
    return _holes("outpaint", config, work)


def _holes(kind: Kind, config: DataConfig, work: Path) -> list[FillItem]:
    size, items = picture_side(config), []
    for hole in sample_holes(kind, HolesConfig(pictures=config.count or COUNT), size):
        place, key = work / kind / f"{size}", f"{hole.number}"
        mask = place / f"{key}_mask000.png"
        if not mask.is_file():
            save_picture(place / f"{key}.png", Image.fromarray(hole.picture))
            save_picture(mask, Image.fromarray((hole.mask * 255).astype(np.uint8)))
        items.append(FillItem(key, place / f"{key}.png", mask))
    return items


def edits(config: DataConfig, work: Path) -> list[EditItem]:
    """Single edits of held-out scenes; the caption is of what they shall become."""
    size, items = picture_side(config), []
    for i, (edit, detailed) in enumerate(sample_edits(EditsConfig(edits=config.count or COUNT))):
        source, target = (
            drawn_scene(work / "edits", f"{i:05d}-{name}", scene, size)
            for name, scene in (("input", edit.source), ("output1", edit.target))
        )
        caption = (edit.detailed if detailed else edit.short)[1]
        items.append(EditItem(f"{i:05d}", f"{i:05d}", 1, edit.instruction, source, target, caption))
    return items


def picture_side(config: DataConfig) -> int:
    """Pixels of a side of a set's pictures."""
    return picture_size_of_checkpoint(Path(config.folder) / CHECKPOINT) if config.folder else UNIT


def drawn_scene(folder: Path, key: str, scene: Scene, size: int) -> Path:
    """The file of a drawn scene of ``size`` pixels, made if need be."""
    path = folder / f"{size}" / f"{key}.png"
    if not path.is_file():
        save_picture(path, render(scene, size).image)
    return path


# --- networks ------------------------------------------------------------------------------------


def reader(path: Path, device: torch.device) -> Extractor:
    """The reader in the places of Inception and DINO: means of its last channels; as logits those of the background."""
    net = load_reader(path).to(device)

    @torch.no_grad()
    def images(pictures: Images) -> dict[str, torch.Tensor]:
        seen = net.trunk(halved(_pixels(pictures).to(device))).mean((2, 3))
        return {"features": seen.cpu(), "logits": net.background(seen).cpu()}

    return Extractor("reader", digest_of(path), "its own size", images)


def facts_network(path: Path, device: torch.device) -> Extractor:
    """In the place of CLIP: what a picture shows as the reader reads it, and what a text says, in one space.

    A coordinate stands for an attribute at a place, or for a background; a vector is the sum of those that hold.
    """
    net = load_reader(path).to(device)

    def images(pictures: Images) -> dict[str, torch.Tensor]:
        reading = net.read(_pixels(pictures).to(device))
        return {"features": torch.stack([_vector(_facts_at(reading, i)) for i in range(len(pictures))])}

    def texts(lines: Sequence[str]) -> torch.Tensor:
        return torch.stack([_vector(caption_facts(line)) for line in lines])

    return Extractor("facts", digest_of(path), "its own size", images, texts)


def perceptual(path: Path, device: torch.device) -> Distance:
    """LPIPS on the reader's layers, without learned weights."""
    net = load_reader(path).to(device)

    def layers(pictures: torch.Tensor) -> list[torch.Tensor]:
        found = [halved(pictures)]
        for layer in net.trunk:
            found.append(layer(found[-1]))
        return found[1:]

    def pairs(some: Images, others: Images) -> torch.Tensor:
        a, b = (_pixels(pictures).to(device) for pictures in (some, others))
        return perceptual_distance(a, b, layers).cpu()

    return Distance("LPIPS-reader", digest_of(path), "its own size", pairs)


def _pixels(pictures: Images) -> torch.Tensor:
    """(B, 3, H, W) in -1 .. 1."""
    arrays = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures])
    return torch.from_numpy(arrays).movedim(-1, 1) / 127.5 - 1


_COORDINATES = {
    (place, name, value): i
    for i, (place, name, value) in enumerate(
        (place, name, value) for place in PLACES for name, values in ATTRIBUTES.items() for value in values
    )
}


def _vector(found: dict[str, dict[str, str]] | Facts) -> torch.Tensor:
    """What is shown or said as a vector of zeros and ones; an object without a place says nothing here."""
    vector = torch.zeros(len(_COORDINATES) + len(BACKGROUNDS))
    if isinstance(found, Facts):
        background = found.background
        shown = {
            m.place: {"shape": m.shape, "colour": m.colour, "size": m.size, "texture": m.texture}
            for m in found.objects
        }
    else:
        background, shown = found["picture"]["background"], {p: v for p, v in found.items() if p != "picture"}
    for place, attributes in shown.items():
        for name, value in attributes.items():
            if (at := _COORDINATES.get((str(place), name, str(value)))) is not None:
                vector[at] = 1
    if background in BACKGROUNDS:
        vector[len(_COORDINATES) + BACKGROUNDS.index(background)] = 1
    return vector


def _facts_at(reading: Reading, number: int) -> dict[str, dict[str, str]]:
    """By place what the picture of that number shows, and its background under ``picture``."""
    shown = {"picture": {"background": BACKGROUNDS[int(reading.background[number])]}}
    for k, place in enumerate(PLACES):
        if reading.present[number, k]:
            shown[place] = {
                name: ATTRIBUTES[name][int(values[number, k])] for name, values in reading.attributes.items()
            }
    return shown


# --- judges and painters -------------------------------------------------------------------------


def shown_facts(net: Reader, path: Path) -> dict[str, dict[str, str]]:
    """By place what a picture shows, and its background under ``picture``."""
    return _facts_at(net.read(_pixels([_opened(path)])), 0)


class AskedAndThere:
    """How much of what captions ask for the reader finds in pictures: background, and of each object its attributes."""

    def __init__(self, path: Path) -> None:
        self._reader = load_reader(path)

    def __call__(self, items: Sequence[Any], pictures: Sequence[Path]) -> dict[str, Estimate]:
        hits: dict[str, list[float]] = {}
        for item, path in zip(items, pictures, strict=True):
            shown = shown_facts(self._reader, path)
            asked = caption_facts(item.caption)
            if asked.background:
                hits.setdefault("background", []).append(shown["picture"]["background"] == asked.background)
            for mention in asked.objects:
                there = shown.get(mention.place or "", {})
                for name in ("colour", "shape", "size", "texture"):
                    if (wanted := getattr(mention, name)) is not None and mention.place:
                        hits.setdefault(name, []).append(there.get(name) == wanted)
        return {name: rate(found) for name, found in hits.items()}


class TruthInHoles:
    """Of the places that a hole covers, those that read as in the whole picture: colour and shape, or nothing."""

    def __init__(self, path: Path) -> None:
        self._reader = load_reader(path)

    def __call__(self, items: Sequence[Any], pictures: Sequence[Path]) -> dict[str, Estimate]:
        hits, counts = [], []
        for item, path in zip(items, pictures, strict=True):
            made, true = (shown_facts(self._reader, p) for p in (path, item.picture))
            covered = _covered(np.asarray(_opened(item.mask).convert("L")) >= 128)
            same = [_looks(made.get(place)) == _looks(true.get(place)) for place in covered]
            hits.append(float(sum(same)))
            counts.append(float(len(same)))
        return {"truth": rate(hits, counts)}


def _looks(shown: dict[str, str] | None) -> tuple[str, str] | None:
    return None if shown is None else (shown["colour"], shown["shape"])


def _covered(mask: np.ndarray) -> list[str]:
    scale = len(mask) / UNIT
    return [place for place, (x, y) in PLACES.items() if mask[int(y * scale), int(x * scale)]]


def painter(config: PainterConfig) -> DiffusersPainter:
    """The miniature's painter: ``base`` is the folder of the models, ``unet`` one of stage2, inpainting and
    stage2_inpainting, or empty for the base's own."""
    from diffusers import StableDiffusionInpaintPipeline

    folder = Path(config.base)
    pipeline = load_pipeline(folder / CHECKPOINT)
    if config.unet:
        if config.unet not in UNETS:
            raise ValueError(f"the miniature's UNets are {', '.join(UNETS)}, got {config.unet!r}")
        unet = load_unet(folder / UNETS[config.unet])
        parts = {**pipeline.components, "unet": unet}
        kind = StableDiffusionInpaintPipeline if unet.config.in_channels == 9 else type(pipeline)
        pipeline = kind(**parts, requires_safety_checker=False)
    return DiffusersPainter(config, pipeline)


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
