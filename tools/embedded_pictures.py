"""The embedded engine's nodes that edit, inpaint and restore: each is one or two calls of ``llmga``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from llmga.chat import Conversation, Picture, Sampling
from llmga.chat.batch import Failed, respond_each
from llmga.chat.engines.base import THOUGHT_TOKENS
from llmga.edit import EditSession, EditSettings, Inversion, PromptToPromptOptions
from llmga.edit.fit import fit_edit_mask, fit_image
from llmga.edit.heatmaps import paint_heatmap
from llmga.edit.instruction import rewrite
from llmga.edit.prompt_to_prompt import read_phrases, read_spans, read_weights
from llmga.edit.session import DiffusersCodec
from llmga.images import channels_first, channels_last, fit_mask, to_pil
from llmga.paint.crop import crop, stitch
from llmga.paint.keep import keep_rest
from llmga.paint.prepare import draw_masks, harden
from llmga.restore import load_restorer, restore
from llmga.restore.colour import match_colour
from llmga.restore.seam import seam
from llmga.text import longest

from .embedded_step import Conditioned, Many, Result, Step

RING = 16
"""Pixels around a hole that a colour correction looks at, as in DiffRIR Restore."""


def chat_per_picture(
    step: Step, engine, image, instruction, task, seed, temperature, max_new_tokens, policy, **more
) -> Result:
    replies = respond_each(
        engine,
        Conversation(),
        task=task,
        instruction=instruction,
        pictures=[Picture.from_pil(picture) for picture in to_pil(image)],
        sampling=Sampling(seed, temperature, max_new_tokens=max_new_tokens),
        policy=policy,
        on_text=step.on_text,
        language=more.get("language", "en"),
    )
    good = [reply for reply in replies if not isinstance(reply, Failed)]
    failed = "\n".join(reply.reason for reply in replies if isinstance(reply, Failed))
    texts, prompts = [reply.text for reply in good], [reply.prompt for reply in good]
    return (Many(texts), Many(prompts), failed), {"text": [*texts, *filter(None, [failed])]}


def batch_images(step: Step, **images: torch.Tensor) -> Result:
    return (torch.cat(list(images.values())),), {}


def edit_instruction(
    step: Step,
    engine,
    instruction,
    seed,
    temperature,
    max_new_tokens,
    policy,
    image=None,
    source_prompt="",
    history=None,
    thinking=False,
    thought_tokens=THOUGHT_TOKENS,
) -> Result:
    edit = rewrite(
        engine,
        history or Conversation(),
        instruction,
        picture=None if image is None else Picture.from_pil(to_pil(image[:1])[0]),
        source=source_prompt,
        sampling=Sampling(
            seed,
            temperature,
            max_new_tokens=max_new_tokens,
            thinking=thinking,
            thought_tokens=thought_tokens,
        ),
        policy=policy,
        on_text=step.on_text,
    )
    results = (edit.source, edit.target, edit.conversation, edit.report(), edit.thought)
    return results, {"text": [edit.target]}


@dataclass(frozen=True)
class Inverted:
    """An inversion and the session that made it."""

    session: EditSession[Any]
    inversion: Inversion


def invert(step: Step, model, clip, vae, source_prompt, steps, layout, max_chunks, image, **_: Any) -> Result:
    session = EditSession.from_pipeline(clip, layout, max_chunks)
    codec = DiffusersCodec(vae)
    inversion = session.invert(codec.encode(fit_image(image)[0]), source_prompt, steps)
    return (
        Inverted(session, inversion),
        codec.decode(inversion.trajectory.latents[0]),
        inversion.report,
    ), {}


def inversion_edit(step: Step, model, clip, vae, target_prompt, **inputs: Any) -> Result:
    given: Inverted | None = inputs.get("inversion")
    image: Any = inputs.get("image")
    codec = DiffusersCodec(vae)
    if given is None:
        session = EditSession.from_pipeline(clip, inputs["layout"])
        chunks = longest(session.encoder.plan(target_prompt))
        latent = codec.encode(fit_image(image)[0])
        inversion = session.invert(latent, inputs["source_prompt"], inputs["steps"], min_chunks=chunks)
    else:
        session, inversion = given.session, given.inversion
    mask = inputs.get("mask")
    result = session.edit(
        inversion,
        target_prompt,
        EditSettings(
            cfg=inputs["cfg"],
            cross_replace=inputs["cross_replace"],
            self_replace=inputs["self_replace"],
            local_blend=inputs["local_blend"],
            options=inputs.get("options") or PromptToPromptOptions(),
        ),
        negative_prompt=inputs["negative_prompt"],
        mask=None if mask is None or not mask.any() else fit_edit_mask(mask, inversion.pixels),
    )
    picture = codec.decode(result.edited.latent)
    changed = F.interpolate(result.edited.mask, picture.shape[1:3])[:, 0]
    return (picture, result.edited.latent, changed, "\n".join(result.notes)), {}


def edit_options(step: Step, word_weights, word_steps, blend_words, subtract_words, **more: Any) -> Result:
    options = PromptToPromptOptions(
        weights=read_weights(word_weights),
        spans=read_spans(word_steps),
        blend=read_phrases(blend_words),
        subtract=read_phrases(subtract_words),
        threshold=more["blend_threshold"],
        start=more["blend_start"],
        mode=more["mode"],
        self_max=more["self_max"],
        alignment=more["alignment"],
    )
    return (options,), {}


def attention_maps(step: Step, model, clip, vae, inversion: Inverted, words: str, steps: int) -> Result:
    maps = inversion.session.word_maps(inversion.inversion, read_phrases(words), steps)
    pictures = DiffusersCodec(vae).decode(inversion.inversion.trajectory.latents[0])
    heat = maps.heat.flatten(0, 1)  # (words, pictures, h, w) -> (words · pictures, h, w)
    return (paint_heatmap(pictures.repeat(len(maps.heat), 1, 1, 1), heat), heat, maps.report), {}


def prepare_mask(step: Step, image, source, grow, seed, mask: Any = None) -> Result:
    if source != "given":
        drawn = draw_masks(source, len(image), image.shape[1], image.shape[2], seed)
    else:
        drawn = fit_mask(mask, image)
    return (harden(drawn, grow), ""), {}


def pad_for_outpainting(step: Step, image, left, top, right, bottom, feathering) -> Result:
    """ComfyUI's *Pad Image for Outpainting* without feathering: grey new sides, and where they are."""
    sides = (left, right, top, bottom)
    padded = F.pad(channels_first(image), sides, value=0.5)
    mask = F.pad(torch.zeros(image.shape[:3]), sides, value=1.0)
    return (channels_last(padded), mask), {}


