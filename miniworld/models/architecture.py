"""The miniature Stable Diffusion: SD1.5's architecture at a width that runs anywhere.

The widths are multiples of 32 (GroupNorm) and whole multiples of the first (ComfyUI divides them when it looks at a
checkpoint), the four attention heads are the same at every level, and the autoencoder has TAESD's layout: so diffusers
and ComfyUI both build it, ComfyUI once ``miniworld/pack`` has added the two widths. The lower level attends to
the text: its cells are 16 pixels wide, an object's place 42. (At 16 × 16 latents too, a step takes 1.7 times as long.)
"""

from ..pack.sizes import CONTEXT_DIM, HEADS, MODEL_CHANNELS, TEXT

__all__ = ["CONTEXT_DIM", "HEADS", "MODEL_CHANNELS", "PICTURE", "SCHEDULER", "TEXT", "UNET"]

PICTURE = 128  # pixels; 16 latents

UNET = {
    "sample_size": PICTURE // 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (MODEL_CHANNELS, 2 * MODEL_CHANNELS),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": CONTEXT_DIM,
    "attention_head_dim": HEADS,  # diffusers reads this as the number of heads, for SD1.5 too
    "norm_num_groups": 32,
}

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
