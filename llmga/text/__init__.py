"""Long prompts for CLIP: chunking, LLMGA's two layouts, and CLIP's tokenizer without a download."""

from .chunks import Layout, Plan, Token, chunk_ids, join, plan, read, same_length, weigh
from .encoder import encode_sd15, encode_sdxl
from .prompt import BreakAt, parse_weights, spans
from .readout import readout
from .tokenizer import clip_tokenizer

__all__ = [
    "BreakAt",
    "Layout",
    "Plan",
    "Token",
    "chunk_ids",
    "clip_tokenizer",
    "encode_sd15",
    "encode_sdxl",
    "join",
    "parse_weights",
    "plan",
    "read",
    "readout",
    "same_length",
    "spans",
    "weigh",
]
