"""Stage 2: train a Stable Diffusion UNet on long prompts, encoded as 75·n + 2 rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from ..images import to_pil
from ..text import join_chunks
from .box_loss import AttentionMaps, PhraseTokens, RelativeBox, batch_phrases, box_loss, locate_phrases
from .captioned_images import CaptionedPictures, ExampleVariants, Pictures
from .components import (
    Components,
    draw_latents,
    load_components,
    plain_attention,
    widen_for_inpainting,
)
from .config import check_samples
from .example_order import generator as seeded
from .loop import LoopConfig, Metrics, Weights, train
from .stage2_inputs import EncodeOnDemand, Encoder, InputSource, fill_cache

_LIMIT = 60.0
"""The largest weight of ``inverse_alpha``."""


@dataclass(frozen=True)
class PicturesConfig:
    """See ``CaptionedPictures``."""

    records: Path
    root: Path
    resolution: int = 512
    short_captions: float = 0.0


@dataclass(frozen=True)
class Stage2Config:
    loop: LoopConfig
    base: str = ""
    """A diffusers folder (or Hub name) of SD1.5 or SDXL; unused where components are passed in."""
    pictures: PicturesConfig | None = None
    """Unused where pictures are passed in."""
    task: Literal["t2i", "inpainting"] = "t2i"
    max_chunks: int = 4
    caption_dropout: float = 0.0
    """How often the caption is empty, for classifier-free guidance."""
    flip: bool = True
    """Mirror half of the pictures whose caption names no side."""
    loss_weight: Literal["none", "inverse_alpha"] = "none"
    """``inverse_alpha`` multiplies by min(1/ᾱ_t, 60): high-noise steps, where the caption decides, count."""
    noise_offset: float = 0.0
    """Strength of noise that is the same over a channel's whole picture: at SD's noisiest step the mean colour still shows,
    the more the larger the picture, so a UNet takes it from there and not from the caption. 0.1 hides it."""
    stratified: bool = False
    """Spread the timesteps of a part evenly: less noise in the gradient of a small batch."""
    box_loss: float = 0.0
    """Weight of the token-in-box loss (see ``box_loss``) at the first step; it needs pictures with ``named_boxes``."""
    box_loss_end: float | None = None
    """Its weight at the last step, which it nears by the same factor in every step; None keeps it."""
    train_text_encoder: bool = False
    gradient_checkpointing: bool = False
    variants: int = 1
    """Captions, mirrorings and masks drawn for each example once and for all; 0 draws anew every time."""
    cache: Path | None = None
    """The folder that keeps latents and text states; None encodes in every step."""
    cache_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """What latents and text states are rounded to, kept or not."""
    cache_in_memory: bool = False
    """Hold the whole cache on the device."""
    samples: int = 8
    """Examples in a sample grid."""
    sample_steps: int = 20
    guidance: float = 4.0

    def __post_init__(self) -> None:
        check_samples(self)
        if not 0 <= self.caption_dropout <= 1:
            raise ValueError(f"caption_dropout is a probability, got {self.caption_dropout}")
        if self.noise_offset < 0:
            raise ValueError(f"noise_offset must not be negative, got {self.noise_offset}")
        if self.box_loss < 0 or (self.box_loss_end is not None and not 0 < self.box_loss_end <= 1e6):
            raise ValueError(
                f"box_loss must not be negative and box_loss_end must be positive, got {self.box_loss} and "
                f"{self.box_loss_end}"
            )
        if self.box_loss and self.gradient_checkpointing:
            raise ValueError(
                "box_loss needs the attention of the forward pass, which gradient_checkpointing forgets; switch one off"
            )
        if self.cache and self.variants < 1:
            raise ValueError(
                "variants=0 draws anew every time, which no cache can hold; set variants >= 1 or cache=null"
            )
        if self.cache_in_memory and not self.cache:
            raise ValueError("cache_in_memory needs cache, the folder it is read from")


class Stage2Inputs(NamedTuple):
    """A part on the device: as ``Encoder.images`` and ``Encoder.chunks`` give it, each chunk once."""

    images: Mapping[str, torch.Tensor]
    chunks: Mapping[str, torch.Tensor]
    where: torch.Tensor
    """(B, n), into ``chunks``."""
    phrases: PhraseTokens | None = None
    """What the captions that are left name, if the token-in-box loss is on."""


class Stage2:
    """The trainer (see ``loop.Trainer``) of text-to-image and 9-channel inpainting UNets, SD1.5 and SDXL.

    The text encoder (SD1.5's only) is frozen or trained too. A 4-channel UNet is widened for inpainting.

    Raises:
        ValueError: the components and the configuration do not fit.

    Source: LLMGA, llmga/diffusers/train_text_to_image.py:804-880, train_text_to_image_inpaint.py:785-870 and
    train_text_to_image_sdxl.py:900-1001 (commit 7e32eb6). There the encoders run in half precision; here they run
    in float32, and ``cache_dtype`` rounds their results.
    """

    def __init__(self, config: Stage2Config, components: Components, pictures: Pictures) -> None:
        self.config, self.components, self.pictures = config, components, pictures
        settings = components.scheduler_config
        if settings.get("prediction_type", "epsilon") != "epsilon":
            raise ValueError(
                f"stage 2 trains epsilon prediction, the base predicts {settings['prediction_type']}"
            )
        if config.train_text_encoder and components.is_sdxl:
            raise ValueError("train_text_encoder is for SD1.5's one text encoder; this base has two")
        if config.task == "inpainting":
            widen_for_inpainting(components.unet)
        elif components.unet.config.in_channels != 4:
            raise ValueError(
                f"task t2i needs a UNet of 4 input channels, not {components.unet.config.in_channels}"
            )
        if config.box_loss and not hasattr(pictures, "named_boxes"):
            raise ValueError(
                "box_loss needs pictures that know boxes: noun_chunks in their records; set box_loss=0"
            )
        if config.gradient_checkpointing:
            components.unet.enable_gradient_checkpointing()
        frozen = [components.vae, *(components.text_encoders if not config.train_text_encoder else ())]
        for net in frozen:
            net.requires_grad_(False).eval()
        self._frozen = frozen

    def __len__(self) -> int:
        return len(self.pictures)

    def modules(self) -> Mapping[str, nn.Module]:
        c = self.components
        trained = {"text_encoder": c.text_encoders[0]} if self.config.train_text_encoder else {}
        return {"unet": c.unet, **trained}

    def prepare(self, device: torch.device, rank: int, world: int, barrier: Callable[[], None]) -> None:
        from diffusers import DDIMScheduler

        config = self.config
        for net in self._frozen:
            net.to(device)
        draws = self._draws = self._variants()
        if device.type == "cpu":
            plain_attention(self.components.unet)
        self._maps = AttentionMaps(self.components.unet) if config.box_loss else None
        self._known: dict[tuple[int, int], list[tuple[list[int], RelativeBox]]] = {}
        dtype = getattr(torch, config.cache_dtype)
        frozen_text = not config.train_text_encoder
        encoder = Encoder(self.components, draws, device, dtype, config.max_chunks, frozen_text)
        self._source: InputSource = EncodeOnDemand(encoder)
        if config.cache:
            in_memory = config.cache_in_memory
            self._source = fill_cache(encoder, config.cache, config.variants, in_memory, rank, world, barrier)
        self._scheduler: Any = DDIMScheduler.from_config(self.components.scheduler_config)
        self._alphas = self._scheduler.alphas_cumprod.to(device)
        self.begin_step(0)

    def begin_step(self, step: int) -> None:
        first, last = self.config.box_loss, self.config.box_loss_end
        self._box_weight = (
            first * (last / first) ** (step / self.config.loop.steps) if first and last else first
        )

    def _variants(self) -> ExampleVariants:
        config = self.config
        return ExampleVariants(self.pictures, config.loop.seed, config.flip, config.task == "inpainting")

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Stage2Inputs:
        size = indices.shape
        variants = torch.randint(self.config.variants or 2**31, size, generator=generator)
        dropped = torch.rand(size, generator=generator) < self.config.caption_dropout
        return self._inputs(indices, variants, dropped)

    def _inputs(self, indices: torch.Tensor, variants: torch.Tensor, dropped: torch.Tensor) -> Stage2Inputs:
        pairs = list(zip(indices.tolist(), variants.tolist(), strict=True))
        numbers, lookup = self._source.captions(pairs)
        numbers = numbers.masked_fill(dropped[:, None], 0)
        # As long as the longest caption that is left, as LLMGA pads a batch.
        longest = max(int((numbers != 0).sum(1).max()), 1)
        unique, where = numbers[:, :longest].unique(return_inverse=True)
        images = {name: value.float() for name, value in self._source.images(pairs).items()}
        chunks = {name: value if name == "ids" else value.float() for name, value in lookup(unique).items()}
        phrases = self._phrases(pairs, dropped) if self._maps else None
        return Stage2Inputs(images, chunks, where.to(images["moments"].device), phrases)

    def _phrases(self, pairs: list[tuple[int, int]], dropped: torch.Tensor) -> PhraseTokens:
        rows = zip(pairs, dropped.tolist(), strict=True)
        return batch_phrases([[] if is_dropped else self._located(pair) for pair, is_dropped in rows])

    def _located(self, pair: tuple[int, int]) -> list[tuple[list[int], RelativeBox]]:
        if pair not in self._known:
            encoder = self.components.prompt_encoder(self.config.max_chunks)
            found = locate_phrases(encoder, self._draws.caption(*pair), self._draws.named_boxes(*pair))
            if not self.config.variants:
                return found  # never asked for again
            self._known[pair] = found
        return self._known[pair]

    def loss(self, inputs: Stage2Inputs, generator: torch.Generator) -> tuple[torch.Tensor, Metrics]:
        latents = self._latents(inputs.images["moments"], generator)
        device, count = latents.device, len(latents)
        noise = self._noise(latents.shape, generator).to(device)
        timesteps = self._timesteps(count, generator).to(device)
        alpha = self._alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        predicted = self._predict(self._with_picture(noisy, inputs, generator), timesteps, inputs)
        error = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        loss, metrics = error.mean(), {}
        if self.config.loss_weight == "inverse_alpha":
            loss, metrics = (error / alpha.view(-1).clamp(min=1 / _LIMIT)).mean(), {"mse": error.mean()}
        if self._maps and inputs.phrases:
            in_box, share = box_loss(self._maps.take(), inputs.phrases)
            loss = loss + self._box_weight * in_box
            metrics |= {"box_loss": in_box, "in_box": share}
        return loss, metrics

    def _noise(self, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
        """(B, C, h, w). Source of the offset: N. Guttenberg 2023, "Diffusion with Offset Noise"."""
        noise = torch.randn(shape, generator=generator)
        if not self.config.noise_offset:
            return noise
        return noise + self.config.noise_offset * torch.randn((*shape[:2], 1, 1), generator=generator)

    def _timesteps(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """(B,) int64. Source of the stratified ones: Kingma et al. 2021, "Variational Diffusion Models", appendix I.1."""
        steps = len(self._alphas)
        if not self.config.stratified:
            return torch.randint(steps, (count,), generator=generator)
        first = torch.rand(1, generator=generator)
        return (((first + torch.arange(count) / count) % 1) * steps).long().clamp(max=steps - 1)

    def _latents(self, moments: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return draw_latents(moments, self.components.vae.config.latent_channels, generator)

    def _with_picture(
        self, noisy: torch.Tensor, inputs: Stage2Inputs, generator: torch.Generator
    ) -> torch.Tensor:
        if self.config.task == "t2i":
            return noisy
        masked = self._latents(inputs.images["masked"], generator)
        return torch.cat([noisy, inputs.images["mask"], masked], 1)  # 4 + 1 + 4 channels

    def _predict(self, sample: torch.Tensor, timesteps: torch.Tensor, inputs: Stage2Inputs) -> torch.Tensor:
        context, added = self._conditioning(inputs)
        return self.components.unet(sample, timesteps, context, **added).sample

    def _conditioning(self, inputs: Stage2Inputs) -> tuple[torch.Tensor, dict[str, Any]]:
        """The text's rows (B, 75·n + 2, C), and for SDXL what else the UNet is given."""
        chunks = inputs.chunks
        if "ids" in chunks:
            hidden, pooled = self.components.prompt_encoder().hidden_states(chunks["ids"])
        else:
            hidden, pooled = chunks["hidden"], chunks.get("pooled")
        added: dict[str, Any] = {}
        if pooled is not None:
            # the last chunk's, padding or not: so LLMGA trained
            added["added_cond_kwargs"] = {
                "text_embeds": pooled[inputs.where[:, -1]],
                "time_ids": inputs.images["size"],
            }
        return join_chunks(hidden[inputs.where], "llmga"), added

    def sample(self, step: int, folder: Path) -> None:
        """A PNG grid: the first examples, (masked,) and below them what the net makes of their captions."""
        config, vae = self.config, self.components.vae
        count = min(config.samples, len(self))
        twice = torch.arange(count).repeat(2)  # with their captions, and without
        inputs = self._inputs(twice, torch.zeros_like(twice), torch.arange(2 * count) >= count)
        draw = seeded(config.loop.seed, "sample")
        rows = [self._latents(inputs.images["moments"], draw)[:count]]
        x = torch.randn(rows[0].shape, generator=draw).to(rows[0].device)
        if config.task == "inpainting":
            rows.append(self._latents(inputs.images["masked"], draw)[:count])
        self._scheduler.set_timesteps(config.sample_steps)
        for t in self._scheduler.timesteps:
            net_input = self._with_picture(x.repeat(2, 1, 1, 1), inputs, seeded(config.loop.seed, "masked"))
            with_text, without = (
                self._predict(net_input, t.to(x.device).expand(2 * count), inputs).float().chunk(2)
            )
            eps = without + config.guidance * (with_text - without)
            x = self._scheduler.step(eps, int(t), x).prev_sample
        # A row is decoded at a time: BCHW latents, side by side as one picture of H × B·W.
        pictures = [vae.decode(row / vae.config.scaling_factor).sample for row in (*rows, x)]
        grid = torch.cat([torch.cat(list(row), 2) for row in (*self._shown(inputs, count), *pictures)], 1)
        to_pil(grid.permute(1, 2, 0)[None] / 2 + 0.5)[0].save(folder / f"step-{step:08d}.png")

    def _shown(self, inputs: Stage2Inputs, count: int) -> list[torch.Tensor]:
        """Further rows (count, 3, H, W) in -1 .. 1 for the top of a sample grid."""
        return []

    def export(self, folder: Path, weights: Weights) -> None:
        """``unet/`` as diffusers reads it, ``scheduler/``, and ``text_encoder/`` if it was trained."""
        from safetensors.torch import save_file

        unet = folder / "unet"
        self.components.unet.save_config(unet)
        save_file(weights["unet"], unet / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        self._scheduler.save_pretrained(folder / "scheduler")
        if "text_encoder" in weights:
            encoder = self.components.text_encoders[0]
            encoder.save_pretrained(folder / "text_encoder", state_dict=weights["text_encoder"])


def run(config: Stage2Config, output: Path) -> Path:
    """Train what a configuration alone describes; returns the folder of the result.

    Raises:
        ValueError: ``base`` or ``pictures`` is missing, or see ``loop.train``.
        FileNotFoundError: pictures are missing; the message names their list and the first ones.
    """
    if not config.base or config.pictures is None:
        raise ValueError("base (a diffusers folder) and pictures (records, root) are needed")
    p = config.pictures
    pictures = CaptionedPictures(p.records, p.root, p.resolution, p.short_captions)
    pictures.check()
    return train(Stage2(config, load_components(config.base), pictures), config.loop, output, config)
