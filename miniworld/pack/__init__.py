"""A ComfyUI node pack without nodes that teaches ComfyUI the miniature's architecture.

ComfyUI recognises a Stable Diffusion checkpoint by its widths, and knows SD1.5 at 320 and 768 only. This pack adds the
miniature's widths to ComfyUI's list, for single files and for UNets of a diffusers folder. It stands on its own, so that
tools and tests can link this folder into ``custom_nodes``; it is no part of what an artist installs.
"""

from __future__ import annotations

from typing import Any

from .sizes import CONTEXT_DIM, HEADS, MODEL_CHANNELS, TEXT, WIDTHS


def comfy_unet_config(widths: tuple[int, ...]) -> dict[str, Any]:
    """What ComfyUI finds out about a UNet of the miniature in a single file, but for ``in_channels``."""
    attending = [0, *[1] * (len(widths) - 1)]
    return {
        "use_checkpoint": False,
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "adm_in_channels": None,
        "out_channels": 4,
        "model_channels": MODEL_CHANNELS,
        "num_res_blocks": [1] * len(widths),
        "transformer_depth": attending,
        "transformer_depth_output": [depth for depth in attending for _ in range(2)],
        "channel_mult": [width // MODEL_CHANNELS for width in widths],
        "transformer_depth_middle": 1,
        "use_linear_in_transformer": False,
        "context_dim": CONTEXT_DIM,
        "use_temporal_resblock": False,
        "use_temporal_attention": False,
    }


async def comfy_entrypoint() -> Any:
    from comfy_api.latest import ComfyExtension

    class MiniatureExtension(ComfyExtension):
        async def get_node_list(self) -> list[Any]:
            return []

    register()
    return MiniatureExtension()


def register() -> None:
    """Add the miniature to the models that this ComfyUI recognises."""
    import comfy.model_detection
    import comfy.sd1_clip
    import comfy.supported_models
    import comfy.supported_models_base

    class MiniatureCLIP(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, model_options=None, **kwargs):
            super().__init__(
                model_options={**(model_options or {}), "clip_l_model_config": dict(TEXT)}, **kwargs
            )

    class MiniatureSD15(comfy.supported_models.SD15):
        unet_config = {
            **comfy.supported_models.SD15.unet_config,
            "context_dim": CONTEXT_DIM,
            "model_channels": MODEL_CHANNELS,
        }
        unet_extra_config = {"num_heads": HEADS, "num_head_channels": -1}

        def clip_target(self, state_dict=None):
            return comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, MiniatureCLIP)

    comfy.supported_models.models.insert(0, MiniatureSD15)

    known = comfy.model_detection.unet_config_from_diffusers_unet

    def unet_config_from_diffusers_unet(state_dict, dtype=None):
        found = known(state_dict, dtype)
        first = state_dict.get("conv_in.weight")
        if found is None and first is not None and len(first) == MODEL_CHANNELS:
            levels = 1 + max(
                int(name.split(".")[1]) for name in state_dict if name.startswith("down_blocks.")
            )
            widths = next(widths for widths in WIDTHS.values() if len(widths) == levels)
            # A ControlNet is built of this alone; a UNet gets the number of its heads from MiniatureSD15.
            return {**comfy_unet_config(widths), "in_channels": first.shape[1], "num_heads": HEADS}
        return found

    comfy.model_detection.unet_config_from_diffusers_unet = unet_config_from_diffusers_unet
