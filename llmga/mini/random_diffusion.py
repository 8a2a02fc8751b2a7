"""A miniature Stable Diffusion with random weights: it runs whole, and paints noise.

For tests, and for showing that everything is connected where no trained weights are at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..diffusion.ldm import single_file, text_encoder_to_ldm, tiny_autoencoder_to_ldm, unet_to_ldm
from .painter import empty_text_encoder, new_autoencoder, new_unet, pipeline_of


def random_pipeline(seed: int = 0) -> Any:
    """A diffusers ``StableDiffusionPipeline`` of the miniature architecture; the same seed gives the same weights."""
    unet = new_unet(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder, autoencoder = empty_text_encoder(), new_autoencoder()
        _make_visible(autoencoder)
    return pipeline_of(unet, text_encoder, autoencoder)


def _make_visible(autoencoder: Any) -> None:
    """Spread the decoder's output over the range of a picture; as initialised it is nearly black."""
    last = autoencoder.decoder.layers[-1]
    with torch.no_grad():
        last.weight.mul_(6)
        last.bias.fill_(0.5)


def write_checkpoint(path: Path, seed: int = 0) -> None:
    """Write ``random_pipeline(seed)`` as one file, float32, for ``models/checkpoints``."""
    from safetensors.torch import save_file

    pipeline = random_pipeline(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        single_file(
            unet_to_ldm(pipeline.unet.state_dict()),
            text_encoder_to_ldm(pipeline.text_encoder.state_dict()),
            tiny_autoencoder_to_ldm(pipeline.vae.state_dict()),
        ),
        path,
    )
