"""Teach this ComfyUI the miniature architecture, for the demo and the tests, and only when they ask.

ComfyUI recognises a checkpoint by its widths, and knows SD1.5 at 320/768 alone. With ``LLMGA_MINI=1`` in the environment
the miniature's widths are added to its list, for single files and for UNets of a diffusers folder; without, nothing of
the host is touched.
"""

from __future__ import annotations

import os

from ..llmga.diffusion.ldm import unet_to_ldm
from ..llmga.mini.architecture import CONTEXT_DIM, HEADS, MODEL_CHANNELS, TEXT

VARIABLE = "LLMGA_MINI"


def register_if_asked() -> None:
    if os.environ.get(VARIABLE) == "1":
        _register()


def _register() -> None:
    import comfy.model_detection
    import comfy.sd1_clip
    import comfy.supported_models
    import comfy.supported_models_base

    class MiniCLIP(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, model_options=None, **kwargs):
            super().__init__(
                model_options={**(model_options or {}), "clip_l_model_config": dict(TEXT)}, **kwargs
            )

    class MiniSD15(comfy.supported_models.SD15):
        unet_config = {
            **comfy.supported_models.SD15.unet_config,
            "context_dim": CONTEXT_DIM,
            "model_channels": MODEL_CHANNELS,
        }
        unet_extra_config = {"num_heads": HEADS, "num_head_channels": -1}

        def clip_target(self, state_dict=None):
            return comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, MiniCLIP)

    comfy.supported_models.models.insert(0, MiniSD15)

    known = comfy.model_detection.unet_config_from_diffusers_unet

    def unet_config_from_diffusers_unet(state_dict, dtype=None):
        found = known(state_dict, dtype)
        stem = state_dict.get("conv_in.weight")
        if found is None and stem is not None and len(stem) == MODEL_CHANNELS:
            return comfy.model_detection.detect_unet_config(unet_to_ldm(state_dict), "")
        return found

    comfy.model_detection.unet_config_from_diffusers_unet = unet_config_from_diffusers_unet
