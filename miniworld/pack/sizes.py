"""Widths of the miniature Stable Diffusion, which ComfyUI must know to recognise its files."""

MODEL_CHANNELS = 64
WIDTHS = {128: (64, 128), 256: (64, 64, 128)}
"""The UNet's channels at full size, half size, …, for pictures of 128 and of 256 pixels. All levels but the first
attend to the text: at 256 pixels those of 16 × 16 and 8 × 8 cells."""
CONTEXT_DIM = 96
HEADS = 4

TEXT = {
    "hidden_size": CONTEXT_DIM,
    "intermediate_size": 4 * CONTEXT_DIM,
    "num_attention_heads": HEADS,
    "num_hidden_layers": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "projection_dim": CONTEXT_DIM,
}
"""The text encoder: a configuration of transformers' ``CLIPTextModel``."""
