"""The editing nodes' inputs and calls, on tiny models."""

from __future__ import annotations

from typing import Any

import torch

from support import comfy_inprocess as comfy

SOURCE, TARGET = "a large red star on snow", "a large blue star on snow"


LONG = "a quiet stone bridge over a river in soft light, " * 12


STEPS = 4


EDIT = {
    "cfg": 7.5,
    "cross_replace": 0.4,
    "self_replace": 0.6,
    "local_blend": "auto",
    "steps": STEPS,
    "layout": "llmga",
}


OPTIONS = {
    "word_weights": "",
    "word_steps": "",
    "blend_words": "",
    "subtract_words": "",
    "blend_threshold": 0.3,
    "blend_start": 0.2,
    "mode": "auto",
    "self_max": 0.25,
}


def picture(height: int = 64, width: int = 64, batch: int = 1, channels: int = 3) -> torch.Tensor:
    """Smooth, so that the random VAE has something to keep."""
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(batch, channels, 4, 4, generator=generator)
    grown = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return grown.movedim(1, -1)


def execute(module: str, node: str, *values: Any, **options: Any) -> Any:
    with torch.inference_mode():
        return getattr(comfy.pack(f"nodes.{module}"), node).execute(*values, **options).result


def invert(trio: Any, prompt: str = SOURCE, **options: Any) -> Any:
    given = {"steps": STEPS, "layout": "llmga", "max_chunks": 4, **options}
    if "latent" not in given:
        given.setdefault("image", picture())
    return execute("inversion", "Invert", *trio, prompt, **given)


def edit(trio: Any, prompt: str = TARGET, **options: Any) -> Any:
    return execute("edit", "InversionEdit", *trio, prompt, **{**EDIT, **options})


def p2p(**options: Any) -> Any:
    return execute("edit_options", "PromptToPromptOptions", **{**OPTIONS, **options})[0]
