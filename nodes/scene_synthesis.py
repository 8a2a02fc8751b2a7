"""LLMGA Scene Synthesis: paint a planned scene, into nothing or into a photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import torch
from comfy_api.latest import io
from torch.nn.functional import interpolate

from ..llmga.diffusion.denoiser import CELL
from ..llmga.edit.heatmaps import paint_heatmap
from ..llmga.edit.inversion import Trajectory
from ..llmga.scene import (
    ObjectCache,
    ScenePlan,
    SceneSession,
    draw_plan,
)
from ..llmga.scene.attention import PhraseAttention, SceneLayers
from ..llmga.scene.prompts import ALONE_NEGATIVE, all_text
from ..llmga.scene.session import Scene as PaintedPlan
from ..llmga.scene.settings import AlonePlace
from ..llmga.text.chunks import CONTENT
from . import check, embeddings, host
from .edit_inputs import MODEL_TOOLTIP, MOST_STEPS, HostInversion, HostModels
from .inversion import shown
from .prompt_encoder import LAYOUTS
from .scene_inputs import LARGEST_SIDE, SMALLEST_SIDE, SynthesisInputs
from .types import Inversion, PaintedScene, Scene, seed_input

_CACHE = ObjectCache()


@dataclass(frozen=True, eq=False)
class PaintedSceneValue:
    """A plan and what it was painted as. LLMGA_PAINTED_SCENE."""

    plan: ScenePlan
    scene: PaintedPlan

    def pictures(self, width: int, height: int, image: torch.Tensor | None) -> torch.Tensor:
        """The boxes with the masks, and a map of attention for each object: (1 + objects, height, width, 3)."""
        if image is not None:
            image = interpolate(image.movedim(-1, 1), (height, width), mode="area").movedim(1, -1)
        boxes = draw_plan(self.plan, width, height, image, self.scene.masks)
        under = boxes if image is None else image
        maps = [
            interpolate(one[None, None], (height, width), mode="bilinear")[0] for one in self.scene.word_maps
        ]
        return torch.cat([boxes, *(paint_heatmap(under, one) for one in maps)])

    def legend(self) -> str:
        names = [f"picture {i}: attention to {one.name}" for i, one in enumerate(self.plan.objects, 2)]
        return "\n".join(["picture 1: boxes and masks", *names])


class SceneSynthesis(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_SceneSynthesis",
            display_name="LLMGA Scene Synthesis",
            category="LLMGA/scene",
            description="Paints a planned scene with any SD1.5 or SDXL model, without further weights: each object "
            "alone and in its box, then all of them in one picture (RFNet). With an inversion the objects are put "
            "into a real photograph, which stays as it is elsewhere. Objects whose words and size did not change are "
            "not painted again.",
            search_aliases=[
                "RFNet",
                "layout to image",
                "box to image",
                "regional",
                "insert object",
                "BoxDiff",
                "LMD",
            ],
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                Scene.Input("scene", tooltip="From LLMGA Scene Plan or LLMGA Scene Assess."),
                seed_input("Same inputs and seed, same picture."),
                io.Int.Input(
                    "steps",
                    default=50,
                    optional=True,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"Steps of each object and of the scene, 1 to {MOST_STEPS}. With inversion: as many as it has.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    optional=True,
                    min=1.0,
                    max=30.0,
                    step=0.5,
                    tooltip="How strongly the prompts pull, 1 to 30.",
                ),
                _side("width"),
                _side("height"),
                io.Float.Input(
                    "guidance",
                    default=5.0,
                    optional=True,
                    min=0.0,
                    max=50.0,
                    step=0.5,
                    tooltip="How strongly attention is pulled into the boxes, 0 to 50; 0 does not guide, and is fast.",
                ),
                io.Float.Input(
                    "replaced",
                    default=0.5,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="For this part of the steps the objects stay what they were alone. 0 to 1; more keeps "
                    "more of them, less lets them meet.",
                ),
                io.Float.Input(
                    "suppression",
                    default=10.0,
                    optional=True,
                    min=0.0,
                    max=100.0,
                    step=1.0,
                    advanced=True,
                    tooltip="How strongly attention outside of the boxes is pushed down while the scene is put "
                    "together; 0 to 100.",
                ),
                io.Float.Input(
                    "keep_attention",
                    default=30.0,
                    optional=True,
                    min=0.0,
                    max=100.0,
                    step=1.0,
                    advanced=True,
                    tooltip="How strongly the attention within each box is held to what the object had alone; 0 to 100.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.35,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    advanced=True,
                    tooltip="The level of an object's attention from which a place counts as the object. 0 to 1; "
                    "lower takes more around it.",
                ),
                io.Int.Input(
                    "margin",
                    default=2,
                    optional=True,
                    min=0,
                    max=64,
                    advanced=True,
                    tooltip="With inversion: cells of 8 pixels around each object that may change too, for contours "
                    "and shadows.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    optional=True,
                    advanced=True,
                    tooltip=f"How prompts beyond {CONTENT} tokens are read, as in Long CLIP Encode.",
                ),
                io.Combo.Input(
                    "alone_at",
                    options=list(get_args(AlonePlace)),
                    default="middle",
                    optional=True,
                    advanced=True,
                    tooltip="Where an object is painted alone: in the middle, from where it is moved into its box; or in "
                    "its box at once, for descriptions that say where it stands.",
                ),
                io.String.Input(
                    "alone_negative",
                    default=ALONE_NEGATIVE,
                    optional=True,
                    advanced=True,
                    tooltip="Added to the negative prompt of each object while it is painted alone.",
                ),
                io.Combo.Input(
                    "layers",
                    options=list(get_args(SceneLayers)),
                    default="published",
                    optional=True,
                    advanced=True,
                    tooltip="Whose attention is guided and tells where an object is: RFNet's choice for SD1.5, or all "
                    "layers on the way up, for models trained with a token-in-box loss.",
                ),
                io.Combo.Input(
                    "phrase",
                    options=list(get_args(PhraseAttention)),
                    default="tokens",
                    optional=True,
                    advanced=True,
                    tooltip="How an object's name is read: its last token is its word, as RFNet does; or the sum of all, "
                    "for models that let another word point to the object.",
                ),
                Inversion.Input(
                    "inversion",
                    optional=True,
                    tooltip="A real photograph, from Invert: the objects are put into it, and outside of them it "
                    "stays bit for bit what its latent is. Width, height and steps are then its own.",
                ),
                io.Mask.Input(
                    "masks",
                    optional=True,
                    tooltip="Masks of the objects as they are painted alone, one for each in order, at any size; an "
                    "empty one is found by the node.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The painted scene."),
                io.Latent.Output(display_name="samples", tooltip="The same as a latent."),
                io.Mask.Output(display_name="masks", tooltip="One mask for each object, in its place."),
                io.Mask.Output(
                    display_name="changed",
                    tooltip="With inversion: where the photograph could change; else all of it.",
                ),
                PaintedScene.Output(display_name="painted", tooltip="For LLMGA Scene Preview."),
                io.String.Output(
                    display_name="report",
                    tooltip="What was painted again, how much work it was, and what was cut.",
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, model, clip, vae, scene, seed, inversion=None, masks=None, **others) -> io.NodeOutput:
        check.instance("scene", scene, ScenePlan, "LLMGA Scene Plan or LLMGA Scene Assess")
        check.integer("seed", seed, 0, 2**64 - 1)
        inputs = SynthesisInputs(**others)
        models = HostModels(model, clip, vae)
        size, settings, background, note = inputs.size, inputs.settings, None, inputs.note
        if inversion is not None:
            background, note = _photograph(models, inversion)
            size, settings = _size_of(background), replace(settings, steps=background.steps)
        session = models.session(inputs.layout)
        left_out = embeddings.notes(clip, {"scene": all_text(scene), "alone_negative": inputs.alone_negative})
        painter = SceneSession(session.runner, session.encoder, session.codec, _CACHE, models.identity)
        object_masks, unused = _object_masks(masks, [one.name for one in scene.objects], size)
        painted = painter.paint(
            scene,
            size,
            settings,
            seed=seed,
            masks=object_masks,
            background=background,
            on_step=models.on_step((len(scene.objects) + 1) * settings.steps),
        )
        image = models.codec.decode(painted.latent)
        samples = {"samples": models.codec.to_samples(painted.latent)}
        pixels = (image.shape[1], image.shape[2])
        report = "\n".join(filter(None, [note, *left_out, *unused, *painted.notes]))
        found = painted.masks if len(painted.masks) else torch.zeros(1, *size)
        return io.NodeOutput(
            image,
            samples,
            interpolate(found[:, None], pixels)[:, 0],
            interpolate(painted.region, pixels)[:, 0],
            PaintedSceneValue(scene, painted),
            report,
            ui=shown(image, report),
        )


def _side(name: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=512,
        optional=True,
        min=SMALLEST_SIDE,
        max=LARGEST_SIDE,
        step=8,
        tooltip=f"Pixels of the picture's {name}, {SMALLEST_SIDE} to {LARGEST_SIDE}; 512 for SD1.5, 1024 for SDXL.",
    )


def _photograph(models: HostModels, inversion: Any) -> tuple[Trajectory, str]:
    """The trajectory of the photograph, and notes: it was inverted with other weights, or with a ControlNet.

    Raises:
        ValueError: it was made with another kind of model, or is a batch.
    """
    check.instance("inversion", inversion, HostInversion, "Invert")
    models.session_of(inversion)
    notes = [models.note_on(inversion)]
    if inversion.control is not None:  # its hints are of the photograph, and would shape the objects after it
        notes.append("the ControlNet of the inversion plays no part in the objects and the scene")
    return inversion.trajectory, "\n".join(filter(None, notes))


def _size_of(trajectory: Trajectory) -> tuple[int, int]:
    height, width = trajectory.latents.shape[-2:]
    return height, width


def _object_masks(
    masks: Any, names: Sequence[str], size: tuple[int, int]
) -> tuple[Mapping[int, torch.Tensor], list[str]]:
    """The masks that cover a cell of the latent, by the number of their object and at the latent's size; and a note for each
    that holds something and covers none."""
    if masks is None:
        return {}, []
    given = check.mask("masks", masks)
    if len(given) != len(names):
        raise ValueError(
            f"masks holds {len(given)} masks for {len(names)} objects; give one for each, in order"
        )
    fitted = interpolate(given[:, None], size, mode="area")[:, 0]
    covers = (fitted > 0.5).flatten(1).any(1).tolist()
    notes = [
        f"masks: mask {i} ({name}) covers no cell of {CELL}×{CELL} pixels by more than half, so it is not used, and one is "
        "found in its place"
        for i, (name, one, used) in enumerate(zip(names, given, covers, strict=True), 1)
        if one.any() and not used
    ]
    return {i: one for i, one in enumerate(fitted) if covers[i]}, notes


NODES = [SceneSynthesis]
