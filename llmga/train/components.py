"""The networks of a Stable Diffusion checkpoint, and the encoding that training does with the frozen ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..text import Token, chunk_ids, read

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


def chunks_of(tokenizer: Any, caption: str, max_chunks: int) -> list[Chunk]:
    """A caption's chunks of at most 75 tokens, as LLMGA's training cut it."""
    plan = read(
        caption,
        lambda text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids,
        max_chunks=max_chunks,
    )
    return [tuple(token.id for token in chunk) for chunk in plan.chunks]


def ids_of(chunks: Sequence[Chunk], tokenizers: Sequence[Any]) -> torch.Tensor:
    """(U, tokenizers, 77): SDXL's tokenizers differ in padding only."""
    rows = [[chunk_ids([Token(i) for i in chunk], t.pad_token_id) for t in tokenizers] for chunk in chunks]
    return torch.tensor(rows, dtype=torch.int64)


def encode_chunks(
    text_encoders: Sequence[Any], ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run chunks (U, encoders, 77) through CLIP.

    Returns:
        For one encoder its last hidden state (U, 77, dim) and None; for SDXL's two their penultimate hidden
        states side by side, and the second's pooled vector (U, projection dim).
    """
    if len(text_encoders) == 1:
        return text_encoders[0](ids[:, 0])[0], None
    outputs = [net(ids[:, k], output_hidden_states=True) for k, net in enumerate(text_encoders)]
    return torch.cat([output.hidden_states[-2] for output in outputs], -1), outputs[1].text_embeds


def join_chunks(hidden: torch.Tensor) -> torch.Tensor:
    """Outputs (B, n, 77, dim) as the conditioning (B, 75·n + 2, dim): ``llmga.text.join``, for a batch."""
    return torch.cat([hidden[:, 0, :1], hidden[:, :, 1:-1].flatten(1, 2), hidden[:, -1, -1:]], 1)


def weights_hash(net: nn.Module) -> str:
    """The SHA-256 of a net's weights and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
