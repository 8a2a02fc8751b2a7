"""A tiny Flux with random weights and its autoencoder, which ComfyUI's own loaders recognise.

For tests of what only a flow model does; nothing of the miniature world is trained in one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..pack.sizes import CONTEXT_DIM
from .single_file import tiny_autoencoder_to_ldm

CHANNELS = 16
_DAMPING = 0.3
"""Of the last layer: what an untrained network answers with is larger than what a trained one does."""


def random_flow_transformer(seed: int = 0) -> Any:
    """A diffusers ``FluxTransformer2DModel`` of one head and one block of each kind, as wide as the miniature's text."""
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = FluxTransformer2DModel(
            in_channels=4 * CHANNELS,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=128,  # ComfyUI counts heads by it
            num_attention_heads=1,
            joint_attention_dim=CONTEXT_DIM,
            pooled_projection_dim=CONTEXT_DIM,
            guidance_embeds=True,
        )
    with torch.no_grad():
        net.proj_out.weight.mul_(_DAMPING)
    return net.eval()


def write_flow_model(path: Path, seed: int = 0) -> None:
    """Write ``random_flow_transformer`` with diffusers' names, for ``models/diffusion_models``."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(random_flow_transformer(seed).state_dict(), path)


def write_flow_vae(path: Path, seed: int = 0) -> None:
    """Write an ``AutoencoderTiny`` of 16 channels with random weights, for ``models/vae``."""
    from diffusers import AutoencoderTiny
    from safetensors.torch import save_file

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = AutoencoderTiny(latent_channels=CHANNELS)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tiny_autoencoder_to_ldm(net.state_dict(), scaling_factor=1.0), path)
