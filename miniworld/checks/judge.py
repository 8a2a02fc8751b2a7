"""Check of the judge: what the chat model answers about pictures, beside what the reader sees in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch

from llmga.chat import Picture, Sampling
from llmga.chat.judge import Asking, PictureCheck, PictureClaim, check_claims
from llmga.evaluate import Estimate, rate, table

from ..files import LANGUAGE, READER
from ..models.reader import Reading, load_reader
from ..world.captions import with_article
from ..world.dataset import ATTRIBUTES, as_images
from ..world.phrases import QUESTIONS
from ..world.render import render
from ..world.scene import COLOURS, SHAPES, Scene, choose, is_unseen_pair
from .chat import chat_engine, each_in_processes, held_out_scenes

_SEED = 930_000_000  # far from the seeds of training and of the other checks
_SIDE = 256
WAYS: tuple[Asking, ...] = ("one by one", "describe first")


@dataclass(frozen=True)
class Asked:
    """One question about a picture: how it was asked, what the judge answered, what the reader sees, what was drawn."""

    asking: Asking
    answered: bool | None
    read: bool
    drawn: bool


def check_judge(folder: Path, count: int, workers: int = 0) -> dict[str, dict[str, Estimate]]:
    """Ask, of each of ``count`` held-out scenes, whether each object is there, and whether as many are that are not.

    Returns:
        By way of asking, rates by name: agreement with the reader, over all questions and over those that the reader answers
        with yes or with no; answers that are neither; and how often the reader agrees with what was drawn.
    """
    jobs = [(_SEED + i,) for i in range(count)]
    asked = [
        one for each in each_in_processes(partial(_asked, folder), jobs, workers, "scenes") for one in each
    ]
    return judge_rates(asked)


def judge_rates(asked: Sequence[Asked]) -> dict[str, dict[str, Estimate]]:
    """See ``check_judge``."""
    return {way: _rates([one for one in asked if one.asking == way]) for way in WAYS}


def _rates(asked: Sequence[Asked]) -> dict[str, Estimate]:
    return {
        "agrees with the reader": rate([one.answered == one.read for one in asked]),
        "… where the reader says yes": rate([one.answered is True for one in asked if one.read]),
        "… where the reader says no": rate([one.answered is False for one in asked if not one.read]),
        "neither yes nor no": rate([one.answered is None for one in asked]),
        "the reader agrees with what was drawn": rate([one.read == one.drawn for one in asked]),
    }


def judge_table(results: dict[str, dict[str, Estimate]]) -> str:
    return table(results, counts=True)


def claims_about(scene: Scene, seed: int) -> list[tuple[str, str]]:
    """(colour, shape) of each object, and of as many pairs that the scene does not show."""
    present = list(dict.fromkeys((thing.colour, thing.shape) for thing in scene.objects))
    absent = [
        (colour, shape)
        for colour in COLOURS
        for shape in SHAPES
        if (colour, shape) not in present and not is_unseen_pair(colour, shape)
    ]
    chosen = [choose(absent, seed, f"absent {i}") for i in range(len(present))]
    return [*present, *dict.fromkeys(chosen)]


def _asked(folder: Path, seed: int) -> list[Asked]:
    scene = held_out_scenes(seed)[choose(range(1000), seed, "judge")]
    image = render(scene, _SIDE).image
    claims = claims_about(scene, seed)
    worded = [
        PictureClaim(" ".join(pair), QUESTIONS["exists"][0][0].format(thing=with_article(" ".join(pair))))
        for pair in claims
    ]
    checks: dict[Asking, PictureCheck] = {
        way: check_claims(
            chat_engine(folder / LANGUAGE), Picture.from_pil(image), worded, asking=way,
            sampling=Sampling(seed, 0.0, max_new_tokens=400), on_text=lambda text: None,
        )
        for way in WAYS
    }  # fmt: skip
    seen = seen_pairs(_reader(folder).read(as_images(torch.from_numpy(np.asarray(image))[None])))
    drawn = {(thing.colour, thing.shape) for thing in scene.objects}
    return [
        Asked(way, verdict.met, pair in seen, pair in drawn)
        for way, check in checks.items()
        for verdict, pair in zip(check.verdicts, claims, strict=True)
    ]


def seen_pairs(reading: Reading) -> set[tuple[str, str]]:
    """The (colour, shape) pairs of the objects that the reader sees in one picture."""
    at = torch.nonzero(reading.present[0]).flatten().tolist()
    colours, shapes = (
        [ATTRIBUTES[name][int(reading.attributes[name][0, place])] for place in at]
        for name in ("colour", "shape")
    )
    return set(zip(colours, shapes, strict=True))


@lru_cache(maxsize=1)
def _reader(folder: Path):
    return load_reader(folder / READER)
