"""Tiny diffusion models with one set of weights in ComfyUI and in diffusers, and what an edit needs around them.

For host tests only; ``comfy_inprocess.start`` comes first.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .comfy_inprocess import pack, start, tiny_clip
from .tiny_clip import WIDTH_G, WIDTH_L

_SHARED: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2, "norm_num_groups": 32}
# The blocks of the real ones, so that the sites have their real names; SDXL's depths and SD1.5's four levels.
DIFFUSERS: dict[str, dict[str, Any]] = {
    "sd15": {
        **_SHARED,
        "block_out_channels": (32, 64, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "cross_attention_dim": WIDTH_L,
        "attention_head_dim": 8,
    },
    "sdxl": {
        **_SHARED,
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": WIDTH_L + WIDTH_G,
        "attention_head_dim": (4, 8, 8),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": WIDTH_G + 6 * 256,
    },
}
HOST: dict[str, dict[str, Any]] = {
    "sd15": {
        "model_channels": 32,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 2, 2],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3,
        "num_heads": 8,
        "num_head_channels": -1,
        "context_dim": WIDTH_L,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
    },
    "sdxl": {
        "model_channels": 32,
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 2],
        "transformer_depth": [0, 0, 1, 1, 2, 2],
        "transformer_depth_middle": 2,
        "transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2],
        "num_heads": -1,
        "num_head_channels": 8,
        "context_dim": WIDTH_L + WIDTH_G,
        "use_linear_in_transformer": True,
        "num_classes": "sequential",
        "adm_in_channels": WIDTH_G + 6 * 256,
    },
}


def diffusers_unet(kind: str, seed: int = 0) -> Any:
    """A ``UNet2DConditionModel`` ("sd15" or "sdxl") whose answers are small, as a trained one's changes are."""
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet2DConditionModel(**DIFFUSERS[kind])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            # Attention that tells its tokens apart: as initialised, all words of a tiny net look alike.
            if "to_q" in name or "to_k" in name:
                parameter.mul_(3)
            if name.startswith("conv_out"):
                parameter.mul_(
                    0.05
                )  # or else rounding grows from step to step: no trained net is that chaotic
    return net.eval()


def host_model(
    kind: str, net: Any, *, dtype: torch.dtype = torch.float32, v: bool = False, channels: int = 4
) -> Any:
    """The host's MODEL with the weights of ``diffusers_unet`` (with ``channels`` other than 4: of nothing)."""
    start()
    base, supported, patcher = (
        importlib.import_module(f"comfy.{name}")
        for name in ("model_base", "supported_models", "model_patcher")
    )
    config = {
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "in_channels": channels,
        "out_channels": 4,
        "use_temporal_attention": False,
        "dtype": dtype,
        **HOST[kind],
    }
    parent = supported.SD15 if kind == "sd15" else supported.SDXL
    prediction = base.ModelType.V_PREDICTION if v else base.ModelType.EPS

    class Tiny(parent):
        unet_extra_config = {}  # would set the heads of the real one

        def model_type(self, state_dict, prefix=""):
            return prediction

    described = Tiny(config)
    described.set_inference_dtype(dtype, None)
    model = described.get_model({}, "", device=torch.device("cpu"))
    if channels == 4:
        weights = pack("llmga.diffusion.ldm").unet_to_ldm(net.state_dict())
        model.diffusion_model.load_state_dict({name: value.to(dtype) for name, value in weights.items()})
    cpu = torch.device("cpu")
    return patcher.ModelPatcher(model, cpu, cpu)


def conditioning(clip: Any, text: str) -> Any:
    """A prompt in the layout llmga, one chunk or as many as it needs."""
    options = {"weights": False, "break_at": "hard", "max_chunks": 4, "min_chunks": 1}
    node = pack("nodes.encode").LongCLIPEncode
    return node.execute(clip, text, "llmga", empty_negative="encode", match_chunks=False, **options)[0]


def vae() -> Any:
    """ComfyUI's VAE of the miniature's random autoencoder: TAESD's, 8 pixels a latent."""
    start()
    net = importlib.import_module("miniworld.models.random_diffusion").random_pipeline(seed=3).vae
    with torch.no_grad():
        net.encoder.layers[-1].weight.mul_(
            60
        )  # latents of a trained one's size, beside which rounding is small
    weights = net.state_dict()
    named = importlib.import_module("miniworld.models.single_file").tiny_autoencoder_to_ldm(weights)
    return importlib.import_module("comfy.sd").VAE(sd=named)


def trio(kind: str, **options: Any) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE, as Load Checkpoint gives them."""
    return host_model(kind, diffusers_unet(kind), **options), tiny_clip(kind), vae()
