"""What the nodes of an edit share: pictures that fit the latents, prompts with their tokens, and an inverted picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import torch

from ..llmga.edit.inversion import Trajectory
from ..llmga.text import Layout, Plan, read
from ..llmga.text.chunks import MAX_CHUNKS, TRAINED_CHUNKS
from . import check, host_denoiser
from .encode import Conditioning, clip_encoders, content_tokens, encode_plan, zeros_like

LAYOUTS = get_args(Layout)
CELL = 8  # pixels of a latent
SMALLEST = 32  # pixels of a side: attention then still has more than one cell to tell apart
STEPS, MOST_STEPS = 50, 999


@dataclass(frozen=True, eq=False)
class Inverted:
    """A picture's way to noise, with what an edit must know of how it was made. LLMGA_INVERSION."""

    trajectory: Trajectory
    prompt: str
    layout: Layout
    max_chunks: int
    control: Conditioning | None
    made_by: host_denoiser.Identity

    @property
    def pixels(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        height, width = self.trajectory.latents.shape[-2:]
        return height * CELL, width * CELL


def fitted(name: str, image: Any) -> tuple[torch.Tensor, str]:
    """An IMAGE as RGB of a size that latents have, cut evenly at its edges, and what was done to it in words.

    Raises:
        ValueError: it is no IMAGE, or smaller than ``SMALLEST`` on a side.
    """
    image = check.image(name, image)
    height, width, channels = image.shape[1:]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"{name} is {width}×{height} pixels, and an edit needs {SMALLEST} on each side; scale it up (512 on the "
            "shorter side for SD1.5, 1024 for SDXL)"
        )
    said = []
    if channels == 4:
        said.append("alpha was dropped")
    cut = _cut(image[..., :3].expand(-1, -1, -1, 3))
    if cut.shape[1:3] != (height, width):
        said.append(f"cut at its edges to {cut.shape[2]}×{cut.shape[1]}: sides must be multiples of {CELL}")
    line = f"{len(image)} picture{'s' * (len(image) > 1)} of {width}×{height} pixels"
    return cut, "; ".join([line, *said])


def fitted_mask(mask: Any, image: Any, pixels: tuple[int, int]) -> torch.Tensor | None:
    """A MASK at the size of the pictures, (B, H, W) 0 .. 1; None for one without anything in it, as LoadImage gives.

    One of the size of the uncut ``image`` is cut as that is; any other is resized.
    """
    mask = check.mask("mask", mask)
    if not mask.any():
        return None
    if image is not None and mask.shape[1:] == image.shape[1:3]:
        mask = _cut(mask)
    if mask.shape[1:] != pixels:
        mask = torch.nn.functional.interpolate(mask[:, None], pixels, mode="area")[:, 0]
    return mask


def _cut(pictures: torch.Tensor) -> torch.Tensor:
    """The middle of (B, H, W, …), with sides that are multiples of ``CELL``."""
    height, width = pictures.shape[1:3]
    top, left = height % CELL // 2, width % CELL // 2
    return pictures[:, top : top + height // CELL * CELL, left : left + width // CELL * CELL]


def latents_of(model: Any, vae: Any, image: Any, latent: Any) -> tuple[torch.Tensor, str]:
    """The picture as the model's own latents (B, 4, h, w), from an IMAGE or a LATENT, and what was done to it."""
    if (image is None) == (latent is None):
        raise ValueError(f"connect either image or latent, got {'neither' if image is None else 'both'}")
    if latent is not None:
        samples: Any = latent.get("samples") if isinstance(latent, dict) else None
        if not isinstance(samples, torch.Tensor) or samples.ndim != 4 or samples.shape[1] != 4:
            raise ValueError(
                f"latent must be a LATENT of 4 channels (SD1.5 or SDXL), got {getattr(samples, 'shape', None)}"
            )
        if min(samples.shape[-2:]) * CELL < SMALLEST:
            raise ValueError(
                f"latent is of a picture of {samples.shape[-1] * CELL}×{samples.shape[-2] * CELL} pixels, and an edit "
                f"needs {SMALLEST} on each side"
            )
        said = f"{len(samples)} latents"
    else:
        pixels, said = fitted("image", image)
        samples = encoder_of(vae).encode(pixels)
        if samples.ndim != 4 or samples.shape[1] != 4:
            raise ValueError(
                f"vae gives latents of shape {tuple(samples.shape[1:])}; connect the VAE of the checkpoint that 'model' "
                "is from"
            )
    return model.model.process_latent_in(samples.float().cpu()), said


def pictures_of(model: Any, vae: Any, latent: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The model's own latents as an IMAGE and as a LATENT."""
    samples = model.model.process_latent_out(latent.float().cpu())
    return encoder_of(vae).decode(samples).float().cpu().clamp(0, 1), {"samples": samples}


def encoder_of(vae: Any) -> Any:
    if not hasattr(vae, "encode") or not hasattr(vae, "decode"):
        raise ValueError(f"vae must be a VAE, got {type(vae).__name__}; the checkpoint may hold none")
    return vae


@dataclass(frozen=True)
class Prompts:
    """A CLIP and how it reads: plans first, so that words can be compared, then conditionings of one length."""

    clip: Any
    layout: Layout
    max_chunks: int = TRAINED_CHUNKS

    @classmethod
    def of(cls, clip: Any, layout: str, max_chunks: int) -> Prompts:
        """
        Raises:
            ValueError: the text encoder is not SD1.5's or SDXL's, or an option is out of range.
        """
        check.choice("layout", layout, LAYOUTS)
        check.integer("max_chunks", max_chunks, 1, MAX_CHUNKS)
        encoders = clip_encoders(clip)
        if not encoders:
            raise ValueError(
                "clip is not the text encoder of SD1.5 or SDXL, whose words an edit compares; connect the CLIP of the "
                "checkpoint that 'model' is from"
            )
        # LLMGA's SDXL has one layout; see ``encode_plan``.
        one: Layout = "llmga_lpw" if layout == "llmga_lpw" and "g" not in encoders else "llmga"
        return cls(clip, one, max_chunks)

    @property
    def empty_is_zeros(self) -> bool:
        """Whether an empty negative prompt becomes zeros, as in LLMGA's SDXL."""
        return "g" in clip_encoders(self.clip)

    def read(self, text: str) -> dict[str, Plan]:
        """The plan of each text encoder; "l" is the one whose words are compared."""
        options = {"weights": False, "max_chunks": self.max_chunks}
        return {
            key: read(text, partial(content_tokens, self.clip, key), **options)
            for key in clip_encoders(self.clip)
        }

    def encode(self, plans: dict[str, Plan], chunks: int) -> Conditioning:
        return encode_plan(self.clip, {key: plan.padded(chunks) for key, plan in plans.items()}, self.layout)

    def encode_negative(self, text: str, chunks: int, like: Conditioning) -> Conditioning:
        if not text.strip() and self.empty_is_zeros:
            return zeros_like(like)
        plans = self.read(text)
        return self.encode({key: _first(plan, chunks) for key, plan in plans.items()}, chunks)


def _first(plan: Plan, chunks: int) -> Plan:
    """A negative prompt that is longer than the others is cut: all rows of a call then have one length."""
    return Plan(plan.chunks[:chunks], plan.cuts[: chunks - 1])


def longest(*plans: dict[str, Plan]) -> int:
    return max(len(plan.chunks) for each in plans for plan in each.values())