def crop_for_painting(step: Step, image, mask, width, height, context, enlarge) -> Result:
    return crop(image, mask, width, height, context, enlarge), {}


def stitch_painting(step: Step, crop, painted, blend) -> Result:
    return (stitch(crop, painted, blend),), {}


def unet_loader(step: Step, unet: str, **_: Any) -> Result:
    from miniworld.models.painter import load_unet

    if unet not in step.cache:
        step.cache[unet] = load_unet(step.workspace.models / "diffusion_models" / unet / "unet")
    return (step.cache[unet], f"{unet}: a UNet of {step.cache[unet].config.in_channels} channels"), {}


@torch.inference_mode()
def inpaint_conditioning(step: Step, positive, negative, vae, pixels, mask, noise_mask) -> Result:
    """What an SD1.5-inpainting UNet sees beside its latent: the mask, and the picture with grey in its hole."""
    holes = mask[:, None].round()
    image = (channels_first(pixels) - 0.5) * (1 - holes) + 0.5
    latent = DiffusersCodec(vae).encode(channels_last(image))
    beside = torch.cat([F.interpolate(holes, latent.shape[-2:]), latent], 1)
    seen = (Conditioned(positive, beside), Conditioned(negative, beside))
    return (*seen, torch.zeros_like(latent)), {}


def diffrir_loader(step: Step, restorer_file: str, precision: str) -> Result:
    path: Path = step.workspace.models / "diffrir" / restorer_file
    loaded = load_restorer(path, dtype=torch.float32)
    return (loaded.restorer, f"DiffRIR x{loaded.scale}"), {}


def diffrir_restore(step: Step, image, reference, mask, method, seed, blend, restorer: Any = None) -> Result:
    painted, original, holes = channels_first(image), channels_first(reference), mask[:, None]
    if method == "DiffRIR":
        result, readout = (
            restore(restorer, painted, original, holes, seed, blend=blend),
            "restored by DiffRIR",
        )
    else:
        result = match_colour(painted, original, holes, RING).image
        readout = "colours matched around the hole"
    difference = ((result - torch.lerp(original, painted, holes)).abs() * 4).clamp(0, 1)
    return (channels_last(result), channels_last(difference), readout), {"text": [readout]}


def seam_report(step: Step, image, mask, band) -> Result:
    found = seam(channels_first(image), fit_mask(mask, image)[:, None], band)
    means = [one.disparity for one in found if one.disparity is not None]
    readout = "; ".join(
        f"texture {one.texture:.4f}, brightness {one.brightness:.4f}, contrast {one.contrast:.4f}"
        for one in means
    )
    picture = channels_last(torch.stack([one.picture for one in found]))
    return (None, None, None, picture, readout), {}


def keep_the_rest(
    step: Step, original, edited, grow, feather, align, match_colours, mask: Any = None
) -> Result:
    found = keep_rest(
        original, edited, mask, grow=grow, feather=feather, match_alignment=align, match_colours=match_colours
    )
    readout = "\n".join(one.report() for one in found)
    pictures = (torch.stack([getattr(one, name) for one in found]) for name in ("image", "mask", "matched"))
    return (*pictures, readout), {"text": [readout]}


def preview_image(step: Step, images: torch.Tensor) -> Result:
    return (), {}


def preview_mask(step: Step, mask: torch.Tensor) -> Result:
    return (), {}


PICTURE_NODES: dict[str, Callable[..., Result]] = {
    "LLMGA_ChatPerPicture": chat_per_picture,
    "BatchImagesNode": batch_images,
    "LLMGA_EditInstruction": edit_instruction,
    "LLMGA_Invert": invert,
    "LLMGA_InversionEdit": inversion_edit,
    "LLMGA_PromptToPromptOptions": edit_options,
    "LLMGA_AttentionMaps": attention_maps,
    "LLMGA_PrepareMask": prepare_mask,
    "ImagePadForOutpaint": pad_for_outpainting,
    "LLMGA_CropForPainting": crop_for_painting,
    "LLMGA_StitchPainting": stitch_painting,
    "LLMGA_UNetLoader": unet_loader,
    "InpaintModelConditioning": inpaint_conditioning,
    "LLMGA_DiffRIRLoader": diffrir_loader,
    "LLMGA_DiffRIRRestore": diffrir_restore,
    "LLMGA_SeamReport": seam_report,
    "LLMGA_KeepTheRest": keep_the_rest,
    "PreviewImage": preview_image,
    "MaskPreview": preview_mask,
}
