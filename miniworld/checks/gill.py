"""Check of the miniature's GILL: pictures from stories, retrieval, and the decision between both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from llmga.evaluate import Estimate, contact_sheet, rate, table, write_json
from llmga.gill import GILL, load_decision, load_parts
from llmga.gill.answer import decide
from llmga.gill.model import PromptPart

from ..files import CHECKPOINT, GILL_DECISION_FILE, GILL_FILE, LANGUAGE, READER
from ..models.architecture import picture_size, picture_size_of_checkpoint
from ..models.gill import frozen_models, is_owned, story
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline
from ..models.reader import load_reader
from ..models.sampling import PaintConfig, paint
from ..world.captions import caption_of
from ..world.render import render
from ..world.scene import Scene, sample_scene
from .controlnet import pictures_of
from .painter import Rates, score, truth_of

OnDone = Callable[[int, int], object]
RESULT = "check_gill.json"
_SHEET = 10
Measured = dict[str, dict[str, Estimate]]


@dataclass(frozen=True)
class GILLCheckConfig(PaintConfig):
    count: int = 256
    """Stories, captions to retrieve by, and captions to decide on, each."""
    objects: int = 5
    """Of a story, a sentence each."""
    distractors: int = 256
    """Pictures of the index that nobody asks for."""


def load_miniature_gill(out: Path, parts: Path | None = None) -> GILL:
    """The miniature's GILL, or another one of its size whose trained part is the file ``parts``."""
    decision = out / GILL_DECISION_FILE
    return GILL(
        *frozen_models(out / LANGUAGE),
        load_parts(parts or out / GILL_FILE),
        load_decision(decision) if decision.is_file() else None,
    )


def check_gill(
    out: Path, config: GILLCheckConfig, on_done: OnDone = lambda done, of: None
) -> dict[str, Measured]:
    """Everything that is measured, by table and condition; writes ``check_gill.json`` and a sheet of the first stories.

    Raises:
        FileNotFoundError: one of the miniature's files is missing.
    """
    gill = load_miniature_gill(out)
    results = {
        "generation": check_stories(gill, out, config, on_done),
        "retrieval": check_retrieval(gill, config, picture_size_of_checkpoint(out / CHECKPOINT)),
        "decision": check_decision(gill, config),
    }
    write_json(out / RESULT, {"config": config, "results": results})
    return results


def check_stories(
    gill: GILL, out: Path, config: GILLCheckConfig, on_done: OnDone = lambda done, of: None
) -> Measured:
    """The last picture of a story, from GILL's embedding and from the words as a prompt, by the same UNet and noise.

    A story names an object in each sentence; the picture that is asked for holds all of them. A prompt is cut behind 75
    tokens, as SD1.5 reads it.
    """
    pipeline, reader = load_pipeline(out / CHECKPOINT), load_reader(out / READER)
    narrowed(pipeline.vae)
    number, size = config.objects, picture_size(pipeline.unet)
    scenes = [
        sample_scene(config.seed * 40_000_000 + i, (number, number), "validation")
        for i in range(config.count)
    ]
    stories = [story(scene) for scene in scenes]
    last = [said[-1] for said, _ in stories]
    whole = [" ".join(f"{sentence}." for sentence in said) for said, _ in stories]
    prompts_of: dict[str, Sequence[Sequence[PromptPart]]] = {
        "GILL, 1 caption": [[text] for text in last],
        f"GILL, {number} captions": [[text] for text in whole],
        f"GILL, {number} captions, {number - 1} pictures": [interleaved(*one, size) for one in stories],
    }
    done, of = 0, len(prompts_of) * len(scenes)
    contexts = {}
    for name, prompts in prompts_of.items():
        rows = []
        for prompt in prompts:
            rows.append(conditioning_of(gill, prompt))
            done += 1
            on_done(done, of)
        contexts[name] = torch.stack(rows)
    painted = {
        "prompt, 1 caption": paint(pipeline, last, config, max_chunks=1),
        f"prompt, {number} captions": paint(pipeline, whole, config, max_chunks=1),
    }
    painted |= {name: paint(pipeline, last, config, contexts=context) for name, context in contexts.items()}
    rows = [pictures_of(scenes[:_SHEET], size), *(pictures[:_SHEET] for pictures in painted.values())]
    contact_sheet([row / 2 + 0.5 for row in rows], out / "pictures" / "gill.png", _SHEET)
    truth = truth_of(scenes)
    read = {name: reader.read(pictures) for name, pictures in painted.items()}
    results = {name: columns(score(reading, truth)) for name, reading in read.items()}
    results["chance"] = columns(score(read[f"prompt, {number} captions"], truth.roll(1, 0)))
    return results


@torch.no_grad()
def check_retrieval(gill: GILL, config: GILLCheckConfig, size: int) -> Measured:
    """How often a caption finds its own picture of ``size`` × ``size`` pixels among all, first or among the first five."""
    total = config.count + config.distractors
    scenes = [sample_scene(config.seed * 50_000_000 + i, (1, 3), "validation") for i in range(total)]
    rows = torch.cat([gill.parts.picture_embedding(gill.pooled(picture_of(scene, size))) for scene in scenes])
    queries = [gill.picture_states([caption_of(scene)]) for scene in scenes[: config.count]]
    scores = gill.parts.query_embedding(torch.stack(queries)) @ rows.T
    places = (scores > scores.diagonal()[:, None]).sum(1)  # how many are nearer than its own
    chance = {f"recall@{k}": rate([k / total] * config.count) for k in (1, 5)}
    return {
        f"GILL, {total} pictures": {f"recall@{k}": rate((places < k).float()) for k in (1, 5)},
        "chance": chance,
    }


def check_decision(gill: GILL, config: GILLCheckConfig) -> Measured:
    """Generate or retrieve: how often that is right, where right is whether the index can hold such a picture."""
    scenes = [sample_scene(config.seed * 60_000_000 + i, (1, 3), "validation") for i in range(config.count)]
    right, always = [], []
    for scene in scenes:
        chosen = decide(gill.decision, gill.picture_states([caption_of(scene)])[0]).source
        right.append(float((chosen == "retrieve") == is_owned(scene)))
        always.append(float(not is_owned(scene)))
    return {"decision model": {"accuracy": rate(right)}, "always generate": {"accuracy": rate(always)}}


def conditioning_of(gill: GILL, prompt: Sequence[PromptPart]) -> torch.Tensor:
    """GILL's text states (77, dim) of a picture that stands behind the prompt."""
    with torch.no_grad():
        return gill.parts.conditioning(gill.picture_states(prompt)[None])[0]


def interleaved(sentences: Sequence[str], scenes: Sequence[Scene], size: int) -> list[PromptPart]:
    """A story with the picture, of ``size`` pixels, behind each sentence but the last."""
    parts: list[PromptPart] = []
    for sentence, scene in zip(sentences[:-1], scenes[:-1], strict=True):
        parts += [f"{sentence}.", picture_of(scene, size)]
    return [*parts, f"{sentences[-1]}."]


def picture_of(scene: Scene, size: int) -> Image.Image:
    return Image.fromarray(np.asarray(render(scene, size).image))


def gill_table(measured: dict[str, Any]) -> str:
    """All tables as text."""
    return "\n\n".join(f"{name}\n{table(rows)}" for name, rows in measured.items())


def columns(rates: Rates) -> dict[str, Estimate]:
    """Of what the reader found, what GILL's tables show."""
    return {name: rates[name] for name in ("background", "place", "colour", "shape", "empty")}
