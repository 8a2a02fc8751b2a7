"""Long prompts for CLIP: chunks, LLMGA's two layouts, prompt encoders, and CLIP's tokenizer without a download."""

from .chunks import JoinLayout, Plan, Token, chunk_ids, join_chunks, plan_chunks, plan_prompt, weigh
from .encoder import (
    CLIPPromptEncoder,
    EncodedPrompt,
    Plans,
    PromptEncoder,
    encode_sd15,
    encode_sdxl,
    longest,
    number_chunks,
)
from .prompt import BreakAt, parse_weights, spans
from .readout import readout
from .tokenizer import clip_tokenizer

__all__ = [
    "BreakAt",
    "CLIPPromptEncoder",
    "EncodedPrompt",
    "JoinLayout",
    "Plan",
    "Plans",
    "PromptEncoder",
    "Token",
    "chunk_ids",
    "clip_tokenizer",
    "encode_sd15",
    "encode_sdxl",
    "join_chunks",
    "longest",
    "number_chunks",
    "parse_weights",
    "plan_chunks",
    "plan_prompt",
    "readout",
    "spans",
    "weigh",
]
