"""The inputs of LLMGA Flow Edit: checked, encoded, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch

from ..llmga.edit.fit import mask_cells
from ..llmga.edit.flow import FlowMethod, flow_edit, rf_inversion_edit
from ..llmga.edit.inversion import OnStep
from . import check, embeddings, host_flow
from .edit_inputs import VAE_PRECISION, check_target_prompt, finite_pictures, notes_on_empty
from .host_flow import Velocities
from .prompt_encoder import encode_tokens

METHODS = get_args(FlowMethod)
MOST_STEPS = 200
MOST_GUIDANCE = 30.0
MOST_AVERAGED = 16
SIDES = 16
"""Sides are cut to multiples of so many pixels: 8 of the VAE and 2 of a patch, or 16 of FLUX.2's VAE."""


@dataclass(frozen=True)
class FlowInputs:
    """The inputs of the node but its models and its picture, checked.

    Raises:
        ValueError: an input is of another kind or out of range.
    """

    source_prompt: Any
    target_prompt: Any
    strength: Any
    source_guidance: Any
    target_guidance: Any
    steps: Any
    seed: Any
    method: Any
    n_avg: Any
    n_min: Any
    gamma: Any
    eta: Any
    eta_part: Any
    negative_prompt: Any = ""
    mask: Any = None
    sigmas: Any = None

    def __post_init__(self) -> None:
        check.text("source_prompt", self.source_prompt)
        check_target_prompt(self.target_prompt)
        negative = check.optional_text("negative_prompt", self.negative_prompt)
        object.__setattr__(self, "negative_prompt", negative)
        for name in ("strength", "gamma", "eta", "eta_part"):
            check.number(name, getattr(self, name), 0, 1)
        for name in ("source_guidance", "target_guidance"):
            check.number(name, getattr(self, name), 1, MOST_GUIDANCE)
        check.integer("steps", self.steps, 1, MOST_STEPS)
        check.integer("seed", self.seed, 0, 2**64 - 1)
        check.integer("n_avg", self.n_avg, 1, MOST_AVERAGED)
        check.integer("n_min", self.n_min, 0, MOST_STEPS)
        check.choice("method", self.method, METHODS)

    def levels(self, model: Any) -> list[float]:
        """The noise levels of the whole way.

        Raises:
            ValueError: those that are connected do not fall from at most 1 to 0.
        """
        if self.sigmas is None:
            return host_flow.sigmas_of(model, self.steps)
        if not isinstance(self.sigmas, torch.Tensor) or self.sigmas.ndim != 1:
            raise ValueError(f"sigmas must be SIGMAS from a scheduler node, got {type(self.sigmas).__name__}")
        found = self.sigmas.float().tolist()
        falling = all(after < before for before, after in zip(found, found[1:], strict=False))
        if len(found) < 2 or len(found) > MOST_STEPS + 1 or not falling or found[0] > 1 or found[-1] != 0:
            ends = f"from {found[0]:.3g} to {found[-1]:.3g}" if found else "none"
            raise ValueError(
                f"sigmas must fall from at most 1 to 0 in 1 to {MOST_STEPS} steps, got {ends}; connect a scheduler that has "
                "this model, with denoise 1, or disconnect it"
            )
        return found

    def n_max(self, steps: int) -> int:
        """How many of the steps are taken; at strength 0 none."""
        return round(self.strength * steps)

    def pulled(self, n_max: int) -> int:
        """How many of the steps back ``eta`` acts on."""
        return round(self.eta_part * n_max)

    def taken(self, steps: int) -> int:
        """How many steps the progress bar counts."""
        return max(1, self.n_max(steps) * (2 if self.method == "RF-Inversion" else 1))

    def work(
        self, sigmas: list[float], mask: torch.Tensor | None, on_step: OnStep
    ) -> Callable[[torch.Tensor, Velocities], torch.Tensor]:
        """What is done with a latent and the velocities of both prompts.

        Raises:
            ValueError: there are more steps in ``n_min`` than are taken.
        """
        steps = len(sigmas) - 1
        n_max = self.n_max(steps)
        if self.method == "FlowEdit" and self.n_min > n_max:
            raise ValueError(
                f"n_min is {self.n_min}, and strength {self.strength:g} of {steps} steps takes {n_max}; lower n_min or "
                "raise strength"
            )

        def edit(latent: torch.Tensor, velocities: Velocities) -> torch.Tensor:
            if n_max == 0:
                return latent
            common: dict[str, Any] = {
                "generator": torch.Generator().manual_seed(self.seed),
                "n_max": n_max,
                "mask": None if mask is None else mask.to(latent),
                "on_step": on_step,
            }
            both = (velocities["source"], velocities["target"])
            if self.method == "FlowEdit":
                return flow_edit(latent, sigmas, *both, n_min=self.n_min, n_avg=self.n_avg, **common)
            return rf_inversion_edit(
                latent, sigmas, *both, gamma=self.gamma, eta=self.eta, eta_steps=self.pulled(n_max), **common
            )

        return edit

    def notes(self, model: Any, sigmas: list[float], mask: torch.Tensor | None) -> list[str]:
        """How the edit went, in words."""
        steps = len(sigmas) - 1
        n_max = self.n_max(steps)
        if n_max == 0:
            return [f"strength {self.strength:g} of {steps} steps takes none: the picture is kept as it is"]
        notes = [f"{self.method}: the last {n_max} of {steps} steps, from sigma {sigmas[steps - n_max]:.3f}"]
        if self.method == "RF-Inversion":
            notes.append(f"eta {self.eta:g} pulls the first {self.pulled(n_max)} steps back to the picture")
        embedded = host_flow.has_embedded_guidance(model)
        kind = "the model's embedded guidance" if embedded else "cfg"
        notes.append(
            f"guidance by {kind}: {self.source_guidance:g} for the source, {self.target_guidance:g} for the target"
        )
        unguided = embedded or (self.source_guidance == 1 and self.target_guidance == 1)
        if self.negative_prompt.strip() and unguided:
            notes.append("the negative prompt has no effect: no guidance leads away from it")
        if self.source_prompt.strip() == self.target_prompt.strip():
            notes.append("both prompts are the same: only guidance changes the picture")
        return notes + notes_on_empty(self.mask, mask)


