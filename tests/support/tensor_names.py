"""The names of tensors, and their shapes, by which the parts of models are told: text encoders, VAEs, towers and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from llmga.diffusion.unet_shapes import SD15
from llmga.restore import Architecture, DiffRIRS1

Shapes = Mapping[str, tuple[int, ...]]


def names(*given: str, shape: tuple[int, ...] = (4, 4)) -> Shapes:
    return dict.fromkeys(given, shape)


def inside(prefix: str, given: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in given.items()}


def without(given: Shapes, *parts: str) -> Shapes:
    return {name: shape for name, shape in given.items() if not any(part in name for part in parts)}


SD2 = replace(SD15, context=1024)
CLIP_L = names(
    "text_model.embeddings.token_embedding.weight",
    "text_model.embeddings.position_embedding.weight",
    "text_model.encoder.layers.0.layer_norm1.weight",
    "text_model.encoder.layers.0.mlp.fc1.weight",
    "text_model.encoder.layers.0.self_attn.k_proj.weight",
    "text_model.final_layer_norm.weight",
)
OPEN_CLIP = names(
    "positional_embedding",
    "text_projection",
    "token_embedding.weight",
    "transformer.resblocks.0.attn.in_proj_weight",
)
VAE_LDM = names(
    "encoder.conv_in.weight",
    "encoder.down.0.block.0.conv1.weight",
    "decoder.up.0.block.0.conv1.weight",
    "quant_conv.weight",
)
VAE_DIFFUSERS = names(
    "encoder.down_blocks.0.resnets.0.conv1.weight",
    "decoder.up_blocks.0.resnets.0.conv1.weight",
    "post_quant_conv.weight",
)
VISION = names(
    "vision_model.embeddings.class_embedding",
    "vision_model.embeddings.patch_embedding.weight",
    "vision_model.encoder.layers.0.mlp.fc1.weight",
    "vision_model.encoder.layers.0.self_attn.k_proj.weight",
    "vision_model.pre_layrnorm.weight",
)
SIGLIP = {
    **without(VISION, "class_embedding", "pre_layrnorm"),
    **names("vision_model.head.attention.in_proj_weight", "vision_model.head.probe"),
}
LLM = names(
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.gate_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
LDM_CONTROLNET = names(
    "control_model.input_blocks.0.0.weight",
    "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "control_model.input_hint_block.0.weight",
    "control_model.zero_convs.0.0.weight",
    "control_model.time_embed.0.weight",
)
UNET_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
DIFFRIR_S2 = names(
    "G.patch_embed.proj.weight",
    "G.encoder_level1.0.attn.temperature",
    "condition.E.0.weight",
    "denoise.resmlp.0.weight",
    "diffusion.betas",
)


def _first_stage() -> Shapes:
    with torch.device("meta"):
        net = DiffRIRS1(Architecture(dim=8, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1, n_feats=4))
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


DIFFRIR_S1 = _first_stage()
