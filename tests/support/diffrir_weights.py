"""Random weights and inputs that follow from names alone, so that a fixture need not hold them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

SIZES: dict[str, Any] = {
    "dim": 8,
    "num_blocks": (2, 1, 1, 1),
    "num_refinement_blocks": 1,
    "n_encoder_res": 1,
    "n_denoise_res": 1,
}
"""What the official networks were built with; the length of their prior, 256, cannot be changed."""


def uniform(name: str, *shape: int) -> torch.Tensor:
    """Numbers in -1 .. 1, decided by the name."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).random(shape) * 2 - 1).float()


@torch.no_grad()
def fill(named: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Weights of a variance that keeps signals alive; what is one-dimensional or a temperature lies around 1 or 0."""
    for name, value in named:
        drawn = uniform(name, *value.shape)
        if name.endswith(("body.weight", "temperature")):
            value.copy_(1 + 0.5 * drawn)
        elif value.ndim == 1:
            value.copy_(0.1 * drawn)
        else:
            value.copy_(drawn * math.sqrt(3 / value[0].numel()))


def inputs(scale: int) -> dict[str, torch.Tensor]:
    """A degraded picture, the truth, 32 × 64 pixels, a mask and noise."""
    truth = (uniform("truth", 1, 3, 32, 64) + 1) / 2
    image = (uniform("image", 1, 3, 32 // scale, 64 // scale) + 1) / 2
    mask = torch.zeros(1, 1, 32, 64)
    mask[..., 5:20, 11:40] = 1
    return {"image": image, "truth": truth, "mask": mask, "noise": 2 * uniform("noise", 1, 256)}


def small(**values: Any) -> Any:
    """An ``Architecture`` of a few thousand weights."""
    from llmga.restore import Architecture  # the recorder of the official networks runs without it

    sizes = {"dim": 8, "num_blocks": (1, 1, 1, 1), "num_refinement_blocks": 1, "n_feats": 4}
    return Architecture(**{**sizes, "n_encoder_res": 1, **values})


def filled(net: Any) -> Any:
    fill(net.named_parameters())
    return net.eval()
