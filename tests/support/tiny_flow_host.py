"""The transformers of ``tiny_flow`` as ComfyUI's MODEL, with the same weights; for host tests only."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .comfy_inprocess import start, tiny_clip
from .tiny_clip import WIDTH_L, fill
from .tiny_flow import CHANNELS, CONFIGS, transformer

_SD3 = CONFIGS["sd3"]
HOST: dict[str, dict[str, Any]] = {
    "sd3": {
        "in_channels": CHANNELS,
        "out_channels": CHANNELS,
        "patch_size": 2,
        "depth": _SD3["num_layers"],
        "input_size": None,
        "adm_in_channels": _SD3["pooled_projection_dim"],
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": _SD3["joint_attention_dim"], "out_features": 128},
        },
        "num_patches": _SD3["pos_embed_max_size"] ** 2,
        "pos_embed_max_size": _SD3["pos_embed_max_size"],
        "pos_embed_scaling_factor": None,
    },
    "flux": {
        "image_model": "flux",
        "axes_dim": [4, 6, 6],
        "num_heads": 2,
        "mlp_ratio": 4.0,
        "theta": 10000,
        "out_channels": CHANNELS,
        "qkv_bias": True,
        "txt_ids_dims": [],
        "in_channels": CHANNELS,
        "hidden_size": 32,
        "context_in_dim": WIDTH_L,
        "vec_in_dim": WIDTH_L,
        "patch_size": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "guidance_embed": True,
    },
    "qwen_image": {
        "image_model": "qwen_image",
        "in_channels": 4 * CHANNELS,
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": WIDTH_L,
        "axes_dims_rope": (4, 6, 6),
    },
    "z_image": {
        "image_model": "lumina2",
        "patch_size": 2,
        "in_channels": CHANNELS,
        "dim": 288,
        "cap_feat_dim": WIDTH_L,
        "n_layers": 2,
        "n_refiner_layers": 1,
        "qk_norm": True,
        "n_heads": 9,
        "n_kv_heads": 9,
        "axes_dims": [8, 12, 12],
        "axes_lens": [256, 32, 32],
        "rope_theta": 256.0,
        "ffn_dim_multiplier": 8.0 / 3.0,
        "z_image_modulation": True,
        "time_scale": 1000.0,
        "pad_tokens_multiple": 32,
    },
}
KINDS = {"sd3": "SD3", "flux": "Flux", "qwen_image": "QwenImage", "z_image": "ZImage"}


def host_model(family: str, net: Any) -> Any:
    """The host's MODEL with the weights of a ``tiny_flow.transformer``."""
    start()
    supported, detection, patcher = (
        importlib.import_module(f"comfy.{name}")
        for name in ("supported_models", "model_detection", "model_patcher")
    )
    config = getattr(supported, KINDS[family])(dict(HOST[family]))
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    if family == "z_image":  # of a smaller network than the real one, its width follows from the network's
        embedder = importlib.import_module("comfy.ldm.modules.diffusionmodules.mmdit").TimestepEmbedder
        operations = {"dtype": torch.float32, "operations": torch.nn}
        model.diffusion_model.t_embedder = embedder(1024, output_size=256, **operations)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    if family != "qwen_image":  # whose names are diffusers' own
        weights = detection.convert_diffusers_mmdit(weights)
    model.diffusion_model.load_state_dict(weights)
    cpu = torch.device("cpu")
    return patcher.ModelPatcher(model, cpu, cpu)


CLIPS = {"sd3": "sd3", "flux": "flux", "qwen_image": "qwen", "z_image": "qwen"}
"""Names of ``comfy_inprocess.tiny_clip``; Qwen-Image gets the encoder of Z-Image, which is as wide here."""


def vae(family: str) -> Any:
    """ComfyUI's VAE with random weights: TAESD of 16 channels, and for Qwen-Image Wan 2.1's, which takes frames."""
    start()
    sd, taesd, wan = (
        importlib.import_module(f"comfy.{name}") for name in ("sd", "taesd.taesd", "ldm.wan.vae")
    )
    sizes = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "dropout": 0.0}
    video = {"image_channels": 3, "conv_out_channels": 3, "temperal_downsample": [False, True, True]}
    if family == "qwen_image":
        net = wan.WanVAE(dim=8, z_dim=CHANNELS, **sizes, **video)
    else:
        net = taesd.TAESD(latent_channels=CHANNELS)
    # ComfyUI's layers come without values; a convolution is filled like a matrix, by its number of inputs.
    parameters = net.named_parameters()
    fill(
        ((name, p.detach().flatten(1) if p.ndim > 2 else p.detach()) for name, p in parameters if p.ndim > 0),
        f"vae {family}",
    )
    return sd.VAE(sd=net.state_dict())


def trio(family: str) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE, as ComfyUI's loaders give them."""
    return host_model(family, transformer(family)), tiny_clip(CLIPS[family]), vae(family)
