"""The networks of a Stable Diffusion checkpoint, and the encoding that training does with the frozen ones."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..text import CLIPPromptEncoder
from ..text.chunks import TRAINED_CHUNKS

Chunk = tuple[int, ...]
"""Up to 75 token ids; the empty chunk is all padding."""


@dataclass
class Components:
    """SD1.5 has one tokenizer and one text encoder, SDXL two of each. All nets are float32."""

    unet: Any
    vae: Any
    text_encoders: tuple[Any, ...]
    tokenizers: tuple[Any, ...]
    scheduler_config: dict[str, Any]

    @property
    def is_sdxl(self) -> bool:
        return len(self.text_encoders) == 2

    def prompt_encoder(self, max_chunks: int = TRAINED_CHUNKS) -> CLIPPromptEncoder:
        """The text encoders as they are now, in the layout that LLMGA was trained in."""
        return CLIPPromptEncoder(self.tokenizers, self.text_encoders, max_chunks=max_chunks)


def from_pipeline(pipeline: Any) -> Components:
    """The components of a diffusers Stable Diffusion or Stable Diffusion XL pipeline."""
    second = getattr(pipeline, "text_encoder_2", None)
    return Components(
        pipeline.unet,
        pipeline.vae,
        (pipeline.text_encoder,) if second is None else (pipeline.text_encoder, second),
        (pipeline.tokenizer,) if second is None else (pipeline.tokenizer, pipeline.tokenizer_2),
        dict(pipeline.scheduler.config),
    )


def load_components(base: str) -> Components:
    """Load a diffusers folder (or Hub name) of SD1.5 or SDXL, for text-to-image or inpainting."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(base, torch_dtype=torch.float32, use_safetensors=True)
    return from_pipeline(pipeline)


def widen_for_inpainting(unet: Any) -> None:
    """Give a 4-channel UNet five channels more, for mask and masked picture, that at first say nothing."""
    old = unet.conv_in
    if old.in_channels == 9:
        return
    if old.in_channels != 4:
        raise ValueError(f"inpainting needs a UNet of 4 or 9 input channels, this one has {old.in_channels}")
    new = nn.Conv2d(9, old.out_channels, old.kernel_size, old.stride, old.padding)  # type: ignore[arg-type]
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :4] = old.weight
        new.bias.copy_(old.bias)  # type: ignore[union-attr]
    unet.conv_in = new.to(old.weight.device)
    unet.register_to_config(in_channels=9)


def plain_attention(unet: Any) -> None:
    """Let a diffusers UNet attend by matrix products: on a CPU, the backward pass of torch's fused kernel takes several
    times as long in bf16."""
    from diffusers.models.attention_processor import AttnProcessor

    unet.set_attn_processor(AttnProcessor())


@torch.no_grad()
def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in -1 .. 1 as scaled latents: mean and standard deviation, (B, 2C, h, w), or, of an
    autoencoder without chance, (B, C, h, w)."""
    output = vae.encode(images)
    latents = (
        output.latents
        if hasattr(output, "latents")
        else torch.cat([output.latent_dist.mean, output.latent_dist.std], 1)
    )
    return latents * vae.config.scaling_factor


def draw_latents(moments: torch.Tensor, channels: int, generator: torch.Generator) -> torch.Tensor:
    """Latents (B, C, h, w) from what ``encode_images`` gave."""
    if moments.shape[1] == channels:
        return moments
    mean, std = moments.chunk(2, 1)
    return mean + std * torch.randn(mean.shape, generator=generator).to(mean.device)


def weights_hash(net: nn.Module) -> str:
    """The SHA-256 of a net's weights and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
