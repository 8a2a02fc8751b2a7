"""The host's denoiser on tiny models: conditionings, and a run of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from support import comfy_inprocess as comfy
from support import tiny_edit as tiny

KINDS = ("sd15", "sdxl")


SHAPE = (2, 4, 8, 16)


PROMPTS = {"source": "a red fox", "target": "a blue fox on a hill, " * 12, "negative": ""}


def host() -> Any:
    return comfy.pack("nodes.host_denoiser")


def noise(shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def conditionings(clip: Any) -> dict[str, Any]:
    return {name: tiny.conditioning(clip, text) for name, text in PROMPTS.items()}


def run(model: Any, conds: dict[str, Any], work: Callable[..., Any], pictures: int = 1) -> Any:
    with torch.inference_mode():
        return host().run(model, conds, (pictures, *SHAPE[1:]), work)
