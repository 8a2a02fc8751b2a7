"""The world as conversations, stories, dialogues and impossible scenes of ``llmga evaluate``, and judges of their pictures.

As in ``paper``, a configuration names the functions below, and ``folder`` of a set names a miniature's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llmga.evaluate import Estimate, rate
from llmga.evaluate.data import DataConfig
from llmga.evaluate.paint_jobs import PainterConfig, SceneParts
from llmga.evaluate.rfbench import BenchPrompt
from llmga.evaluate.scene_painter import ScenePainter
from llmga.evaluate.sources import DialogItem, StoryItem, TurnsItem
from llmga.scene import SceneSettings

from ..files import CHECKPOINT
from ..models.architecture import picture_size
from ..models.embedding import TURNS
from ..models.gill import story
from ..models.painter import load_pipeline
from ..models.reader import load_reader
from ..world.captions import short_caption
from ..world.facts import caption_facts
from ..world.questions import sample_question
from ..world.scene import Scene, sample_scene
from .paper import COUNT, drawn_scene, picture_side, shown_facts
from .scenes import ScenesConfig, plan_of, settings_of
from .turns import whole_talks

ROUNDS = 10
"""Questions of a dialogue, as VisDial has."""
CATEGORIES = ("pairs never seen", "crowded", "exchanged")
"""Of impossible scenes: colours and shapes that never met in training, six to eight objects, and two objects that changed
their places, which is one scene more of the same words."""
_STORIES, _DIALOGS, _IMPOSSIBLE = 7_100_000, 7_200_000, 7_300_000


def conversations(config: DataConfig, work: Path) -> list[TurnsItem]:
    """A scene that is asked for, and an edit of it at each later turn, in conversations of eight turns."""
    size, items = picture_side(config), []
    for i, talk in enumerate(whole_talks(config.count or COUNT, TURNS, 1)):
        pictures = [
            drawn_scene(work / "turns", f"{i:05d}-{k}", turn.scene, size) for k, turn in enumerate(talk)
        ]
        requests, captions = tuple(turn.asked for turn in talk), tuple(turn.prompt for turn in talk)
        items.append(TurnsItem(f"{i:05d}", requests, captions, tuple(pictures)))
    return items


def stories(config: DataConfig, work: Path) -> list[StoryItem]:
    """Held-out scenes of five objects: a sentence for each, and the picture of all objects named so far."""
    size, items = picture_side(config), []
    for i in range(config.count or COUNT):
        sentences, scenes = story(sample_scene(_STORIES + i, (5, 5), "validation"))
        pictures = [
            drawn_scene(work / "stories", f"{i:05d}-{k}", scene, size) for k, scene in enumerate(scenes)
        ]
        items.append(StoryItem(f"{i:05d}", tuple(f"{text}." for text in sentences), tuple(pictures)))
    return items


def dialogs(config: DataConfig, work: Path) -> list[DialogItem]:
    """Ten questions on a held-out scene of one to three objects, with their answers."""
    size, items = picture_side(config), []
    for i in range(config.count or COUNT):
        scene = sample_scene(_DIALOGS + i, (1, 3), "validation")
        asked = [sample_question(scene, i * ROUNDS + k) for k in range(ROUNDS)]
        rounds = tuple((question.rstrip("?"), answer) for question, answer in asked)
        items.append(DialogItem(f"{i:05d}", rounds, drawn_scene(work / "dialogs", f"{i:05d}", scene, size)))
    return items


def impossible(config: DataConfig, work: Path) -> list[BenchPrompt]:
    """Scenes of each of ``CATEGORIES`` in turn, with short captions and the plans of them."""
    found = []
    for i in range(config.count or COUNT):
        category = CATEGORIES[i % len(CATEGORIES)]
        scene = _impossible(category, i)
        found.append(
            BenchPrompt(
                f"{i:05d}", short_caption(scene, i), "impossible", category, plan_of(scene, i).to_json()
            )
        )
    return found


def _impossible(category: str, number: int) -> Scene:
    seed = _IMPOSSIBLE + number
    if category == "pairs never seen":
        return sample_scene(seed, (2, 4), "unseen_pair")
    if category == "crowded":
        return sample_scene(seed, (6, 8), "validation")
    one, other, *rest = sample_scene(seed, (2, 3), "validation").objects
    exchanged = (replace(one, place=other.place), replace(other, place=one.place), *rest)
    return replace(sample_scene(seed, (2, 3), "validation"), objects=exchanged)


class WholeObjects:
    """Of what captions ask for, the share that is there: each object at its place in its colour and shape, and the
    background."""

    def __init__(self, path: Path) -> None:
        self._reader = load_reader(path)

    def __call__(self, items: Sequence[Any], pictures: Sequence[Path]) -> dict[str, Estimate]:
        counted = [self.counted(item.caption, path) for item, path in zip(items, pictures, strict=True)]
        return {"whole": rate([hits for hits, _ in counted], [count for _, count in counted])}

    def counted(self, caption: str, path: Path) -> tuple[float, float]:
        """How much of what a caption asks for a picture shows, and how much that is."""
        shown, asked = shown_facts(self._reader, path), caption_facts(caption)
        hits = [
            (there := shown.get(mention.place or "")) is not None
            and (there["colour"], there["shape"]) == (mention.colour, mention.shape)
            for mention in asked.objects
        ]
        if asked.background:
            hits.append(shown["picture"]["background"] == asked.background)
        return float(sum(hits)), float(len(hits))


class WholeByCategory(WholeObjects):
    """The same by sub-category, of the prompts of a benchmark; the unit is the prompt, of which pictures are averaged."""

    def __call__(self, items: Sequence[Any], pictures: Sequence[Path]) -> dict[str, Estimate]:
        by_category: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for item, path in zip(items, pictures, strict=True):
            counted = self.counted(item.prompt, path)
            for category in (item.subcategory, "all"):
                by_category.setdefault(category, {}).setdefault(item.id, []).append(counted)
        return {
            f"whole: {category}": rate(
                [sum(hits for hits, _ in pairs) for pairs in prompts.values()],
                [sum(count for _, count in pairs) for pairs in prompts.values()],
            )
            for category, prompts in sorted(by_category.items(), key=lambda pair: pair[0] == "all")
        }


def scene_painter(config: PainterConfig) -> ScenePainter:
    """RFNet's synthesis on the miniature, with the settings that ``check_scenes`` gives it; ``base`` is the folder of the
    models."""
    pipeline = load_pipeline(Path(config.base) / CHECKPOINT)
    return ScenePainter(config, pipeline, partial(scene_settings, picture_size(pipeline.unet) // 8))


def scene_settings(cells: int, parts: SceneParts, steps: int, cfg: float) -> SceneSettings:
    """Those of the method of ``check_scenes`` that has the same parts, for a latent of ``cells`` × ``cells``."""
    guided = "all" if parts.suppression else "guidance"
    return settings_of(guided if parts.guidance else "none", ScenesConfig(steps=steps, cfg=cfg), cells)
