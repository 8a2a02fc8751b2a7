"""A miniature Stable Diffusion with random weights: it runs whole, and paints noise.

For tests, and for showing that everything is connected where no trained weights are at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmga.diffusion.ldm import unet_to_ldm
from llmga.restore import Architecture, DiffRIRS2

from .architecture import SCHEDULER, unet_config
from .narrow_taesd import NarrowTaesd, widened
from .painter import empty_text_encoder, new_autoencoder, new_unet, pipeline_of
from .single_file import single_file, text_encoder_to_ldm, tiny_autoencoder_to_ldm

SMALL = 128
"""Pixels of a side of what the random miniature paints: the smaller of the two architectures."""


def random_pipeline(seed: int = 0, picture: int = SMALL) -> Any:
    """A diffusers ``StableDiffusionPipeline`` of the miniature architecture; the same seed gives the same weights."""
    unet = new_unet(seed, picture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder, autoencoder = empty_text_encoder(), new_autoencoder()
        autoencoder.load_state_dict(widened(NarrowTaesd().state_dict()))
        _make_visible(autoencoder)
    return pipeline_of(unet, text_encoder, autoencoder)


def _make_visible(autoencoder: Any) -> None:
    """Spread the decoder's output over the range of a picture; as initialised it is nearly black."""
    last = autoencoder.decoder.layers[-1]
    with torch.no_grad():
        last.weight.mul_(6)
        last.bias.fill_(0.5)


def write_checkpoint(path: Path, seed: int = 0, picture: int = SMALL) -> None:
    """Write ``random_pipeline(seed, picture)`` as one file, float32, for ``models/checkpoints``."""
    from safetensors.torch import save_file

    pipeline = random_pipeline(seed, picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        single_file(
            unet_to_ldm(pipeline.unet.state_dict()),
            text_encoder_to_ldm(pipeline.text_encoder.state_dict()),
            tiny_autoencoder_to_ldm(pipeline.vae.state_dict()),
        ),
        path,
    )


def write_controlnet(path: Path, seed: int = 0) -> None:
    """Write a ControlNet for the miniature UNet, random and so without use, as ComfyUI's loader reads it.

    The layout is that of lllyasviel/ControlNet's checkpoints: the UNet's encoder, an encoder of the hint that halves it
    three times, and a 1×1 convolution after each block.
    """
    from safetensors.torch import save_file

    unet = unet_to_ldm(new_unet(seed, SMALL).state_dict())
    blocks = sorted({int(key.split(".")[1]) for key in unet if key.startswith("input_blocks.")})
    first = [f"input_blocks.{i}.0." for i in blocks]
    widths = [_rows(unet, stem, ("weight", "op.weight", "out_layers.3.weight")) for stem in first]
    kept = ("input_blocks.", "middle_block.", "time_embed.")
    found = {key: value for key, value in unet.items() if key.startswith(kept)}
    generator = torch.Generator().manual_seed(seed)

    def convolution(name: str, rows: int, columns: int, side: int) -> None:
        found[f"{name}.weight"] = 0.1 * torch.randn(rows, columns, side, side, generator=generator)
        found[f"{name}.bias"] = torch.zeros(rows)

    hint = (3, 16, 16, 32, 32, 96, 96, 256, widths[0])
    for i, (columns, rows) in enumerate(zip(hint, hint[1:], strict=False)):
        convolution(f"input_hint_block.{2 * i}", rows, columns, 3)
    for i, width in enumerate(widths):
        convolution(f"zero_convs.{i}.0", width, width, 1)
    convolution("middle_block_out.0", widths[-1], widths[-1], 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"control_model.{key}": value.contiguous() for key, value in found.items()}, path)


def _rows(weights: dict[str, torch.Tensor], stem: str, names: tuple[str, ...]) -> int:
    return next(len(weights[stem + name]) for name in names if stem + name in weights)


def write_inpainting_unet(folder: Path, seed: int = 0) -> None:
    """Write a UNet of 9 input channels as a diffusers folder with its scheduler, as fine-tuned UNets are published."""
    from diffusers import DDIMScheduler, UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet2DConditionModel(**{**unet_config(SMALL), "in_channels": 9})
    net.save_pretrained(folder / "unet")
    DDIMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")


def write_restorer(path: Path, seed: int = 0) -> None:
    """Write a DiffRIR x1 of a few thousand weights."""
    from safetensors.torch import save_file

    sizes = Architecture(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, n_feats=4, n_encoder_res=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = DiffRIRS2(sizes)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.state_dict(), path)
