"""SceneSession: a planned scene in one call, from the plan to the picture, into nothing or into a photograph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch.nn.functional import max_pool2d

from ..diffusion.denoiser import Denoiser, DenoiserRunner
from ..edit.codec import LatentCodec
from ..edit.inversion import OnStep, Trajectory, silent
from ..edit.session import EditSession
from ..text.encoder import Context, PromptEncoder
from .cache import ObjectCache
from .placement import (
    FLOOR,
    FOREGROUND_NOISE,
    Composed,
    Move,
    centred_box,
    compose,
    move_to,
    object_noise,
    saliency_mask,
    seeded_noise,
)
from .plan import SceneBox, ScenePlan
from .prompts import ScenePrompt, alone_negative, dropped_notes, object_prompt, scene_prompt
from .settings import SceneSettings
from .synthesis import AloneRun, StepAttention, TogetherRun, paint_alone, paint_together

_OBJECT_SEED = (
    20  # an object's noise is that of the scene's seed plus this and its number, as in the reference
)


@dataclass(frozen=True, eq=False)
class SceneObjectRun:
    """One object of a painted scene."""

    run: AloneRun
    mask: torch.Tensor
    """(h, w) bool, in its place."""
    move: Move
    cached: bool
    """Whether it was painted by an earlier call."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A painted scene."""

    latent: torch.Tensor
    """(1, 4, h, w) float32 on the CPU."""
    objects: tuple[SceneObjectRun, ...]
    word_maps: torch.Tensor
    """(objects, h', w') in 0 .. 1: the attention to each object's word in the scene, each divided by its largest value."""
    region: torch.Tensor
    """(1, 1, h, w): where a photograph could change; ones without one."""
    together: TogetherRun
    """The second stage, with the count of its passes."""
    notes: tuple[str, ...]

    @property
    def masks(self) -> torch.Tensor:
        """(objects, h, w) float32."""
        found = [one.mask.float() for one in self.objects]
        return torch.stack(found) if found else torch.zeros(0, *self.latent.shape[-2:])


