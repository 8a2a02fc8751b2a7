"""What the editing nodes share: an ``EditSession`` on the host's models, and the inversion that travels between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..llmga.edit import EditSession, Inversion, OnStep
from ..llmga.edit.fit import CELL, SMALLEST, fit_edit_mask, fit_image
from ..llmga.text.chunks import MAX_CHUNKS, TRAINED_CHUNKS
from . import check, host_denoiser
from .host_denoiser import HostRunner, Identity
from .prompt_encoder import LAYOUTS, Conditioning, HostPromptEncoder, clip_encoders

MOST_STEPS = 999
LATENT_CHANNELS = 4  # of SD1.5 and SDXL
VAE_PRECISION = "start ComfyUI with --fp32-vae, or take a VAE that is made for half precision"
MODEL_TOOLTIP = (
    "An SD1.5 or SDXL model that predicts noise (eps or v), with its LoRAs. Not inpainting, flow or compiled models, nor "
    "IPAdapter, SAG, PAG, HyperTile, ToMe."
)


@dataclass(frozen=True, eq=False)
class HostInversion(Inversion):
    """An inversion with what an edit must know of the host's models. LLMGA_INVERSION."""

    control: Conditioning | None
    made_by: Identity


@dataclass(frozen=True)
class HostCodec:
    """The host's VAE as a ``LatentCodec``; latents are scaled as the model has them."""

    model: Any
    vae: Any

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        try:
            samples = self.vae.encode(image)
        except torch.cuda.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"vae cannot encode the picture ({error}); connect the VAE of the checkpoint that 'model' is from"
            ) from error
        if samples.ndim != 4 or samples.shape[1] != 4:
            raise ValueError(
                f"vae gives latents of shape {tuple(samples.shape[1:])}; connect the VAE of the checkpoint that 'model' "
                "is from"
            )
        check.finite("vae gives", samples, VAE_PRECISION)
        return self.from_samples(samples)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        return finite_pictures(self.vae.decode(self.to_samples(latent)))

    def from_samples(self, samples: torch.Tensor) -> torch.Tensor:
        """The model's latents from those of a LATENT."""
        return self.model.model.process_latent_in(samples.float().cpu())

    def to_samples(self, latent: torch.Tensor) -> torch.Tensor:
        """The ``samples`` of a LATENT from the model's latents."""
        return self.model.model.process_latent_out(latent.float().cpu())


def finite_pictures(decoded: torch.Tensor) -> torch.Tensor:
    """What a VAE has decoded, float32 in 0 .. 1 on the CPU.

    Raises:
        ValueError: it is not of finite numbers, which would be shown as black.
    """
    check.finite("vae gives", decoded, VAE_PRECISION)
    return decoded.float().cpu().clamp(0, 1)


@dataclass(frozen=True)
class HostModels:
    """MODEL, CLIP and VAE of one checkpoint.

    Raises:
        ValueError: the model cannot be edited with (see ``require_editable``), or ``vae`` is not a VAE of its channels.
    """

    model: Any
    clip: Any
    vae: Any

    def __post_init__(self) -> None:
        host_denoiser.require_editable(self.model)
        check.vae(self.vae)
        channels = getattr(self.vae, "latent_channels", LATENT_CHANNELS)
        if channels != LATENT_CHANNELS:
            raise ValueError(
                f"vae makes latents of {channels} channels and 'model' reads {LATENT_CHANNELS}; connect the VAE of the "
                "checkpoint that 'model' is from"
            )

    @property
    def codec(self) -> HostCodec:
        return HostCodec(self.model, self.vae)

    @property
    def identity(self) -> str:
        """Changes with whatever a node does to MODEL or CLIP: such as FreeU, which leaves the weights alone."""
        numbers = [host_denoiser.number_of(one) for one in (self.model, self.clip.patcher)]
        text = self.clip.patcher.patches_uuid, self.clip.layer_idx
        return f"{host_denoiser.identity(self.model)} {numbers} {text}"

    def on_step(self, steps: int) -> OnStep:
        return host_denoiser.progress(self.model, steps)

    def session(
        self, layout: str, max_chunks: int = TRAINED_CHUNKS, control: Conditioning | None = None
    ) -> EditSession[Conditioning]:
        """
        Raises:
            ValueError: the text encoder is not SD1.5's or SDXL's, or an option is out of range.
        """
        check.choice("layout", layout, LAYOUTS)
        check.integer("max_chunks", max_chunks, 1, MAX_CHUNKS)
        encoders = clip_encoders(self.clip)
        if not encoders:
            raise ValueError(
                "clip is not the text encoder of SD1.5 or SDXL, whose words an edit compares; connect the CLIP of the "
                "checkpoint that 'model' is from"
            )
        encoder = HostPromptEncoder(self.clip, encoders, layout, max_chunks)  # type: ignore[arg-type] # checked above
        return EditSession(HostRunner(self.model, control), encoder, self.codec)

    def session_of(self, inversion: HostInversion) -> EditSession[Conditioning]:
        """The session that goes on with an inversion: with its layout and its ControlNet.

        Raises:
            ValueError: the inversion was made with another kind of model.
        """
        check.instance("inversion", inversion, HostInversion, "Invert")
        if inversion.made_by.kind != host_denoiser.identity(self.model).kind:
            raise ValueError(
                "inversion was made with another kind of model than the one in 'model'; connect the MODEL that Invert has"
            )
        return self.session(inversion.layout, inversion.max_chunks, inversion.control)

    def made(self, inversion: Inversion, control: Conditioning | None) -> HostInversion:
        return HostInversion(**vars(inversion), control=control, made_by=host_denoiser.identity(self.model))

    def note_on(self, inversion: HostInversion) -> str:
        """A note if the inversion was made with other weights."""
        if inversion.made_by.weights == host_denoiser.identity(self.model).weights:
            return ""
        return "the inversion is of another checkpoint or other LoRAs than model: expect more to change"


