"""Check of planned scenes: combinations of colour and shape that no training showed, painted from boxes and read back.

The ablation of RFNet's paper on the miniature: the user's sentence alone, the plan as one long prompt, and the synthesis
without and with its parts; and objects put into true pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from llmga.diffusion import DiffusersDenoiser
from llmga.edit import EditSession
from llmga.evaluate import Estimate, contact_sheet, mean, plain, psnr, rate, table, write_json
from llmga.evaluate.extractors import digest_of
from llmga.scene import (
    GuidanceSettings,
    LossWeights,
    ObjectCache,
    SceneBox,
    SceneObject,
    ScenePlan,
    SceneSession,
    SceneSettings,
    assess,
    clip_states,
    long_prompt,
)
from llmga.text import CLIPPromptEncoder

from ..files import CHECKPOINT, READER
from ..models.architecture import picture_size
from ..models.narrow_taesd import narrowed
from ..models.painter import load_pipeline
from ..models.reader import Reader, load_reader
from ..models.sampling import PaintConfig, paint
from ..world.captions import description, enumerated, short_caption
from ..world.phrases import ON, WHERE
from ..world.scene import SIZES, UNIT, Scene, Thing, choose, sample_scene
from .editors import picture
from .edits import seen

RESULT_FILE = "check_scenes.json"
METHODS_OF_SCENES = ("sentence", "long prompt", "none", "SAA", "guidance", "+ suppression", "all")
ALONE_SCALE, TOGETHER_SCALE, THRESHOLD = 8.0, 2.0, 8.0
_SHEET = 20


@dataclass(frozen=True)
class ScenesConfig:
    """Which scenes, and how they are painted."""

    scenes: int = 200
    insertions: int = 100
    objects: tuple[int, int] = (2, 4)
    steps: int = 25
    cfg: float = 4.0
    replaced: float = 0.8
    seed: int = 23


@dataclass(frozen=True)
class SceneScore:
    """One painted scene: of its objects, how many stand at their place, and with the right colour and shape; and how many
    stand where nothing was planned."""

    method: str
    number: int
    objects: int
    placed: int
    right: int
    extra: int = 0


@dataclass(frozen=True)
class InsertionScore:
    """One object put into a true picture; decibels outside of what may change, to the autoencoder's reconstruction."""

    number: int
    right: bool
    kept: int
    untouched: int
    decibels: float


class MiniaturePainter:
    """The miniature's networks, as a planned scene needs them."""

    def __init__(self, out: Path) -> None:
        self.pipeline = load_pipeline(out / CHECKPOINT)
        self.picture = picture_size(self.pipeline.unet)
        self.cells = self.picture // 8
        self.autoencoder = narrowed(self.pipeline.vae)
        self.reader: Reader = load_reader(out / READER)
        self.encoder = CLIPPromptEncoder((self.pipeline.tokenizer,), (self.pipeline.text_encoder,))
        self.denoiser = DiffusersDenoiser(self.pipeline.unet)
        self.session = SceneSession(self.denoiser, self.encoder, cache=ObjectCache(64))
        self.states = clip_states(self.encoder, lambda context: context.states)

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """(1, 4, h, w) -> (1, 3, 8 h, 8 w) in -1 .. 1."""
        return self.autoencoder.decode(latent / self.autoencoder.config.scaling_factor).sample.clamp(-1, 1)

    @torch.no_grad()
    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.encode(image).latents * self.autoencoder.config.scaling_factor

    def scene(self, method: str, scene: Scene, number: int, config: ScenesConfig) -> torch.Tensor:
        """A scene by one of ``METHODS_OF_SCENES``: (1, 3, S, S) in -1 .. 1, S the ``picture``."""
        plan = plan_of(scene, number)
        if method in ("sentence", "long prompt"):
            caption = sentence_of(scene) if method == "sentence" else long_prompt(without_descriptions(plan))
            return paint(
                self.pipeline, [caption], PaintConfig(config.steps, config.cfg, seed=config.seed + number)
            )
        chosen = assess(plan, self.states, "rfnet").plan if method in ("SAA", "all") else plan
        settings = settings_of(method, config, self.cells)
        painted = self.session.paint(chosen, (self.cells, self.cells), settings, seed=config.seed + number)
        return self.decode(painted.latent)


