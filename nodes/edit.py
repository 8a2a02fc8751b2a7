"""Inversion Edit: a real picture, changed as two prompts differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import torch
from comfy_api.latest import io

from ..llmga.edit.editor import Edited, edit
from ..llmga.edit.prompt_to_prompt import LocalBlend, Told, Words, control_of
from . import check, host, host_denoiser
from .edit_inputs import (
    LAYOUTS,
    MOST_STEPS,
    STEPS,
    TRAINED_CHUNKS,
    Inverted,
    Prompts,
    fitted_mask,
    longest,
    pictures_of,
)
from .inversion import MODEL_TOOLTIP, inverted_of, require_same_model
from .types import Inversion, PromptToPrompt

BLENDS = get_args(LocalBlend)
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
                    tooltip="What the picture shall show: the source prompt with few words changed. Not empty, up to "
                    "200,000 characters.",
                ),
                io.Float.Input(
                    "cfg",
                    default=7.5,
                    min=1.0,
                    max=MOST_CFG,
                    step=0.5,
                    tooltip="How strongly the target prompt pulls, 1 to 30. 1 takes half the time and changes little.",
                ),
                io.Float.Input(
                    "cross_replace",
                    default=0.4,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="For this part of the steps, words that both prompts share look where they looked in the "
                    "picture. 0 to 1; more keeps more.",
                ),
                io.Float.Input(
                    "self_replace",
                    default=0.6,
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
                    tooltip="auto: only the place of the words that differ may change (or of the options' blend_words). "
                    "off: the whole picture may, as for a new style.",
                ),
                io.Int.Input(
                    "steps",
                    default=STEPS,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"With image: how many steps to noise and back, 1 to {MOST_STEPS}. With inversion: as many as "
                    "it has.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
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
                    tooltip="What the edited part shall not show; mostly empty. Has no effect at cfg 1.",
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
    @host.guarded
    def execute(
        cls, model, clip, vae, target_prompt, cfg, cross_replace, self_replace, local_blend, steps, layout,
        source_prompt="", negative_prompt="", inversion=None, image=None, mask=None, options=None, control=None,
    ) -> io.NodeOutput:  # fmt: skip
        settings = {
            "cfg": check.number("cfg", cfg, 1, MOST_CFG),
            "cross_replace": check.number("cross_replace", cross_replace, 0, 1),
            "self_replace": check.number("self_replace", self_replace, 0, 1),
            "local_blend": check.choice("local_blend", local_blend, BLENDS),
        }
        options = Words() if options is None else options
        check.instance("options", options, Words, "Prompt-to-Prompt Options")
        wanted, models = wanted_prompt(target_prompt), (model, clip, vae)
        inversion, note = inversion_for(
            models,
            wanted,
            source_prompt,
            check.integer("steps", steps, 1, MOST_STEPS),
            layout,
            inversion,
            image,
            control,
        )
        mask = None if mask is None else fitted_mask(mask, image, inversion.pixels)
        result, told = edited_of(model, clip, inversion, wanted, negative_prompt, options, mask, settings)
        pictures, samples = pictures_of(model, vae, result.latent)
        changed = torch.nn.functional.interpolate(result.mask, pictures.shape[1:3])[:, 0]
        rows = f"{result.rows} rows through the UNet, and {inversion.trajectory.steps} a picture to invert it"
        report = "\n".join(filter(None, [note, *told.notes, rows]))
        return io.NodeOutput(pictures, samples, changed, report, ui={"text": [report]})


def inversion_for(
    models: tuple[Any, Any, Any],
    wanted: str,
    source_prompt: Any,
    steps: int,
    layout: Any,
    inversion: Any,
    image: Any,
    control: Any,
) -> tuple[Inverted, str]:
    """The inversion that is connected, or that of the image, its prompt as long as the wanted one; and a note on it."""
    if inversion is not None:
        return inversion, require_inversion(inversion, models[0], source_prompt, image, control)
    if image is None:
        raise ValueError("connect either inversion or image, got neither")
    host_denoiser.require_editable(models[0])
    chunks = longest(Prompts.of(models[1], layout, TRAINED_CHUNKS).read(wanted))
    return inverted_of(
        *models, source_prompt, steps, layout, TRAINED_CHUNKS, image=image, control=control, chunks=chunks
    )


def wanted_prompt(target_prompt: Any) -> str:
    """
    Raises:
        ValueError: it is no text, or empty.
    """
    if not check.text("target_prompt", target_prompt).strip():
        raise ValueError("target_prompt is empty; write what the picture shall show after the edit")
    return target_prompt


def require_inversion(inversion: Any, model: Any, source_prompt: Any, image: Any, control: Any) -> str:
    """A note on the inversion.

    Raises:
        ValueError: it is none, was made with another kind of model, or something else is connected that it has already.
    """
    check.instance("inversion", inversion, Inverted, "Invert")
    host_denoiser.require_editable(model)
    if image is not None or control is not None:
        given = "image" if image is not None else "control"
        raise ValueError(
            f"inversion and {given} are both connected; the inversion has its own: disconnect one"
        )
    if check.text("source_prompt", source_prompt).strip() not in ("", inversion.prompt.strip()):
        raise ValueError(
            "source_prompt differs from the prompt that the inversion was made with; leave it empty, or change it in Invert"
        )
    return require_same_model(inversion, model)


def edited_of(
    model: Any,
    clip: Any,
    inversion: Inverted,
    target_prompt: str,
    negative_prompt: str,
    options: Words,
    mask: torch.Tensor | None,
    settings: dict[str, Any],
) -> tuple[Edited, Told]:
    """Plan and encode the prompts at one length, and edit; without a wish, what was inverted."""
    prompts = Prompts.of(clip, inversion.layout, inversion.max_chunks)
    source, target = prompts.read(inversion.prompt), prompts.read(target_prompt)
    trajectory = inversion.trajectory
    height, width = trajectory.latents.shape[-2:]
    size = (height, width)
    cells = None if mask is None else torch.nn.functional.interpolate(mask[:, None], size, mode="area")
    # A cell is 8 pixels; one that is masked in part may change, or else the mask's edge would stay.
    cells = None if cells is None else (cells > 0).float()
    told = control_of(options, source["l"], target["l"], prompts.layout, size=size, mask=cells, **settings)
    if told.asks_for_nothing and not check.text("negative_prompt", negative_prompt).strip():
        kept = replace(told, notes=("no word differs and none has a weight: the picture is kept as it is",))
        return Edited(trajectory.latents[0], torch.zeros(len(trajectory.latents[0]), 1, *size), 0), kept
    chunks = longest(source, target)
    conditionings = {"source": prompts.encode(source, chunks), "target": prompts.encode(target, chunks)}
    negative = prompts.encode_negative(
        check.text("negative_prompt", negative_prompt), chunks, conditionings["target"]
    )
    conditionings = {
        name: host_denoiser.with_control(each, inversion.control)
        for name, each in {**conditionings, "negative": negative}.items()
    }
    on_step = host_denoiser.progress(model, trajectory.steps)

    def work(denoiser, contexts):
        source, target, negative = (contexts[name] for name in ("source", "target", "negative"))
        return edit(denoiser, trajectory, source, target, negative, told.control, on_step)

    return host_denoiser.run(model, conditionings, trajectory.latents.shape[1:], work), told


NODES = [InversionEdit]