def encoded(clip: Any, name: str, text: str) -> Any:
    """A prompt as CLIP Text Encode makes it.

    Raises:
        ValueError: it is not a CLIP, the host fails at the text, or what it gives is not finite.
    """
    if not hasattr(clip, "tokenize") or not hasattr(clip, "encode_from_tokens_scheduled"):
        raise ValueError(f"clip must be a CLIP from Load CLIP, got {type(clip).__name__}")
    return encode_tokens(clip, name, embeddings.tokenize(clip, name, text))


def encoded_latent(model: Any, vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures as the host's latents, one by one: a VAE of video would take a batch for frames.

    Raises:
        ValueError: it is not a VAE, or its latents are not the model's, or not of finite numbers.
    """
    check.vae(vae)
    advice = "connect the VAE that 'model' was trained with"
    try:
        latent = torch.cat([vae.encode(one[None]) for one in pixels]).float().cpu()
    except torch.cuda.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"vae cannot encode the picture ({error}); {advice}") from error
    form = model.get_model_object("latent_format")
    if latent.shape[1] != form.latent_channels:
        raise ValueError(
            f"vae gives latents of {latent.shape[1]} channels, and model reads {form.latent_channels}; {advice}"
        )
    if latent.ndim > form.latent_dimensions + 2:
        raise ValueError(
            f"vae gives latents of video, of shape {tuple(latent.shape[1:])}, and model reads pictures; {advice}"
        )
    check.finite("vae gives", latent, VAE_PRECISION)
    if form.latent_dimensions == 3 and latent.ndim == 4:
        latent = latent.unsqueeze(2)
    return latent


def decoded(vae: Any, samples: torch.Tensor) -> torch.Tensor:
    """The pictures of latents, (B, H, W, 3)."""
    pictures = [vae.decode(one[None]) for one in samples]
    return finite_pictures(torch.cat([one.reshape(-1, *one.shape[-3:]) for one in pictures]))


def cells_of(mask: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """A mask (B or 1, H, W) at the cells of a latent, with as many dimensions as that."""
    cells = mask_cells(mask, (latent.shape[-2], latent.shape[-1]))
    return cells[:, :, None] if latent.ndim == 5 else cells