def plan_of(scene: Scene, number: int) -> ScenePlan:
    """The plan of a scene in the wording of the captions that the painter learned.

    Boxes are where the world puts the objects. Of each object's three descriptions two say the place of its box and one, at
    a position that changes with the number, a place where nothing stands; so that there is something to assess.
    """
    objects = []
    for i, thing in enumerate(scene.objects):
        wrong = choose(scene.free_places, number, i, "contradiction")
        on = ON[scene.background]
        texts = [f"{WHERE[thing.place]} {on}", f"{WHERE[thing.place]}, {on}"]
        texts.insert((number + i) % 3, f"{WHERE[wrong]} {on}")
        objects.append(SceneObject(name_of(thing), box_of(thing), tuple(texts)))
    return ScenePlan(tuple(objects), ON[scene.background])


def name_of(thing: Thing) -> str:
    """ "a large striped red star"; that a thing is plain is not said."""
    return description(thing).replace(" plain", "")


def sentence_of(scene: Scene) -> str:
    """What somebody would ask for who leaves the places to the plan."""
    return f"{enumerated([name_of(thing) for thing in scene.objects])}, {ON[scene.background]}"


def without_descriptions(plan: ScenePlan) -> ScenePlan:
    return replace(plan, objects=tuple(replace(one, descriptions=()) for one in plan.objects))


def box_of(thing: Thing) -> SceneBox:
    side = SIZES[thing.size] / UNIT
    x, y = (value / UNIT - side / 2 for value in thing.centre)
    return SceneBox.clamped(x, y, side, side)


def settings_of(method: str, config: ScenesConfig, cells: int) -> SceneSettings:
    """The paper's ablation: no guidance at all, guidance without suppression, and both.

    Where this painter needs other settings than SD1.5: its layers on the way up are the ones that find places; of a name it
    attends to the word of the size, and hardly to the last one; its captions say places, so an object is painted where they
    say. A painted object that stands in its box has a loss of 2 to 7, which the reference's threshold of 5 would go on to
    move. Around an object a sixteenth of a picture's ``cells`` may change too.
    """
    weights = LossWeights(suppression=0.0 if method == "guidance" else LossWeights().suppression)
    strength = 0.0 if method in ("none", "SAA") else 1.0
    alone = GuidanceSettings(scale=strength * ALONE_SCALE, threshold=THRESHOLD)
    return SceneSettings(
        config.steps,
        config.cfg,
        config.replaced,
        margin=cells // 16,
        layers="up",
        alone=alone,
        together=replace(alone, scale=strength * TOGETHER_SCALE, weights=weights),
        alone_negative="",
        alone_at="box",
        phrase="sum",
    )


