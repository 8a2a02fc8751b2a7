"""A Stable Diffusion checkpoint of one file: three networks under their single-file (LDM) names, and back.

ComfyUI loads them under the prefixes ``model.diffusion_model.``, ``cond_stage_model.transformer.`` and
``first_stage_model.``.

Source: the layout of CompVis/latent-diffusion ``openaimodel.py``; diffusers ``UNet2DConditionModel``, ``AutoencoderTiny``.
"""

from __future__ import annotations

import torch

from llmga.diffusion.ldm import unet_to_ldm

StateDict = dict[str, torch.Tensor]


def tiny_autoencoder_to_ldm(state_dict: StateDict, scaling_factor: float = 0.18215) -> StateDict:
    """Rename the weights of a diffusers ``AutoencoderTiny`` to the TAESD names.

    Its latents have unit variance already, so the file carries SD's ``scaling_factor`` for the host to divide out.
    The decoder's names move by one: TAESD counts the clamp in front of it as a layer.
    """
    renamed = {}
    for name, value in state_dict.items():
        side, _, index, rest = name.split(".", 3)
        number = int(index) + (1 if side == "decoder" else 0)
        renamed[f"taesd_{side}.{number}.{rest}"] = value
    return renamed | {"vae_scale": torch.tensor(scaling_factor), "vae_shift": torch.tensor(0.0)}


def text_encoder_to_ldm(state_dict: StateDict) -> StateDict:
    """Rename the weights of a transformers ``CLIPTextModel``; newer releases leave out the ``text_model.`` prefix."""
    return {
        name if name.startswith("text_model.") else f"text_model.{name}": value
        for name, value in state_dict.items()
    }


def unet_from_ldm(state_dict: StateDict, like: StateDict) -> StateDict:
    """Undo ``unet_to_ldm``; ``like`` is a state dict of the diffusers net that is to be filled.

    Raises:
        KeyError: a weight of that net is not in the file.
    """
    return {old: state_dict[new] for old, new in zip(like, unet_to_ldm(like), strict=True)}


def tiny_autoencoder_from_ldm(state_dict: StateDict) -> StateDict:
    """Undo ``tiny_autoencoder_to_ldm``."""
    renamed = {}
    for name, value in state_dict.items():
        if name.startswith("taesd_"):
            side, index, rest = name.removeprefix("taesd_").split(".", 2)
            number = int(index) - (1 if side == "decoder" else 0)
            renamed[f"{side}.layers.{number}.{rest}"] = value
    return renamed


def text_encoder_from_ldm(state_dict: StateDict, like: StateDict) -> StateDict:
    """Undo ``text_encoder_to_ldm``; ``like`` is a state dict of the transformers net that is to be filled.

    Raises:
        KeyError: a weight of that net is not in the file.
    """
    return {old: state_dict[new] for old, new in zip(like, text_encoder_to_ldm(like), strict=True)}


def single_file(unet: StateDict, text_encoder: StateDict, autoencoder: StateDict) -> StateDict:
    """One checkpoint out of the three renamed state dicts, contiguous and without shared storage."""
    parts = {
        "model.diffusion_model.": unet,
        "cond_stage_model.transformer.": text_encoder,
        "first_stage_model.": autoencoder,
    }
    return {
        prefix + name: value.clone().contiguous()
        for prefix, part in parts.items()
        for name, value in part.items()
    }


def parts_of_single_file(state_dict: StateDict) -> tuple[StateDict, StateDict, StateDict]:
    """Undo ``single_file``: the UNet, the text encoder and the autoencoder under their LDM names."""
    unet, text_encoder, autoencoder = (
        {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        for prefix in ("model.diffusion_model.", "cond_stage_model.transformer.", "first_stage_model.")
    )
    return unet, text_encoder, autoencoder