class SceneSession(Generic[Context]):
    """A model and its text encoder, set up to paint scenes.

    Args:
        runner: runs work on a denoiser, with prompts as ``encoder`` encodes them; a ``DiffusersDenoiser`` is one.
        encoder: also says in which layout prompts are read, and how many chunks of them.
        codec: pictures to latents and back; only ``paint_image`` needs it.
        cache: painted objects of earlier calls, so that a moved object is not painted again; None keeps none.
        identity: names the weights in the cache; sessions that share one must differ in it where their weights do.
    """

    def __init__(
        self,
        runner: DenoiserRunner,
        encoder: PromptEncoder[Context],
        codec: LatentCodec | None = None,
        cache: ObjectCache | None = None,
        identity: str = "",
    ) -> None:
        self.runner, self.encoder, self.codec = runner, encoder, codec
        self.cache, self.identity = cache, identity

    @classmethod
    def from_pipeline(cls, pipeline: Any, **options: Any) -> SceneSession[Any]:
        """A session with a cache of its own on a diffusers pipeline; see ``EditSession.from_pipeline``."""
        edit = EditSession.from_pipeline(pipeline, **options)
        return SceneSession(edit.runner, edit.encoder, edit.codec, ObjectCache())

    def paint_image(
        self, plan: ScenePlan, size: tuple[int, int], **options: Any
    ) -> tuple[torch.Tensor, Scene]:
        """``paint`` and the picture: (1, 8 h, 8 w, 3) float32 in 0 .. 1.

        Raises:
            ValueError: there is no codec, or see ``paint``.
        """
        if self.codec is None:
            raise ValueError("this session has no codec, so it paints latents: use paint")
        scene = self.paint(plan, size, **options)
        return self.codec.decode(scene.latent), scene

    def paint(
        self,
        plan: ScenePlan,
        size: tuple[int, int],
        settings: SceneSettings | None = None,
        *,
        seed: int = 0,
        masks: Mapping[int, torch.Tensor] | None = None,
        background: Trajectory | None = None,
        on_step: OnStep = silent,
    ) -> Scene:
        """Paint a plan: each object alone, then the scene.

        Args:
            size: (h, w) of the latent.
            seed: of the scene's noise, and with its number added of each object's.
            masks: for an object's number its mask (h, w) where it was painted alone (``Scene.objects[i].run.box``), in
                place of the one that is found in its word map.
            background: an inverted photograph of one picture and as many steps, into which the objects are put; outside of
                ``Scene.region`` the result is its latent, bit for bit.
            on_step: ``on_step(i, n, preview)`` after each step of all objects that are painted and of the scene; may raise.

        Raises:
            ValueError: the photograph has another size, number of steps or pictures; an object's name lies beyond the tokens
                that are read.
        """
        settings = settings or SceneSettings()
        _check_background(background, size, settings.steps)
        prompts = [object_prompt(self.encoder, plan, i) for i in range(len(plan.objects))]
        whole = scene_prompt(self.encoder, plan)
        notes = dropped_notes(self.encoder, plan, prompts, whole, settings.alone_negative)
        noise = seeded_noise(seed, size)
        keys = [self._key(plan, i, prompts[i], size, settings, seed) for i in range(len(prompts))]
        # All at once: the cache may drop an object while another is painted.
        known = [self.cache.get(key) if self.cache is not None else None for key in keys]
        missing = [i for i, run in enumerate(known) if run is None]
        total = (len(missing) + 1) * settings.steps
        runs: list[AloneRun] = []
        for i, (key, run) in enumerate(zip(keys, known, strict=True)):
            if run is None:
                report = _part(on_step, missing.index(i) * settings.steps, total)
                run = self._alone(plan, i, prompts[i], noise, settings, seed, report)
                if self.cache is not None:
                    self.cache.put(key, run)
            runs.append(run)
        objects, lost = _placed(plan, runs, size, settings, masks or {})
        notes += lost
        objects = [replace(one, cached=i not in missing) for i, one in enumerate(objects)]
        composed = compose(
            [one.move.latent(one.run.latents) for one in objects], [one.mask for one in objects], noise
        )
        notes += _covered_notes(plan, composed)
        region = _region(composed, settings.margin) if background is not None else torch.ones(1, 1, *size)
        report = _part(on_step, len(missing) * settings.steps, total)
        together = self._together(plan, whole, objects, composed, settings, background, region, report)
        notes += _count_notes(objects, together, settings)
        maps = together.word_maps
        maps = maps / maps.amax((-2, -1), keepdim=True).clamp_min(1e-12)
        return Scene(together.latent, tuple(objects), maps, region, together, tuple(notes))

    def _alone(
        self,
        plan: ScenePlan,
        number: int,
        prompt: ScenePrompt,
        noise: torch.Tensor,
        settings: SceneSettings,
        seed: int,
        on_step: OnStep,
    ) -> AloneRun:
        box = _alone_box(plan.objects[number].box, settings)
        start = object_noise(noise, box, seed + _OBJECT_SEED + number, FOREGROUND_NOISE)

        def work(denoiser: Denoiser, contexts: dict[str, Any]) -> AloneRun:
            return paint_alone(
                denoiser,
                start,
                contexts["object"],
                contexts["negative"],
                box,
                prompt.phrases[0],
                steps=settings.steps,
                cfg=settings.cfg,
                guidance=settings.alone,
                kept_steps=settings.together.guided_steps(settings.steps),
                layers=settings.layers,
                phrase=settings.phrase,
                on_step=on_step,
            )

        negative = alone_negative(plan, settings.alone_negative)
        return self.runner.run(self._encoded("object", prompt, negative), noise.shape, work)

    def _together(
        self,
        plan: ScenePlan,
        prompt: ScenePrompt,
        objects: Sequence[SceneObjectRun],
        composed: Composed,
        settings: SceneSettings,
        background: Trajectory | None,
        region: torch.Tensor,
        on_step: OnStep,
    ) -> TogetherRun:
        def work(denoiser: Denoiser, contexts: dict[str, Any]) -> TogetherRun:
            return paint_together(
                denoiser,
                composed.latents,
                composed.mask,
                contexts["scene"],
                contexts["negative"],
                [one.box for one in plan.objects],
                prompt.phrases,
                [_moved(one) for one in objects],
                steps=settings.steps,
                replaced_steps=settings.replaced_steps if objects else 0,
                cfg=settings.cfg,
                guidance=settings.together,
                background=background,
                region=region,
                layers=settings.layers,
                phrase=settings.phrase,
                on_step=on_step,
            )

        return self.runner.run(
            self._encoded("scene", prompt, plan.negative), composed.latents.shape[1:], work
        )

    def _encoded(self, name: str, prompt: ScenePrompt, negative: str) -> dict[str, Context]:
        context = self.encoder.encode(prompt.plans, prompt.chunks)
        return {name: context, "negative": self.encoder.encode_negative(negative, prompt.chunks, context)}

    def _key(
        self,
        plan: ScenePlan,
        number: int,
        prompt: ScenePrompt,
        size: tuple[int, int],
        settings: SceneSettings,
        seed: int,
    ) -> str:
        """All that an object alone follows from; its place in the scene is not among it, unless it is painted there."""
        box = _alone_box(plan.objects[number].box, settings)
        negative = alone_negative(plan, settings.alone_negative)
        parts = (
            *(
                self.identity,
                self.encoder.layout,
                self.encoder.max_chunks,
                prompt.text,
                prompt.phrases,
                negative,
            ),
            *(
                box,
                size,
                seed,
                number,
                settings.steps,
                settings.cfg,
                settings.layers,
                settings.phrase,
                settings.alone,
            ),
            settings.together.guided_steps(settings.steps),
        )
        return hashlib.sha256(repr(parts).encode("utf-8", "replace")).hexdigest()


