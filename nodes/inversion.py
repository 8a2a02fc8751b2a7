"""Invert and Attention Maps: a picture's way to noise, and where the words of its prompt look on it."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..llmga.edit.heatmaps import paint, word_maps
from ..llmga.edit.inversion import invert
from ..llmga.edit.phrases import locate
from ..llmga.edit.prompt_to_prompt import read_phrases
from ..llmga.text import readout
from . import check, host, host_denoiser
from .edit_inputs import (
    LAYOUTS,
    MAX_CHUNKS,
    MOST_STEPS,
    STEPS,
    TRAINED_CHUNKS,
    Inverted,
    Prompts,
    latents_of,
    longest,
    pictures_of,
)
from .types import Inversion

MODEL_TOOLTIP = (
    "An SD1.5 or SDXL model that predicts noise (eps or v), with its LoRAs. Not inpainting, flow or compiled models, nor "
    "IPAdapter, SAG, PAG, HyperTile, ToMe."
)


class Invert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_Invert",
            display_name="Invert",
            category="LLMGA/edit",
            description="Finds the noise that a real picture comes from (DDIM inversion), and keeps the whole way, so that "
            "Inversion Edit can change the picture without losing it. Its result stays cached: edit again and again "
            "without inverting anew.",
            search_aliases=["DDIM inversion", "unsampler", "direct inversion", "noise from image", "reverse"],
            inputs=[
                io.Model.Input("model", tooltip=MODEL_TOOLTIP),
                io.Clip.Input("clip", tooltip="The text encoder of the same checkpoint."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.String.Input(
                    "source_prompt",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="What the picture shows, in a sentence or many; LLMGA Edit Instruction and LLMGA Chat write it. "
                    "Up to 200,000 characters.",
                ),
                io.Int.Input(
                    "steps",
                    default=STEPS,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"How many steps to noise, 1 to {MOST_STEPS}; the edit takes as many. 50 is what the method was "
                    "made with.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    tooltip="How prompts beyond 75 tokens are read, as in Long CLIP Encode. llmga: best for LLMGA's own "
                    "UNets. llmga_lpw: every chunk with a start and an end, as other SD1.5 checkpoints know it. Shorter "
                    "prompts are the same in both.",
                ),
                io.Int.Input(
                    "max_chunks",
                    default=TRAINED_CHUNKS,
                    min=1,
                    max=MAX_CHUNKS,
                    tooltip=f"Text beyond this many chunks of 75 tokens is left out; 1 to {MAX_CHUNKS}.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture, or a batch of one size. Alpha is dropped, sides are cut to multiples of 8. "
                    "Connect this or latent.",
                ),
                io.Latent.Input(
                    "latent",
                    optional=True,
                    tooltip="The picture as a latent, instead of image; as VAE Encode gives it.",
                ),
                io.Conditioning.Input(
                    "control",
                    optional=True,
                    tooltip="From Apply ControlNet: its ControlNet acts while inverting and editing. Its prompt plays no "
                    "part.",
                ),
            ],
            outputs=[
                Inversion.Output(display_name="inversion", tooltip="For Inversion Edit and Attention Maps."),
                io.Image.Output(
                    display_name="reconstruction",
                    tooltip="What an edit that changes nothing gives: the picture, through the VAE and back.",
                ),
                io.String.Output(display_name="report", tooltip="Size, steps, and how the prompt was read."),
            ],
        )

    @classmethod
    @host.guarded
    def execute(
        cls, model, clip, vae, source_prompt, steps, layout, max_chunks, image=None, latent=None, control=None
    ) -> io.NodeOutput:
        check.integer("steps", steps, 1, MOST_STEPS)
        inverted, said = inverted_of(
            model,
            clip,
            vae,
            source_prompt,
            steps,
            layout,
            max_chunks,
            image=image,
            latent=latent,
            control=control,
        )
        pictures, _ = pictures_of(model, vae, inverted.trajectory.latents[0])
        return io.NodeOutput(inverted, pictures, said, ui=shown(pictures, said))


def inverted_of(
    model,
    clip,
    vae,
    source_prompt,
    steps,
    layout,
    max_chunks,
    *,
    image=None,
    latent=None,
    control=None,
    chunks=1,
) -> tuple[Inverted, str]:
    """Invert an IMAGE or a LATENT; ``chunks`` pads the prompt, so that it is read as beside a longer one."""
    host_denoiser.require_editable(model)
    prompts = Prompts.of(clip, layout, max_chunks)
    plans = prompts.read(check.text("source_prompt", source_prompt))
    chunks = max(chunks, longest(plans))
    clean, said = latents_of(model, vae, image, latent)
    told = {"source": host_denoiser.with_control(prompts.encode(plans, chunks), control)}
    on_step = host_denoiser.progress(model, steps)
    trajectory = host_denoiser.run(
        model,
        told,
        clean.shape,
        lambda denoiser, contexts: invert(denoiser, clean, contexts["source"], steps, on_step),
    )
    made_by = host_denoiser.identity(model)
    inverted = Inverted(trajectory, source_prompt, prompts.layout, max_chunks, control, made_by)
    empty = (
        "" if source_prompt.strip() else "\nsource_prompt is empty: no word can be kept or changed by an edit"
    )
    return inverted, f"{said}\n{steps} steps\nsource prompt: {readout(plans['l'])}{empty}"


def require_same_model(inversion, model) -> str:
    """A note where the weights are others.

    Raises:
        ValueError: the model is of another kind.
    """
    made_by, this = inversion.made_by, host_denoiser.identity(model)
    if made_by.kind != this.kind:
        raise ValueError(
            "inversion was made with another kind of model than the one in 'model'; connect the MODEL that Invert has"
        )
    same = made_by.weights == this.weights
    return (
        ""
        if same
        else "the inversion is of another checkpoint or other LoRAs than model: expect more to change"
    )


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_AttentionMaps",
            display_name="Attention Maps",
            category="LLMGA/edit",
            description="Shows where the model sees each word of the source prompt in an inverted picture: one heat map a "
            "word. What is hot is what an edit of that word will change.",
            search_aliases=["DAAM", "heatmap", "cross attention", "attention visualisation", "word map"],
            inputs=[
                io.Model.Input("model", tooltip="The model that Invert has."),
                io.Clip.Input("clip", tooltip="The text encoder that Invert has."),
                io.Vae.Input("vae", tooltip="The VAE that Invert has; it makes the picture under the maps."),
                Inversion.Input("inversion", tooltip="From Invert."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Words or phrases of the source prompt, between commas; case, punctuation and plural do not "
                    "matter. A phrase that occurs several times has one map.",
                ),
                io.Int.Input(
                    "steps",
                    default=10,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="How many steps of the inversion are looked at, evenly spread; 1 to all of them.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="maps",
                    tooltip="The picture in grey under each word's heat, in the order of the words.",
                ),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="The same maps, 0 to 1, at the size of the picture; threshold one to edit with a mask.",
                ),
                io.String.Output(
                    display_name="report", tooltip="Which map is which word, and words not found."
                ),
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, model, clip, vae, inversion, words, steps) -> io.NodeOutput:
        check.instance("inversion", inversion, Inverted, "Invert")
        check.integer("steps", steps, 1, MOST_STEPS)
        host_denoiser.require_editable(model)
        require_same_model(inversion, model)
        prompts = Prompts.of(clip, inversion.layout, inversion.max_chunks)
        plans = prompts.read(inversion.prompt)
        found, said = located(plans["l"], check.text("words", words), prompts.layout)
        told = {
            "source": host_denoiser.with_control(prompts.encode(plans, longest(plans)), inversion.control)
        }
        trajectory, on_step = inversion.trajectory, host_denoiser.progress(model, steps)
        heat = host_denoiser.run(
            model,
            told,
            trajectory.latents.shape[1:],
            lambda denoiser, contexts: word_maps(
                denoiser, trajectory, contexts["source"], found, steps, on_step
            ),
        ).flatten(0, 1)  # (words · pictures, h, w)
        pictures, _ = pictures_of(model, vae, trajectory.latents[0])
        painted = paint(pictures.repeat(len(found), 1, 1, 1), heat)
        grown = torch.nn.functional.interpolate(heat[:, None], pictures.shape[1:3], mode="bilinear")[:, 0]
        return io.NodeOutput(painted, grown, said, ui=shown(painted, said))


def located(plan, words: str, layout) -> tuple[list[list[int]], str]:
    """The token positions of each word that occurs, and a report of all.

    Raises:
        ValueError: none of them occurs.
    """
    phrases = read_phrases(words)
    places = {phrase: [at for each in locate(plan, phrase, layout) for at in each] for phrase in phrases}
    found = {phrase: at for phrase, at in places.items() if at}
    missing = [phrase for phrase in places if phrase not in found]
    if not found:
        raise ValueError(
            f"words must name words of the source prompt, got {words[:60]!r}, none of which occurs in it"
        )
    lines = [f"map {i}: {phrase} ({len(at)} tokens)" for i, (phrase, at) in enumerate(found.items(), 1)]
    return list(found.values()), "\n".join(
        [*lines, *(f"{phrase!r} does not occur in the source prompt" for phrase in missing)]
    )


def shown(pictures: torch.Tensor, text: str) -> dict[str, Any]:
    """A node's ``ui``: its pictures below it, and its report for who reads the history."""
    return {**ui.PreviewImage(pictures).as_dict(), "text": [text]}


NODES = [Invert, AttentionMaps]