def latents_of(codec: HostCodec, image: Any, latent: Any) -> tuple[torch.Tensor, str]:
    """The model's latents (B, 4, h, w) from an IMAGE or a LATENT, and what was done to it in words.

    Raises:
        ValueError: neither or both are connected, or one is of another kind, too small, or not of finite numbers.
    """
    if (image is None) == (latent is None):
        raise ValueError(f"connect either image or latent, got {'neither' if image is None else 'both'}")
    if latent is None:
        pixels, note = fit_image(check.image("image", image))
        return codec.encode(pixels), note
    samples: Any = latent.get("samples") if isinstance(latent, dict) else None
    if not isinstance(samples, torch.Tensor) or samples.ndim != 4 or samples.shape[1] != 4:
        raise ValueError(
            f"latent must be a LATENT of 4 channels (SD1.5 or SDXL), got {getattr(samples, 'shape', None)}"
        )
    height, width = samples.shape[-2] * CELL, samples.shape[-1] * CELL
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"latent is of a picture of {width}×{height} pixels, and an edit needs {SMALLEST} on each side"
        )
    check.finite("latent holds", samples, "look at the node that made it")
    return codec.from_samples(samples), f"{len(samples)} latents"


def check_target_prompt(value: Any) -> None:
    """
    Raises:
        ValueError: it is not text, or empty.
    """
    if not check.text("target_prompt", value).strip():
        raise ValueError("target_prompt is empty; write what the picture should show after the edit")


def fitted_mask(
    mask: Any,
    pictures: int,
    pixels: tuple[int, int],
    *,
    cell: int = CELL,
    socket: str = "image",
) -> torch.Tensor | None:
    """The mask of an edit at the size of its pictures; None for none and for an empty one.

    Args:
        mask: what is connected to 'mask', or None.
        pictures: how many there are in ``socket``.
        pixels, cell: as ``fit_edit_mask`` takes them.

    Returns:
        (1 or ``pictures``, height, width) float32, 0 .. 1.

    Raises:
        ValueError: it is not a MASK, or there are several masks but not one for each picture.
    """
    if mask is None:
        return None
    mask = check.mask("mask", mask)
    if len(mask) not in (1, pictures):
        raise ValueError(
            f"mask holds {len(mask)} masks for {pictures} pictures in {socket}; give one, or one each"
        )
    return fit_edit_mask(mask, pixels, cell)


def notes_on_empty(given: Any, mask: torch.Tensor | None) -> list[str]:
    """A sentence for each mask of a batch that allows no change, or one where all are empty.

    Args:
        given, mask: what is connected to 'mask', and what ``fitted_mask`` makes of it.
    """
    if mask is None:
        return ["the mask is empty and counts as none: the whole picture may change"] * (given is not None)
    return [f"mask {i} is empty: picture {i} stays as it is" for i, one in enumerate(mask) if not one.any()]
