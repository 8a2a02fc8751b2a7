"""GILL of the miniature: trained on the world's pictures and short captions, on the miniature's own frozen models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from llmga.gill import GILL, FrozenLanguage, FrozenVision, load_language, load_parts, load_vision
from llmga.train import train
from llmga.train.components import Components
from llmga.train.gill import GILLConfig, GILLTrainer
from llmga.train.gill_data import LabelledPrompts, StableDiffusionText
from llmga.train.gill_decision import GILLDecisionConfig, GILLDecisionTrainer

from ..world.captions import caption_of
from ..world.dataset import Painted, Scenes
from ..world.scene import BACKGROUNDS, Scene

OWNED = BACKGROUNDS[::2]
"""The backgrounds of the pictures that stand in the index: a picture of another one is never found there."""


@dataclass(frozen=True)
class MiniatureGILL:
    """How the miniature's GILL is trained."""

    training: GILLConfig
    decision: GILLDecisionConfig
    scenes: int
    """How many of the painted scenes are looked at."""
    objects: int
    """Scenes of more objects than this are left out: captions of few are learned sooner, and SD1.5 reads 77 tokens."""


class WorldCaptions:
    """The painted scenes of at most so many objects with their captions, as ``llmga.train.gill_data.CaptionedExamples``."""

    def __init__(self, source: Painted, objects: int) -> None:
        self._source, self._objects = source, objects
        scenes = [source.scenes[i] for i in range(len(source.pictures))]
        self._chosen = [i for i, scene in enumerate(scenes) if len(scene.objects) <= objects]
        self._captions = [caption_of(scenes[i]) for i in self._chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def caption(self, i: int) -> str:
        return self._captions[i]

    def picture(self, i: int) -> Image.Image:
        return Image.fromarray(self._source.pictures[self._chosen[i]])

    def fingerprint(self) -> str:
        side = self._source.pictures.shape[1]
        return f"captions in one wording of up to {self._objects} objects of {self._source.scenes}, {side} pixels"


def frozen_models(language: Path) -> tuple[FrozenLanguage, FrozenVision]:
    """The miniature's language model and its own vision tower, in float32."""
    return load_language(language, torch.float32), load_vision(language, torch.float32)


def text_of(pipeline: Any) -> StableDiffusionText:
    """The text encoder of the miniature's checkpoint."""
    parts = (pipeline.unet, pipeline.vae, (pipeline.text_encoder,), (pipeline.tokenizer,))
    return StableDiffusionText(Components(*parts, dict(pipeline.scheduler.config)))


def train_gill(
    config: MiniatureGILL, source: Painted, language: Path, pipeline: Any, folder: Path, cache: Path
) -> Path:
    """Train GILL's parts; returns the folder of the result. What the frozen encoders give is kept under ``cache``."""
    examples = WorldCaptions(source, config.objects)
    settings = replace(config.training, cache=cache if config.training.cache else None)
    trainer = GILLTrainer(settings, *frozen_models(language), examples, text_of(pipeline))
    return train(trainer, settings.loop, folder)


def train_decision(config: MiniatureGILL, language: Path, parts: Path, folder: Path) -> Path:
    """Train the decision model on captions that the parts have not seen; returns the folder of the result."""
    gill = GILL(load_language(language, torch.float32), None, load_parts(parts))
    settings = config.decision
    trainer = GILLDecisionTrainer(
        settings, gill, decision_prompts(2 * settings.train_on, config.training.loop.seed + 1)
    )
    return train(trainer, settings.loop, folder)


def decision_prompts(count: int, seed: int) -> LabelledPrompts:
    """Captions, and whether the index can hold such a picture (1, retrieve) or cannot (0, generate)."""
    scenes = Scenes(count, seed)
    captions = tuple(caption_of(scenes[i]) for i in range(count))
    return LabelledPrompts(captions, tuple(int(is_owned(scenes[i])) for i in range(count)))


def is_owned(scene: Scene) -> bool:
    """Whether the index holds pictures like it."""
    return scene.background in OWNED


def story(scene: Scene) -> tuple[Sequence[str], Sequence[Scene]]:
    """A sentence for each object, and the picture after each sentence: all objects that were named so far."""
    steps = [replace(scene, objects=scene.objects[: i + 1]) for i in range(len(scene.objects))]
    alone = [replace(scene, objects=(thing,)) for thing in scene.objects]
    return [caption_of(one) for one in alone], steps
