"""Inversion Edit: change a real picture as its prompt is changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from comfy_api.latest import io

from ..llmga.edit import EditSettings, PromptToPromptOptions
from ..llmga.edit.prompt_to_prompt import BlendOption
from ..llmga.edit.session import STEPS
from ..llmga.text import longest
from . import check, embeddings, host
from .edit_inputs import (
    MODEL_TOOLTIP,
    MOST_STEPS,
    HostInversion,
    HostModels,
    check_target_prompt,
    fitted_mask,
    latents_of,
    notes_on_empty,
)
from .prompt_encoder import LAYOUTS
from .types import Inversion, PromptToPrompt

BLENDS = get_args(BlendOption)
MOST_CFG = 30.0


class InversionEdit(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_InversionEdit",
            display_name="Inversion Edit",
            category="LLMGA/edit",
            description="Changes a real picture as its prompt is changed, and keeps the rest: Direct Inversion with "
            "prompt-to-prompt. Works on any SD1.5 or SDXL model, without further weights. The target prompt should be the "
            "source prompt with few words changed.",
            search_aliases=[
                "prompt-to-prompt",
                "p2p",
                "edit image",
                "image edit",
                "change object",
                "direct inversion",
                "instruct",
                "pnp",
                "DDIM",
            ],
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.String.Input(
                    "target_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the picture should show: the source prompt with few words changed. Not empty, up to "
                    "200,000 characters.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    optional=True,
                    min=1.0,
                    max=MOST_CFG,
                    step=0.5,
                    tooltip="How strongly the target prompt pulls, 1 to 30. 1 takes half the time and changes little.",
                ),
                io.Float.Input(
                    "cross_replace",
                    default=0.4,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="For this part of the steps, words that both prompts share look where they looked in the "
                    "picture. 0 to 1; more keeps more.",
                ),
                io.Float.Input(
                    "self_replace",
                    default=0.6,
                    optional=True,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="For this part of the steps, the picture's layout (self-attention) is kept. 0 to 1; lower it "
                    "to change a shape or to add something.",
                ),
                io.Combo.Input(
                    "local_blend",
                    options=list(BLENDS),
                    default="auto",
                    optional=True,
                    tooltip="auto: only the place of the words that differ may change (or of the options' blend_words). "
                    "off: the whole picture may, as for a new style. up blocks: as auto, by the maps of the UNet's up "
                    "blocks alone, for a model whose maps were trained to find places.",
                ),
                io.Int.Input(
                    "steps",
                    default=STEPS,
                    optional=True,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"With image: how many steps to noise and back, 1 to {MOST_STEPS}. With inversion: as many as "
                    "it has.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    optional=True,
                    advanced=True,
                    tooltip="With image: how prompts beyond 75 tokens are read, as in Long CLIP Encode. With inversion: as "
                    "it has.",
                ),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    default="",
                    tooltip="With image: what the picture shows now. Leave it empty with inversion, which knows it.",
                ),
                io.String.Input(
                    "negative_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    optional=True,
                    default="",
                    tooltip="What the edited part should not show; mostly empty. Has no effect at cfg 1.",
                ),
                Inversion.Input(
                    "inversion",
                    optional=True,
                    tooltip="From Invert, which then need not run again for the next edit. Connect this or image.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture, inverted here; or a batch of one size. Alpha is dropped, sides are cut to "
                    "multiples of 8. Connect this or inversion.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="1 = may change; elsewhere the picture stays as it is. Any size; one mask or one for each "
                    "picture; an empty mask counts as none. With local_blend both must allow a change.",
                ),
                PromptToPrompt.Input(
                    "options",
                    optional=True,
                    tooltip="From Prompt-to-Prompt Options: weights and places of words.",
                ),
                io.Conditioning.Input(
                    "control",
                    optional=True,
                    tooltip="With image: from Apply ControlNet; its ControlNet acts on the edit, its prompt plays no part. "
                    "With inversion: as it has.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="edited", tooltip="The edited picture."),
                io.Latent.Output(
                    display_name="samples", tooltip="The same as a latent, for a second edit or upscaling."
                ),
                io.Mask.Output(
                    display_name="changed", tooltip="Where it could change, 1 at the size of the picture."
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="Which words were carried over, which were not found, and what the edit took.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        return embeddings.fingerprint(inputs)

    @classmethod
    @host.guarded
    def execute(cls, model, clip, vae, target_prompt, **others) -> io.NodeOutput:
        inputs = EditInputs(target_prompt, **others)
        models = HostModels(model, clip, vae)
        prompts = {"target_prompt": target_prompt, "negative_prompt": inputs.negative_prompt}
        inversion, note = inputs.inversion, ""
        if inversion is None:
            prompts["source_prompt"] = inputs.source_prompt
        left_out = embeddings.notes(clip, prompts)
        if inversion is None:
            inversion, note = inverted(models, inputs)
        session = models.session_of(inversion)
        mask = inputs.fitted_mask(inversion.pixels, inversion.trajectory.latents.shape[1])
        left_out += notes_on_empty(inputs.mask, mask)
        result = session.edit(
            inversion,
            target_prompt,
            inputs.settings,
            negative_prompt=inputs.negative_prompt,
            mask=mask,
            on_step=models.on_step(inversion.trajectory.steps),
        )
        pictures = models.codec.decode(result.edited.latent)
        samples = {"samples": models.codec.to_samples(result.edited.latent)}
        changed = torch.nn.functional.interpolate(result.edited.mask, pictures.shape[1:3])[:, 0]
        steps = inversion.trajectory.steps
        rows = f"{result.edited.rows} rows through the UNet, and {steps} a picture to invert it"
        report = "\n".join(filter(None, [note or models.note_on(inversion), *left_out, *result.notes, rows]))
        return io.NodeOutput(pictures, samples, changed, report, ui={"text": [report]})


@dataclass(frozen=True)
class EditInputs:
    """The inputs of the node but its models, checked.

    Raises:
        ValueError: an input is of another kind, out of range, or missing.
    """

    target_prompt: Any
    cfg: Any
    cross_replace: Any
    self_replace: Any
    local_blend: Any
    steps: Any
    layout: Any
    source_prompt: Any = ""
    negative_prompt: Any = ""
    inversion: Any = None
    image: Any = None
    mask: Any = None
    options: Any = None
    control: Any = None

    def __post_init__(self) -> None:
        check.number("cfg", self.cfg, 1, MOST_CFG)
        check.number("cross_replace", self.cross_replace, 0, 1)
        check.number("self_replace", self.self_replace, 0, 1)
        check.choice("local_blend", self.local_blend, BLENDS)
        if self.options is not None:
            check.instance("options", self.options, PromptToPromptOptions, "Prompt-to-Prompt Options")
        check_target_prompt(self.target_prompt)
        for name in ("negative_prompt", "source_prompt"):
            object.__setattr__(self, name, check.optional_text(name, getattr(self, name)))
        check.integer("steps", self.steps, 1, MOST_STEPS)
        self._check_pictures()

    @property
    def settings(self) -> EditSettings:
        return EditSettings(
            cfg=float(self.cfg),
            cross_replace=float(self.cross_replace),
            self_replace=float(self.self_replace),
            local_blend=self.local_blend,
            options=self.options or PromptToPromptOptions(),
        )

    def _check_pictures(self) -> None:
        """Either an image, or an inversion with nothing else that it has already."""
        if self.inversion is None:
            if self.image is None:
                raise ValueError("connect either inversion or image, got neither")
            return
        check.instance("inversion", self.inversion, HostInversion, "Invert")
        if self.image is not None or self.control is not None:
            given = "image" if self.image is not None else "control"
            raise ValueError(
                f"inversion and {given} are both connected; the inversion has its own: disconnect one"
            )
        if self.source_prompt.strip() not in ("", self.inversion.prompt.strip()):
            raise ValueError(
                "source_prompt differs from the prompt that the inversion was made with; leave it empty, or change it in "
                "Invert"
            )

    def fitted_mask(self, pixels: tuple[int, int], pictures: int) -> torch.Tensor | None:
        """``edit_inputs.fitted_mask`` for the pictures of the image or of the inversion."""
        socket = "image" if self.inversion is None else "inversion"
        return fitted_mask(self.mask, pictures, pixels, socket=socket)


def inverted(models: HostModels, inputs: EditInputs) -> tuple[HostInversion, str]:
    """The image, inverted with a source prompt as long as the target prompt, and a note on it."""
    session = models.session(inputs.layout, control=inputs.control)
    chunks = longest(session.encoder.plan(inputs.target_prompt))
    latents, note = latents_of(models.codec, inputs.image, None)
    inversion = session.invert(
        latents, inputs.source_prompt, inputs.steps, min_chunks=chunks, on_step=models.on_step(inputs.steps)
    )
    return models.made(inversion, inputs.control), f"{note}\n{inversion.report}"


NODES = [InversionEdit]
