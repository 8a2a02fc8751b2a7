"""A stage 2 small enough to train in a test: a UNet of 0.2 M weights, eight pictures of 32 pixels."""

from __future__ import annotations

import copy
import os
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from llmga.text import clip_tokenizer
from llmga.train import Stage2, Stage2Config, build
from llmga.train.components import Components
from miniworld.models.architecture import SCHEDULER
from support.tiny_clip import WIDTH_G, WIDTH_L, clip_g, clip_l

COLOURS = ("red", "green", "blue")


class World:
    """A bar of one colour on black; some captions are long, some name a side."""

    def __len__(self) -> int:
        return 8

    def image(self, i: int) -> torch.Tensor:
        image = torch.full((3, 32, 32), -1.0)
        image[i % 3, :, 4 * i : 4 * i + 4] = 1.0
        return image

    def caption(self, i: int, rng: random.Random) -> str:
        where = "on the left" if i < 4 else "on black"
        return f"{rng.choice(['a', 'one'])} {COLOURS[i % 3]} bar {where}" + " and so on" * (i * 6)

    def mask(self, i: int, generator: torch.Generator) -> torch.Tensor:
        mask = torch.zeros(1, 32, 32)
        mask[..., : int(torch.randint(33, (), generator=generator))] = 1.0
        return mask

    def fingerprint(self) -> str:
        return "bars"


def components(sdxl: bool = False, kl: bool = False, channels: int = 4, dropout: float = 0.0) -> Components:
    """Random networks, the same each time."""
    from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel

    settings: dict[str, Any] = {"cross_attention_dim": WIDTH_L}
    if sdxl:
        settings = {
            "cross_attention_dim": WIDTH_L + WIDTH_G,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": WIDTH_G + 6 * 8,
        }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            in_channels=channels,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=2,
            norm_num_groups=8,
            dropout=dropout,
            **settings,
        )
        narrow, once = (8, 8, 8, 8), (1, 1, 1, 1)
        vae = AutoencoderTiny(
            encoder_block_out_channels=narrow,
            decoder_block_out_channels=narrow,
            num_encoder_blocks=once,
            num_decoder_blocks=once,
        )
        if kl:
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 2,
                up_block_types=("UpDecoderBlock2D",) * 2,
                block_out_channels=(8, 8),
                norm_num_groups=4,
                latent_channels=4,
            )
    tokenizers, encoders = _text(sdxl)
    return Components(unet, vae, copy.deepcopy(encoders), tokenizers, dict(SCHEDULER))


@lru_cache
def _text(sdxl: bool) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    if sdxl:
        return (clip_tokenizer(), clip_tokenizer("!")), (clip_l(), clip_g())
    return (clip_tokenizer(),), (clip_l(),)


def config(loop: dict[str, Any] | None = None, **values: Any) -> Stage2Config:
    defaults = {
        "steps": 6,
        "batch": 4,
        "micro_batch": 2,
        "lr": 1e-3,
        "ema": 0.99,
        "log_every": 1,
        "save_every": 2,
        "deterministic": True,
        "cpu": True,
    }
    plain = {"caption_dropout": 0.2, "cache_dtype": "float32", "variants": 2, "samples": 2, "sample_steps": 2}
    return build(Stage2Config, {"loop": {**defaults, **(loop or {})}, **plain, **values})


def train_tiny(output: Path, dropout: float = 0.1, **loop: Any) -> Path:
    """Train the tiny stage 2, with dropout layers, on one thread."""
    from llmga.train import train

    torch.set_num_threads(1)
    settings = config(loop)
    return train(Stage2(settings, components(dropout=dropout), World()), settings.loop, output)


def one_of_two(output: Path, rank: int, port: int, values: dict[str, Any]) -> None:
    """Train the tiny stage 2 as one of two processes; here, so that another process can import it."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    train_tiny(output, **values)
    torch.distributed.destroy_process_group()


def short_run(output: Path) -> None:
    """Five steps, each with a checkpoint."""
    train_tiny(output, steps=5, save_every=1, log_every=5)


def result(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
