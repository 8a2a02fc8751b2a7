"""Check of the loop: paint, let the chat model judge the picture, and paint again until it is right.

Short captions of held-out scenes are painted. The judge describes each picture, and is asked of each object whether it is
there. What it chooses is read by the reader, beside what the first picture, the mean of all and the best of all give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from llmga.chat import Picture, Sampling
from llmga.chat.judge import PictureClaim, best_index, check_claims
from llmga.chat.judge_repeat import repeat_until
from llmga.evaluate import Estimate, mean, rate, table, write_json
from llmga.images import channels_last, to_pil

from ..files import CHECKPOINT, LANGUAGE, READER
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline
from ..models.reader import Reader, load_reader
from ..models.sampling import PaintConfig, paint
from ..world.captions import short_caption, with_article
from ..world.phrases import QUESTIONS, WHERE
from ..world.scene import Scene, Split, sample_scene
from .chat import chat_engine, each_in_processes
from .edits import seen

RESULT = "check_loop.json"


@dataclass(frozen=True)
class LoopConfig(PaintConfig):
    """Which scenes, and how often each may be painted."""

    scenes: int = 192
    objects: tuple[int, int] = (1, 3)
    split: Split = "validation"
    attempts: int = 3
    workers: int = 0
    """Processes of the judge; 0 takes as many as there are cores."""


@dataclass(frozen=True)
class LoopRun:
    """One scene: how many of its objects are right in each of the pictures, and which of them were chosen.

    Args:
        right: of each picture, in the order in which they are painted.
        painted: how many the loop painted.
        chosen: by the loop.
        best: by the judge, of all pictures.
    """

    objects: int
    right: tuple[int, ...]
    painted: int
    chosen: int
    best: int


def check_loop(out: Path, config: LoopConfig) -> dict[str, dict[str, Estimate]]:
    """Paint each scene ``attempts`` times, and let the judge stop earlier; writes ``check_loop.json``.

    Raises:
        FileNotFoundError: a model is missing.
    """
    pipeline, reader = load_pipeline(out / CHECKPOINT), load_reader(out / READER)
    narrowed(pipeline.vae)
    scenes = [
        sample_scene(config.seed * 60_000_000 + i, config.objects, config.split) for i in range(config.scenes)
    ]
    captions = [short_caption(scene, i) for i, scene in enumerate(scenes)]
    pictures = []  # of each attempt (scenes, 3, S, S)
    for attempt in range(config.attempts):
        each = PaintConfig(config.steps, config.guidance, config.batch, config.seed + attempt)
        pictures.append(paint(pipeline, captions, each))
    jobs = [(scene, [each[i : i + 1].clone() for each in pictures], i) for i, scene in enumerate(scenes)]
    runs = each_in_processes(partial(judged, out / LANGUAGE, reader), jobs, config.workers, "scenes")
    found = loop_results(runs)
    write_json(out / RESULT, {"config": config, "results": found, "scenes": runs})
    return found


def judged(
    folder: Path, reader: Reader, scene: Scene, pictures: Sequence[torch.Tensor], number: int
) -> LoopRun:
    """Run the loop of one scene over its pictures, (1, 3, S, S) in -1 .. 1 each."""
    engine, claims, sampling = (
        chat_engine(folder),
        claims_of(scene),
        Sampling(number, 0.0, max_new_tokens=400),
    )
    shown = [Picture.from_pil(to_pil(channels_last(each / 2 + 0.5))[0]) for each in pictures]
    attempts = repeat_until(
        engine, lambda prompt, attempt: [shown[attempt]], "", claims, attempts=len(shown), rewrite=False,
        asking="describe first", sampling=sampling, on_text=_silent,
    )  # fmt: skip
    checks = [attempt.checks[0] for attempt in attempts]
    rest = [
        check_claims(engine, each, claims, asking="describe first", sampling=sampling, on_text=_silent)
        for each in shown[len(checks) :]
    ]
    right = tuple(objects_right(reader, scene, each) for each in pictures)
    return LoopRun(len(scene.objects), right, len(checks), best_index(checks), best_index([*checks, *rest]))


def claims_of(scene: Scene) -> list[PictureClaim]:
    """One question for each object: whether it is there, with its colour, shape and place."""
    named = [with_article(f"{one.colour} {one.shape} {WHERE[one.place]}") for one in scene.objects]
    return [PictureClaim(one, QUESTIONS["exists"][0][0].format(thing=one)) for one in named]


def objects_right(reader: Reader, scene: Scene, painted: torch.Tensor) -> int:
    """How many objects the reader finds at their places, in their colours and shapes."""
    reading = reader.read(painted)
    there = ((one, seen(reading, one.place)) for one in scene.objects)
    return sum(
        got is not None and (got["colour"], got["shape"]) == (one.colour, one.shape) for one, got in there
    )


def loop_results(runs: Sequence[LoopRun]) -> dict[str, dict[str, Estimate]]:
    """By way of choosing: objects that are right, scenes in which all are, and pictures that were painted for it.

    Last, what choosing gains over as many seeds as were painted for it, on average: by the loop, and by the judge of all.
    """
    objects = [run.objects for run in runs]
    every = len(runs[0].right)

    def row(right: Sequence[Sequence[int]], painted: Sequence[int]) -> dict[str, Estimate]:
        """The mean over the pictures that are given for each scene."""
        whole = [[one == count for one in each] for each, count in zip(right, objects, strict=True)]
        return {
            "objects": rate([sum(each) / len(each) for each in right], objects),
            "scenes": rate([sum(each) / len(each) for each in whole]),
            "painted": mean([float(one) for one in painted]),
        }

    once, as_loop, all_of_them = [1] * len(runs), [run.painted for run in runs], [every] * len(runs)
    rows = {
        "first picture": row([run.right[:1] for run in runs], once),
        "all seeds, on average": row([run.right for run in runs], all_of_them),
        "the loop's seeds, on average": row([run.right[: run.painted] for run in runs], as_loop),
        "loop": row([[run.right[run.chosen]] for run in runs], as_loop),
        "best of all by the judge": row([[run.right[run.best]] for run in runs], all_of_them),
        "best of all by the reader": row([[max(run.right)] for run in runs], all_of_them),
    }
    for gain, chosen, given in (
        ("the loop's gain", "loop", "the loop's seeds, on average"),
        ("the judge's gain", "best of all by the judge", "all seeds, on average"),
    ):
        rows[gain] = {name: rows[chosen][name].minus(rows[given][name]) for name in ("objects", "scenes")}
    return rows


def loop_table(results: dict[str, dict[str, Estimate]]) -> str:
    """The results as text, a line for each way."""
    return table(results, counts=True)


def _silent(text: str) -> None:
    """Nobody reads along."""
