"""Tables 3 and 4: holes that are filled, by FID and LPIPS against the whole pictures.

Protocol: a language model sees the picture with its hole in black and writes a prompt of the whole; an inpainting UNet fills
the hole. The paper does not say whether what lies outside the hole is pasted back; ``paste`` decides, and stands in the
result. Table 4 is the same with rows that differ in how the filled picture is restored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ...images import from_pil, read_picture, to_pil
from ...restore.checkpoint import load_restorer
from ...restore.colour import match_colour
from ...restore.inference import restore
from ..cache_keys import cache_key, existing
from ..data import DataConfig, load_scores, read_items
from ..estimates import Estimate, mean
from ..extractors import Distance, Extractor, load_network
from ..paint_jobs import PaintJob
from ..paper import Claim
from ..results import TableResult
from ..sources import FillItem, left_out
from ..stages import READING, Row, Stages, faults
from .text_to_image import check_enough, check_rows, frechet_estimate

MULTIPLE = 8
"""Pictures are painted at multiples of so many pixels."""
HOLE = 128
"""Of 255: the level of a mask's file from which a pixel is to be filled."""


@dataclass(frozen=True)
class Holes:
    """A set of pictures with holes, which gives a table of its own."""

    table: str
    """Such as ``outpaint-wide``."""
    data: DataConfig
    task: Literal["inpaint", "outpaint"]
    """What a chat engine is asked."""


@dataclass(frozen=True)
class FillConfig:
    """Settings of Tables 3 and 4."""

    holes: tuple[Holes, ...]
    rows: tuple[Row, ...]
    network: str
    """Of the FID; the paper's is ``inception:FILE``."""
    distance: str
    """LaMa's protocol is ``lpips-vgg:FILE``."""
    paste: bool = True
    """Put the picture back outside of the hole."""
    bootstrap: int = 20
    """Samples for the error of the FID; 0 leaves it out."""
    seed: int = 0
    scores: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    device: str = "cpu"
    minutes: float = 0.0
    """Of one CPU core, for ``llmga evaluate all`` to say beforehand what it takes; 0 where nobody measured it."""


def run(config: FillConfig, stages: Stages) -> list[TableResult]:
    """A result for each set of holes.

    Raises:
        ValueError, FileNotFoundError: the configuration cannot be used; the message names what is wrong.
    """
    check_rows(config.rows)
    network, distance = (load_network(spec, config.device) for spec in (config.network, config.distance))
    if not isinstance(network, Extractor) or not isinstance(distance, Distance):
        raise ValueError(
            "'network' must be an extractor of features and 'distance' a perceptual distance, got "
            f"{config.network!r} and {config.distance!r}"
        )
    sets: list[list[FillItem]] = [read_items(holes.data, stages.folder / "data") for holes in config.holes]
    for items in sets:
        check_enough(items, "holes.data.count")
    return [
        _table(holes, items, config, stages, network, distance)
        for holes, items in zip(config.holes, sets, strict=True)
    ]


def _table(
    holes: Holes,
    items: list[FillItem],
    config: FillConfig,
    stages: Stages,
    network: Extractor,
    distance: Distance,
) -> TableResult:
    data = cache_key(items)
    real = stages.features(network, [item.picture for item in items])["features"]
    scores = load_scores(config.scores)
    rows, notes = {}, {}
    for row in config.rows:
        filled, notes[row.name] = _filled(row, holes, items, config, stages, data)
        found = stages.features(network, filled)["features"]
        estimates: dict[str, Estimate] = {
            "FID": frechet_estimate(found, real, config.bootstrap),
            "LPIPS": mean(stages.distances(distance, filled, [item.picture for item in items])),
        }
        for score in scores:
            estimates |= score(items, filled)
        rows[row.name] = estimates
    conditions = {
        "pictures": len(items),
        "data": data,
        **left_out(items),
        "pasted": config.paste,
        "network": f"{network.name} ({network.digest[:16]})",
        "network reads": network.preparation,
        "distance": f"{distance.name} ({distance.digest[:16]})",
        "seed": config.seed,
    }
    return TableResult(holes.table, conditions, rows, notes)


def _filled(
    row: Row, holes: Holes, items: list[FillItem], config: FillConfig, stages: Stages, data: str
) -> tuple[list[Any], list[str]]:
    """The filled pictures of a row, restored where it says so, and what must be said of them."""
    keys = [item.key for item in items]
    written = stages.write(
        f"{holes.table}, {row.name}: prompts",
        keys,
        row.chat,
        lambda writer, i: writer.fill(holes.task, *_opened(items[i]), config.seed + i),
        READING,
        data,
        holes.task,
        config.seed,
    )

    def job(i: int) -> PaintJob:
        picture, mask = _opened(items[i])
        size = [max(round(side / MULTIPLE), 1) * MULTIPLE for side in picture.size]
        resized = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
        hole = mask.resize((size[0], size[1]), Image.Resampling.NEAREST)
        return PaintJob(keys[i], written[i].prompt, config.seed, size[0], size[1], resized, hole)

    of = (READING, data, cache_key([one.prompt for one in written]), config.seed)
    painted = stages.paint(f"{holes.table}, {row.name}: pictures", keys, row.painter, job, None, *of)
    load = _restorer(row)

    def finish(i: int) -> Image.Image:
        return finished(read_picture(painted[i]), *_opened(items[i]), load(), row.colour, config.paste)

    after = (*of, row.painter, existing(row.restorer), row.colour, config.paste)
    done = stages.map_pictures(f"{holes.table}, {row.name}: finished", keys, finish, *after)
    return done, faults(written)


def finished(
    made: Image.Image, picture: Image.Image, mask: Image.Image, net: Any, colour: bool, paste: bool
) -> Image.Image:
    """A painted picture at the size of the original: colours matched, restored, and pasted, each where it is wanted."""
    image, truth = (channels(p) for p in (made.resize(picture.size, Image.Resampling.BICUBIC), picture))
    hole = torch.from_numpy((np.asarray(mask.convert("L")) >= HOLE).astype(np.float32))[None, None]
    if colour:
        image = match_colour(image, truth, hole).image
    if net is not None:
        image = restore(net, image, truth, hole)
    if paste:
        image = torch.where(hole > 0, image, truth)
    return to_pil(image.movedim(1, -1))[0]


def channels(picture: Image.Image) -> torch.Tensor:
    """(1, 3, H, W) in 0 .. 1."""
    return from_pil([picture]).movedim(-1, 1)


def _restorer(row: Row) -> Any:
    """A function that loads the row's restorer when it is first needed; None if it has none."""
    loaded: list[Any] = []

    def load() -> Any:
        if row.restorer and not loaded:
            loaded.append(load_restorer(row.restorer, dtype=torch.float32).restorer)
        return loaded[0] if loaded else None

    return load


def _opened(item: FillItem) -> tuple[Image.Image, Image.Image]:
    picture, mask = read_picture(item.picture), read_picture(item.mask)
    if picture.size != mask.size:
        raise ValueError(
            f"{item.mask} has {mask.size[0]}×{mask.size[1]} pixels and its picture {picture.size[0]}×"
            f"{picture.size[1]}; a mask must have its picture's size"
        )
    grey = mask.convert("L")
    brightest = int(np.asarray(grey).max())
    if brightest < HOLE:
        raise ValueError(
            f"{item.mask} holds no hole: a hole is white, from {HOLE} of 255 on, and its brightest pixel is {brightest}"
        )
    return picture, grey
