"""Nodes of the embedded engine for ControlNet and GILL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from llmga.chat import Conversation, Picture
from llmga.data.edges import canny
from llmga.gill.transcript import prompt_of
from llmga.images import to_pil
from llmga.text import encode_sd15

from .embedded_step import Conditioned, Result, Step

OWN = "the language model's own"
"""The choice of GILL Loader's *vision* that the miniature makes."""


def edges(step: Step, image: torch.Tensor, low_threshold: float, high_threshold: float) -> Result:
    return (
        canny(image.movedim(-1, 1), low_threshold, high_threshold).expand(-1, 3, -1, -1).movedim(1, -1),
    ), {}


def load_controlnet(step: Step, control_net_name: str) -> Result:
    from miniworld.models import controlnet

    if control_net_name not in step.cache:
        path = step.workspace.models / "controlnet" / control_net_name
        step.cache[control_net_name] = controlnet.load_controlnet(path)
    return (step.cache[control_net_name],), {}


def apply_controlnet(
    step: Step, positive, negative, control_net, image, strength, start_percent, end_percent, vae=None
) -> Result:
    """From the first step to the last, as the shipped workflow has it."""
    from miniworld.models.sampling import Control

    if (start_percent, end_percent) != (0.0, 1.0):
        raise ValueError(
            "the embedded engine applies a ControlNet to all steps: start_percent 0, end_percent 1"
        )
    control = Control(control_net, image.movedim(-1, 1), strength)
    both = (one if isinstance(one, Conditioned) else Conditioned(one) for one in (positive, negative))
    return tuple(replace(one, control=control) for one in both), {}


def clip_text_encode(step: Step, clip: Any, text: str) -> Result:
    return (encode_sd15(clip.tokenizer, clip.text_encoder, text, max_chunks=1),), {}


def gill_loader(step: Step, language: str, gill: str, vision: str, decision: str, precision: str) -> Result:
    from llmga.gill import GILL, load_decision, load_language, load_parts, load_vision

    if vision != OWN:
        raise ValueError(f"the embedded engine takes {OWN!r} as GILL's vision, got {vision!r}")
    key = f"{language} {gill} {decision}"
    if key not in step.cache:
        folder, files = step.workspace.models / "LLM" / language, step.workspace.models / "gill"
        step.cache[key] = GILL(
            load_language(folder, torch.float32),
            load_vision(folder, torch.float32),
            load_parts(files / gill),
            load_decision(files / decision),
        )
    return (step.cache[key],), {}


def gill_chat(
    step: Step,
    gill,
    message,
    picture,
    transcript,
    seed,
    temperature,
    max_tokens,
    picture_scale,
    decide,
    image=None,
    history=None,
    matches=1,
    top_p=1.0,
    min_tokens=0,
) -> Result:
    """A picture behind every message, as the miniature's values of the workflows ask for; what only concerns words that GILL
    writes (temperature, top_p, the numbers of tokens, picture_scale) has no effect then."""
    from llmga.gill.answer import GILLReply, read_picture_states

    if picture != "always":
        raise ValueError(f"the embedded engine knows the choice 'always' of picture, got {picture!r}")
    pictures = () if image is None else tuple(map(Picture.from_pil, to_pil(image)))
    conversation = (history or Conversation()).say("user", message, pictures)
    with torch.no_grad():
        shown = read_picture_states(
            gill, gill.picture_states(prompt_of(gill, conversation, transcript)), None, matches
        )
    reply = GILLReply((shown,), (), gill.img_text)
    decision = shown.decision
    readout = f"{decision.source}, probability {decision.probability:.3f}: {decision.reason}"
    said = conversation.say("assistant", reply.turn_text)
    outputs = (reply.text, decision.source, decision.probability, shown.conditioning[None], (), said, readout)
    return outputs, {"text": [readout]}


MODEL_NODES: dict[str, Callable[..., Result]] = {
    "Canny": edges,
    "ControlNetLoader": load_controlnet,
    "ControlNetApplyAdvanced": apply_controlnet,
    "CLIPTextEncode": clip_text_encode,
    "LLMGA_GILLLoader": gill_loader,
    "LLMGA_GILLChat": gill_chat,
}
