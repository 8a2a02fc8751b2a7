"""A miniature Stable Diffusion with random weights: it runs whole, and paints noise.

For tests, and for showing that everything is connected where no trained weights are at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from llmga.diffusion.ldm import controlnet_to_ldm, unet_to_ldm
from llmga.restore import Architecture, DiffRIRS2
from llmga.train.controlnet import new_controlnet

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


def write_controlnet(path: Path, seed: int = 0, picture: int = SMALL) -> None:
    """Write ``random_controlnet`` of a random UNet as ComfyUI's loader reads it, in lllyasviel/ControlNet's layout."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(controlnet_to_ldm(random_controlnet(new_unet(seed, picture), seed).state_dict()), path)


def random_controlnet(unet: Any, seed: int = 0) -> Any:
    """A diffusers ``ControlNetModel`` that copies a UNet's encoder and, unlike a fresh one, changes something: where that
    has convolutions of zeros, this one's are random, so it is without use."""
    net = new_controlnet(unet, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith("controlnet_") and name.endswith("weight"):
                parameter.normal_(0, 0.1, generator=generator)
    return net.eval()


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