def _alone_box(box: SceneBox, settings: SceneSettings) -> SceneBox:
    return box if settings.alone_at == "box" else centred_box(box, FLOOR)


def _placed(
    plan: ScenePlan,
    runs: Sequence[AloneRun],
    size: tuple[int, int],
    settings: SceneSettings,
    masks: Mapping[int, torch.Tensor],
) -> tuple[list[SceneObjectRun], list[str]]:
    objects, notes = [], []
    for number, (one, run) in enumerate(zip(plan.objects, runs, strict=True)):
        mask, found = saliency_mask(run.word_map, run.box, size, settings.threshold)
        if number in masks:
            mask, found = _given(masks[number], size, one.name), True
        if not found:
            notes.append(f"{one.name}: no cell stands out in its word map, so its whole box is taken")
        grids = [attention.size for attention in run.word_maps[0].values()] if run.word_maps else [size]
        smallest = min(grids, key=lambda grid: grid[0] * grid[1])
        move = Move(0, 0, 1) if settings.alone_at == "box" else move_to(mask, one.box, smallest)
        moved = move.latent(mask)
        if not moved.any():
            raise ValueError(
                f"the mask of {one.name!r} leaves the picture when it is put into its box; move its box"
            )
        objects.append(SceneObjectRun(run, moved, move, cached=False))
    return objects, notes


def _given(mask: torch.Tensor, size: tuple[int, int], name: str) -> torch.Tensor:
    if mask.shape != size:
        raise ValueError(
            f"the mask of {name!r} must be {size}, the size of the latent; got {tuple(mask.shape)}"
        )
    chosen = mask > 0.5
    if not chosen.any():
        raise ValueError(f"the mask of {name!r} is empty; leave it out, and one is found")
    return chosen


def _moved(one: SceneObjectRun) -> StepAttention:
    """The object's attention maps, moved as its latents are."""
    size = (one.mask.shape[0], one.mask.shape[1])
    return [
        {
            site: attention.moved(one.move.rows, one.move.columns, one.move.unit, size)
            for site, attention in step.items()
        }
        for step in one.run.word_maps
    ]


def _region(composed: Composed, margin: int) -> torch.Tensor:
    """(1, 1, h, w): the objects' cells and ``margin`` more around them."""
    return max_pool2d(composed.mask, 2 * margin + 1, stride=1, padding=margin)


def _covered_notes(plan: ScenePlan, composed: Composed) -> list[str]:
    """A line for each object of which nothing is seen, because others stand before all of it."""
    seen = composed.owner.unique().tolist()
    return [
        f"{one.name}: the objects in front of it cover all of its mask, so it plays no part; move its box"
        for number, one in enumerate(plan.objects, 1)
        if number not in seen
    ]


def _part(on_step: OnStep, done: int, total: int) -> Callable[..., None]:
    return lambda i, n, preview=None: on_step(done + i, total, preview)


def _check_background(background: Trajectory | None, size: tuple[int, int], steps: int) -> None:
    if background is None:
        return
    _, pictures, _, *found = background.latents.shape
    if pictures != 1:
        raise ValueError(
            f"the photograph must be one picture, got an inversion of {pictures}; invert one alone"
        )
    if tuple(found) != tuple(size) or background.steps != steps:
        raise ValueError(
            f"the inverted photograph has latents of {tuple(found)} and {background.steps} steps, the scene {tuple(size)} "
            f"and {steps}; they must be the same"
        )


def _count_notes(
    objects: Sequence[SceneObjectRun], together: TogetherRun, settings: SceneSettings
) -> list[str]:
    fresh = [one.run for one in objects if not one.cached]
    passes = sum(run.guidance.backward_passes for run in fresh) + together.guidance.backward_passes
    most = len(fresh) * settings.alone.most_passes(settings.steps)
    most += settings.together.most_passes(settings.steps) if objects else 0
    rows = sum(run.rows for run in fresh) + together.rows
    notes = [f"{passes} gradient passes of at most {most}, and {rows} rows through the UNet"]
    if len(fresh) < len(objects):
        notes.append(
            f"{len(objects) - len(fresh)} of {len(objects)} objects were painted before and are taken as they were"
        )
    return notes