def check_scenes(
    out: Path,
    config: ScenesConfig,
    methods: Sequence[str] = METHODS_OF_SCENES,
    on_step: Callable[[int, int], object] | None = None,
) -> tuple[list[SceneScore], list[InsertionScore]]:
    """Paint every scene by every method, put objects into true pictures, and score both.

    Writes ``check_scenes.json`` after each and a sheet of the first scenes. A run that was stopped goes on where it was, if
    it asks for the same of the same models and its sheet was whole.

    Raises:
        FileNotFoundError: a model is missing.
        ValueError: a method is unknown.
    """
    unknown = [method for method in methods if method not in METHODS_OF_SCENES]
    if unknown or not methods:
        raise ValueError(
            f"methods must be of {', '.join(METHODS_OF_SCENES)}; got {', '.join(unknown) or 'none'}"
        )
    painter = MiniaturePainter(out)
    what = _what(out, config, methods, painter.cells)
    scores, insertions = _scored(out / RESULT_FILE, what)
    sheet: list[torch.Tensor] = []
    total = config.scenes + config.insertions
    for number in range(len(scores) // len(methods), config.scenes):
        scene = sample_scene(config.seed * 40_000_000 + number, config.objects, "unseen_pair")
        row = [picture(scene, painter.picture)]
        for method in methods:
            row.append(painter.scene(method, scene, number, config))
            scores.append(score_scene(painter.reader, method, number, scene, row[-1]))
        if number < _SHEET:
            sheet.append(torch.cat(row) / 2 + 0.5)
            contact_sheet(sheet, out / "pictures" / "scenes.png", len(methods) + 1)
        _done(out, what, scores, insertions, on_step, number + 1, total)
    for number in range(len(insertions), config.insertions):
        insertions.append(insertion(painter, number, config))
        _done(out, what, scores, insertions, on_step, config.scenes + number + 1, total)
    return scores, insertions


def score_scene(reader: Reader, method: str, number: int, scene: Scene, made: torch.Tensor) -> SceneScore:
    """Read a picture (1, 3, S, S) in -1 .. 1 and count what stands where it was planned."""
    reading = reader.read(made)
    there = [seen(reading, thing.place) for thing in scene.objects]
    right = sum(
        found is not None and (found["colour"], found["shape"]) == (thing.colour, thing.shape)
        for found, thing in zip(there, scene.objects, strict=True)
    )
    extra = sum(seen(reading, place) is not None for place in scene.free_places)
    return SceneScore(method, number, len(there), sum(found is not None for found in there), right, extra)


def insertion(painter: MiniaturePainter, number: int, config: ScenesConfig) -> InsertionScore:
    """Take one object out of a held-out scene, and put it back into the true picture of the others by its box."""
    scene = sample_scene(config.seed * 50_000_000 + number, (2, 4), "validation")
    thing, others = scene.objects[-1], replace(scene, objects=scene.objects[:-1])
    latent = painter.encode(picture(others, painter.picture))
    inversion = EditSession(painter.denoiser, painter.encoder).invert(
        latent, short_caption(others, number), config.steps
    )
    plan = ScenePlan(
        (SceneObject(name_of(thing), box_of(thing), (WHERE[thing.place],)),), ON[scene.background]
    )
    painted = painter.session.paint(
        plan,
        (painter.cells, painter.cells),
        settings_of("all", config, painter.cells),
        seed=config.seed + number,
        background=inversion.trajectory,
    )
    made, reconstruction = painter.decode(painted.latent), painter.decode(latent)
    reading = painter.reader.read(made)
    found = seen(reading, thing.place)
    right = found is not None and (found["colour"], found["shape"]) == (thing.colour, thing.shape)
    kept = [seen(reading, other.place) for other in others.objects]
    same = sum(
        one is not None and (one["colour"], one["shape"]) == (other.colour, other.shape)
        for one, other in zip(kept, others.objects, strict=True)
    )
    outside = interpolate(1 - painted.region, made.shape[-2:])
    return InsertionScore(number, right, same, len(kept), float(psnr(made, reconstruction, outside, peak=2)))


def scene_results(
    scores: Sequence[SceneScore], insertions: Sequence[InsertionScore]
) -> dict[str, dict[str, Estimate]]:
    """By method: objects at their place, objects that are right, objects that nobody planned, and scenes in which all are
    right and nothing else stands; and of the insertions."""
    rows: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(one.method for one in scores):
        mine = [one for one in scores if one.method == method]
        counts = [one.objects for one in mine]
        rows[method] = {
            "place": rate([one.placed for one in mine], counts),
            "object": rate([one.right for one in mine], counts),
            "extra": mean([float(one.extra) for one in mine]),
            "scene": rate([one.right == one.objects and not one.extra for one in mine]),
        }
    if insertions:
        rows["insertion"] = {
            "object": rate([one.right for one in insertions]),
            "others kept": rate([one.kept for one in insertions], [one.untouched for one in insertions]),
            "dB outside": mean([one.decibels for one in insertions]),
        }
    return rows


def scenes_table(scores: Sequence[SceneScore], insertions: Sequence[InsertionScore]) -> str:
    """The results as text, a line for each method."""
    return table(scene_results(scores, insertions), counts=True)


def _what(out: Path, config: ScenesConfig, methods: Sequence[str], cells: int) -> dict[str, Any]:
    """What is measured, as it stands in ``check_scenes.json``."""
    settings = {method: settings_of(method, config, cells) for method in methods}
    models = {name: digest_of(out / name) for name in (CHECKPOINT, READER)}
    return plain({"config": config, "settings": settings, "models": models})


def _scored(path: Path, what: dict[str, Any]) -> tuple[list[SceneScore], list[InsertionScore]]:
    """The scores of an earlier run that measured the same, but none where its sheet of scenes lacks some."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    shown = min(_SHEET, what["config"]["scenes"]) * len(what["settings"])
    if any(found.get(name) != value for name, value in what.items()) or len(found["scenes"]) < shown:
        return [], []
    scores = [SceneScore(**one) for one in found["scenes"]]
    return scores, [InsertionScore(**one) for one in found["insertions"]]


def _done(
    out: Path,
    what: dict[str, Any],
    scores: Sequence[SceneScore],
    insertions: Sequence[InsertionScore],
    on_step: Callable[[int, int], object] | None,
    done: int,
    total: int,
) -> None:
    results = scene_results(scores, insertions)
    document = {**what, "results": results, "scenes": scores, "insertions": insertions}
    write_json(out / RESULT_FILE, document)
    if on_step:
        on_step(done, total)
