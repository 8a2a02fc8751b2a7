"""Invert and Attention Maps: DDIM inversion of a picture, and heat maps of the words of its prompt."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from ..llmga.edit.heatmaps import paint_heatmap
from ..llmga.edit.prompt_to_prompt import read_phrases
from ..llmga.edit.session import STEPS
from ..llmga.text.chunks import MAX_CHUNKS, TRAINED_CHUNKS
from . import check, embeddings, host
from .edit_inputs import MODEL_TOOLTIP, MOST_STEPS, HostModels, latents_of
from .prompt_encoder import LAYOUTS
from .types import Inversion

BLOCKS = ("all", "up blocks")


class Invert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_Invert",
            display_name="LLMGA Invert",
            category="LLMGA/edit",
            description="Finds the noise that a real picture comes from (DDIM inversion), and keeps the whole way, so that "
            "Inversion Edit can change the picture without losing it. Its result stays cached: edit again and again "
            "without inverting again.",
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
                    optional=True,
                    min=1,
                    max=MOST_STEPS,
                    tooltip=f"How many steps to noise, 1 to {MOST_STEPS}; the edit takes as many. 50 is what the method was "
                    "made with.",
                ),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="llmga",
                    optional=True,
                    advanced=True,
                    tooltip="How prompts beyond 75 tokens are read, as in Long CLIP Encode. llmga: best for LLMGA's own "
                    "UNets. llmga_lpw: every chunk with a start and an end, as other SD1.5 checkpoints know it. Shorter "
                    "prompts are the same in both.",
                ),
                io.Int.Input(
                    "max_chunks",
                    default=TRAINED_CHUNKS,
                    optional=True,
                    advanced=True,
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
    def fingerprint_inputs(cls, **inputs) -> str:
        return embeddings.fingerprint(inputs)

    @classmethod
    @host.guarded
    def execute(
        cls, model, clip, vae, source_prompt, steps, layout, max_chunks, image=None, latent=None, control=None
    ) -> io.NodeOutput:
        check.integer("steps", steps, 1, MOST_STEPS)
        models = HostModels(model, clip, vae)
        session = models.session(layout, max_chunks, control)
        prompt = check.text("source_prompt", source_prompt)
        left_out = embeddings.notes(clip, {"source_prompt": prompt})
        latents, note = latents_of(models.codec, image, latent)
        inversion = session.invert(latents, prompt, steps, on_step=models.on_step(steps))
        pictures = models.codec.decode(inversion.trajectory.latents[0])
        report = "\n".join([note, inversion.report, *left_out])
        return io.NodeOutput(models.made(inversion, control), pictures, report, ui=shown(pictures, report))


class AttentionMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_AttentionMaps",
            display_name="LLMGA Attention Maps",
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
                    optional=True,
                    tooltip="Words or phrases of the source prompt, between commas; case, punctuation and plural do not "
                    "matter. A phrase that occurs several times has one map.",
                ),
                io.Int.Input(
                    "steps",
                    default=10,
                    optional=True,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="How many steps of the inversion are looked at, evenly spread; 1 to all of them.",
                ),
                io.Combo.Input(
                    "blocks",
                    options=list(BLOCKS),
                    default="all",
                    optional=True,
                    advanced=True,
                    tooltip="Which attention is added up: that of all of the UNet, or of its up blocks alone, for a model "
                    "whose maps were trained to find places.",
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
    def execute(cls, model, clip, vae, inversion, words, steps, blocks="all") -> io.NodeOutput:
        check.integer("steps", steps, 1, MOST_STEPS)
        check.choice("blocks", blocks, BLOCKS)
        models = HostModels(model, clip, vae)
        session = models.session_of(inversion)
        phrases = read_phrases(check.text("words", words))
        maps = session.word_maps(inversion, phrases, steps, models.on_step(steps), blocks == "up blocks")
        pictures = models.codec.decode(inversion.trajectory.latents[0])
        heat = maps.heat.flatten(0, 1)  # (words, pictures, h, w) -> (words · pictures, h, w)
        painted = paint_heatmap(pictures.repeat(len(maps.heat), 1, 1, 1), heat)
        grown = torch.nn.functional.interpolate(heat[:, None], pictures.shape[1:3], mode="bilinear")[:, 0]
        return io.NodeOutput(painted, grown, maps.report, ui=shown(painted, maps.report))


def shown(pictures: torch.Tensor, text: str) -> dict[str, Any]:
    """A node's ``ui``: its pictures below it, and its report in the history."""
    return {**ui.PreviewImage(pictures).as_dict(), "text": [text]}


NODES = [Invert, AttentionMaps]
