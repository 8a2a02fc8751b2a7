"""Data set of scenes: drawn, rendered and captioned in several processes, kept as arrays."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from llmga.train.box_loss import NamedBox

from .captions import detailed_caption, short_caption, vague_caption
from .grounding import named_boxes
from .render import render
from .scene import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    TEXTURES,
    UNIT,
    Scene,
    Split,
    choose,
    sample_scene,
)

T = TypeVar("T")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "size": tuple(SIZES),
    "texture": TEXTURES,
}
_AT_ONCE = 512  # scenes that a process takes at a time


@dataclass(frozen=True)
class Scenes:
    """A sequence of scenes, the same for the same settings."""

    count: int
    seed: int = 0
    few: float = 0.7
    """The part that has 1 to 3 objects; the others have 4 to 8."""
    split: Split = "train"

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.few <= 1:
            raise ValueError(f"scenes needs count >= 1 and 0 <= few <= 1, got {self.count} and {self.few}")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Scene:
        if not 0 <= i < self.count:
            raise IndexError(f"there are {self.count} scenes, scene {i} is none of them")
        few = choose(range(1000), self.seed, i, "few") < 1000 * self.few
        return sample_scene(self.seed * 1_000_000_007 + i, (1, 3) if few else (4, 8), self.split)


@dataclass(frozen=True)
class Mix:
    """The parts that the kinds of caption have."""

    short: float = 1.0
    detailed: float = 0.0
    vague: float = 0.0

    def __post_init__(self) -> None:
        if min(asdict(self).values()) < 0 or abs(sum(asdict(self).values()) - 1) > 1e-6:
            raise ValueError(f"the parts of a caption mix must add up to 1, got {asdict(self)}")

    def caption(self, scene: Scene, seed: int) -> str:
        """The caption of this seed."""
        draw = choose(range(1000), seed, "kind") / 1000
        if draw < self.short:
            return short_caption(scene, seed)
        return (detailed_caption if draw < self.short + self.detailed else vague_caption)(scene, seed)


def labels_of(scene: Scene) -> list[int]:
    """What a reader should read: for each of the 9 places the indices of shape, colour, size and texture, -1 where
    nothing stands; last the background's index. 37 numbers."""
    at = {thing.place: thing for thing in scene.objects}
    rows = (
        [values.index(getattr(at[place], name)) if place in at else -1 for name, values in ATTRIBUTES.items()]
        for place in PLACES
    )
    return [*chain.from_iterable(rows), BACKGROUNDS.index(scene.background)]


@dataclass(frozen=True)
class Painted:
    """Square pictures (N, size, size, 3) uint8 and labels (N, 37) int8, both mapped from the disk."""

    scenes: Scenes
    pictures: NDArray[np.uint8]
    labels: NDArray[np.int8]


def painted(scenes: Scenes, cache: Path, workers: int = 0, size: int = UNIT) -> Painted:
    """Paint all scenes into a folder under ``cache``, or open the folder that holds them.

    Args:
        workers: processes; 0 takes one per core.
        size: pixels of a picture's side.
    """
    from filelock import FileLock

    folder = cache / f"scenes-{_hash({**asdict(scenes), 'size': size})}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f".{folder.name}.lock"):  # several stages may want them at once
        if not folder.exists():
            _paint_all(scenes, folder, workers, size)
    return Painted(
        scenes, *(np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("pictures", "labels"))
    )


def _paint_all(scenes: Scenes, folder: Path, workers: int, size: int) -> None:
    partial_folder = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir()
    shape = (len(scenes), size, size, 3)
    np.lib.format.open_memmap(partial_folder / "pictures.npy", "w+", np.uint8, shape)
    labels = in_processes(partial(_paint, scenes, partial_folder, size), len(scenes), workers, "paint")
    np.save(partial_folder / "labels.npy", np.array(labels, dtype=np.int8))
    partial_folder.rename(folder)


def captions_of(scenes: Scenes, mix: Mix, workers: int = 0) -> list[str]:
    """One caption for each scene."""
    return in_processes(partial(_caption, scenes, mix), len(scenes), workers, "caption")


def boxes_of(scenes: Scenes, captions: Sequence[str], workers: int = 0) -> list[list[NamedBox]]:
    """What each scene's caption names, and where."""
    return in_processes(partial(_boxes, scenes, captions), len(captions), workers, "boxes")


def in_processes(work: Callable[[range], list[T]], count: int, workers: int, name: str) -> list[T]:
    """The results of ``work`` on 0 … count - 1, in order; it gets a range at a time, in several processes."""
    from tqdm import tqdm

    parts = [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
    workers = min(workers or os.cpu_count() or 1, len(parts))
    bar = partial(tqdm, total=len(parts), desc=name, unit=f"×{_AT_ONCE}")
    if workers == 1:
        return list(chain.from_iterable(bar(map(work, parts))))
    # Not forked: CUDA may be in use.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return list(chain.from_iterable(bar(pool.map(work, parts))))


class WorldPictures:
    """Painted scenes with a caption each, as stage 2 takes them (see ``llmga.train.Pictures``)."""

    def __init__(
        self, source: Painted, captions: Sequence[str], boxes: Sequence[list[NamedBox]] | None = None
    ) -> None:
        if len(captions) != len(source.pictures):
            raise ValueError(f"{len(source.pictures)} pictures need as many captions, got {len(captions)}")
        self._source, self._captions, self._boxes = source, captions, boxes

    def __len__(self) -> int:
        return len(self._captions)

    def image(self, i: int) -> torch.Tensor:
        return as_images(torch.from_numpy(self._source.pictures[i].copy())[None])[0]

    def caption(self, i: int, rng: random.Random) -> str:
        return self._captions[i]

    def named_boxes(self, i: int, caption: str) -> list[NamedBox]:
        if self._boxes is not None:
            return self._boxes[i]
        scenes = self._source.scenes
        return named_boxes(scenes[i], caption, _caption_seed(scenes, i))

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        from llmga.paint.masks import MIXES

        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        height, width = self._source.pictures.shape[1:3]
        return torch.from_numpy(MIXES["stage2"].draw(rng, height, width))[None]

    def fingerprint(self) -> str:
        size = self._source.pictures.shape[1]
        return _hash({"scenes": asdict(self._source.scenes), "size": size, "captions": list(self._captions)})


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) uint8 as (B, 3, H, W) float in -1 .. 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pixels(images: torch.Tensor) -> NDArray[np.uint8]:
    """The way back: (B, 3, H, W) in -1 .. 1 as (B, H, W, 3)."""
    return (images / 2 + 0.5).mul(255).round().byte().permute(0, 2, 3, 1).numpy()


def _paint(scenes: Scenes, folder: Path, size: int, part: range) -> list[list[int]]:
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    labels = []
    for i in part:
        scene = scenes[i]
        pictures[i] = np.asarray(render(scene, size).image)
        labels.append(labels_of(scene))
    return labels


def _caption(scenes: Scenes, mix: Mix, part: range) -> list[str]:
    return [mix.caption(scenes[i], _caption_seed(scenes, i)) for i in part]


def _boxes(scenes: Scenes, captions: Sequence[str], part: range) -> list[list[NamedBox]]:
    return [named_boxes(scenes[i], captions[i], _caption_seed(scenes, i)) for i in part]


def _caption_seed(scenes: Scenes, i: int) -> int:
    return scenes.seed * 1_000_000_007 + i


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
