"""Check of the painter: held-out captions are painted, read back, and what agrees is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmga.evaluate import Estimate, contact_sheet, psnr, rate, table

from ..models.autoencoder import reconstruct
from ..models.reader import Reader, Reading
from ..models.sampling import CHUNK, PaintConfig, paint
from ..world.captions import detailed_caption, short_caption
from ..world.dataset import ATTRIBUTES, as_images, labels_of
from ..world.facts import caption_facts
from ..world.render import render
from ..world.scene import PLACES, SIZES, Scene, Split, sample_scene


@dataclass(frozen=True)
class CheckConfig(PaintConfig):
    pictures: int = 512
    """Captions of each kind."""


Rates = dict[str, Estimate]


@dataclass(frozen=True)
class Task:
    """Scenes and the captions that are to be painted."""

    scenes: list[Scene]
    captions: list[str]


def short_task(config: CheckConfig, split: Split = "validation") -> Task:
    """Scenes of 1 to 3 objects with short captions."""
    scenes = [sample_scene(config.seed * 10_000_000 + i, (1, 3), split) for i in range(config.pictures)]
    return Task(scenes, [short_caption(scene, i) for i, scene in enumerate(scenes)])


def detailed_task(config: CheckConfig) -> Task:
    """Scenes of 2 to 8 objects with detailed captions."""
    scenes = [
        sample_scene(config.seed * 20_000_000 + i, (2, 8), "validation") for i in range(config.pictures)
    ]
    return Task(scenes, [detailed_caption(scene, i) for i, scene in enumerate(scenes)])


def truth_of(scenes: Sequence[Scene]) -> torch.Tensor:
    """Their labels, (B, 37)."""
    return torch.tensor([labels_of(scene) for scene in scenes])


def score(reading: Reading, truth: torch.Tensor, which: torch.Tensor | None = None) -> Rates:
    """How much of what was asked for was read.

    ``place``: something stands where an object was asked for; the attributes: it does, and has the colour, …;
    ``empty``: nothing stands where nothing was asked for; ``number``: as many objects as were asked for.

    Args:
        truth: what was asked for, (B, 37) as ``labels_of`` gives it.
        which: (B, 9) bool, the only places to count; None counts all.
    """
    asked_for = truth[:, :-1].unflatten(1, (len(PLACES), len(ATTRIBUTES)))
    asked = asked_for[..., 0] >= 0
    counted = asked if which is None else asked & which
    rates = {"place": _rate(reading.present, counted)}
    for k, (name, values) in enumerate(reading.attributes.items()):
        rates[name] = _rate(reading.present & (values == asked_for[..., k]), counted)
    if which is None:
        rates["empty"] = _rate(~reading.present, ~asked)
        rates["number"] = rate(reading.present.sum(1) == asked.sum(1))
        rates["background"] = _rate(
            reading.background == truth[:, -1], torch.ones(len(truth), dtype=torch.bool)
        )
    return rates


def of_size(truth: torch.Tensor, size: str) -> torch.Tensor:
    """(B, 9) bool: where an object of a size was asked for, from labels (B, 37)."""
    sizes = truth[:, list(ATTRIBUTES).index("size") : -1 : len(ATTRIBUTES)]
    return sizes == list(SIZES).index(size)


def _rate(right: torch.Tensor, counted: torch.Tensor) -> Estimate:
    """Of (B, …) bool values, those counted; pictures are what is independent, not the objects in them."""
    pictures = len(right)
    hits = (right & counted).reshape(pictures, -1).sum(1)
    return rate(hits, counted.reshape(pictures, -1).sum(1))


def late_places(tokenizer: Any, scenes: Sequence[Scene], captions: Sequence[str]) -> torch.Tensor:
    """(B, 9) bool: where an object stands that the caption has not wholly named within its first 75 tokens."""
    late = np.zeros((len(scenes), len(PLACES)), dtype=bool)
    for row, scene, caption in zip(late, scenes, captions, strict=True):
        early = {mention.place for mention in caption_facts(_beginning(tokenizer, caption)).objects}
        row[:] = [
            any(thing.place == place for thing in scene.objects) and place not in early for place in PLACES
        ]
    return torch.from_numpy(late)


def _beginning(tokenizer: Any, caption: str) -> str:
    """The words whose tokens all lie within the first 75; CLIP reads words one by one."""
    words, total = [], 0
    for word in caption.split():
        total += len(tokenizer(word, add_special_tokens=False).input_ids)
        if total > CHUNK:
            break
        words.append(word)
    return " ".join(words)


def check_reader(reader: Reader, autoencoder: Any, config: CheckConfig, size: int) -> dict[str, Any]:
    """The reader on true pictures of ``size`` pixels and on the autoencoder's versions of them, and the autoencoder's
    PSNR in dB."""
    scenes = [
        sample_scene(config.seed * 30_000_000 + i, (1, 8), "validation") for i in range(config.pictures)
    ]
    pixels = torch.from_numpy(np.stack([np.asarray(render(scene, size).image) for scene in scenes]))
    truth, images = truth_of(scenes), as_images(pixels)
    made = torch.cat([reconstruct(autoencoder, part).cpu() for part in images.split(config.batch)])
    return {
        "truth": score(reader.read(images), truth),
        "reconstruction": score(reader.read(made), truth),
        "psnr": float(psnr(made, images, peak=2).mean()),
    }


def check_base(
    pipeline: Any, reader: Reader, config: CheckConfig, pictures: Path | None = None
) -> dict[str, Rates]:
    """Short captions of held-out scenes, of objects whose colour and shape never met, and chance (the same pictures
    against the next caption). ``pictures`` is a folder for a contact sheet."""
    result = {}
    splits: tuple[Split, ...] = ("validation", "unseen_pair")
    for split in splits:
        task = short_task(config, split)
        painted = paint(pipeline, task.captions, config)
        reading, truth = reader.read(painted), truth_of(task.scenes)
        result[f"short, {split}"] = score(reading, truth)
        result |= {f"short, {split}, {size}": score(reading, truth, of_size(truth, size)) for size in SIZES}
        if split == "validation":
            result["short, chance"] = score(reading, truth.roll(1, 0))
            if pictures:
                _write_sheet(painted, task.scenes, pictures / "short.png")
    return result


def check_stage2(
    pipeline: Any, unet: Any, reader: Reader, config: CheckConfig, pictures: Path | None = None
) -> dict[str, Rates]:
    """Detailed captions: base and stage-2 UNet, the whole caption and its first 75 tokens; what is said after those
    counted once more alone."""
    task = detailed_task(config)
    truth = truth_of(task.scenes)
    late = late_places(pipeline.tokenizer, task.scenes, task.captions)
    result = {}
    for net_name, net in (("base", pipeline.unet), ("stage 2", unet)):
        for layout, chunks in (("truncated", 1), ("llmga", 4)):
            painted = paint(pipeline, task.captions, config, net, chunks)
            reading, name = reader.read(painted), f"detailed, {net_name}, {layout}"
            result[name] = score(reading, truth)
            result[f"{name}, late"] = score(reading, truth, late)
            if pictures:
                _write_sheet(painted, task.scenes, pictures / f"{name.replace(', ', '-')}.png")
    result["detailed, chance"] = score(reading, truth.roll(1, 0))
    return result


def _write_sheet(painted: torch.Tensor, scenes: Sequence[Scene], path: Path, columns: int = 8) -> None:
    """Write the first pictures as a PNG, each above the picture that the world itself draws of its scene."""
    count = min(len(painted), 3 * columns) // columns * columns or min(len(painted), columns)
    rows = []
    for first in range(0, count, columns):
        part = range(first, min(first + columns, count))
        size = painted.shape[-1]
        pixels = np.stack([np.asarray(render(scenes[i], size).image) for i in part])
        true = as_images(torch.from_numpy(pixels))
        rows += [images / 2 + 0.5 for images in (painted[first : part.stop], true)]
    contact_sheet(rows, path, columns)


def painter_table(results: Mapping[str, Rates]) -> str:
    """The rates as text, a line for each condition, and how many objects each line counts."""
    columns = ["background", "place", "colour", "shape", "size", "texture", "empty", "number", "objects"]
    rows = {name: {**rates, "objects": str(rates["place"].count)} for name, rates in results.items()}
    return table(rows, columns)
