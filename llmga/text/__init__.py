"""Long prompts for CLIP: chunks, LLMGA's two layouts, prompt encoders, and CLIP's tokenizer without a download."""

from .chunks import JoinLayout, Plan, Token, Whole, chunk_ids, join_chunks, plan_chunks, plan_prompt, weigh
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
from .prompt import BreakAt, has_break, parse_weights, spans
from .readout import dropped_line, readout
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
    "Whole",
    "chunk_ids",
    "clip_tokenizer",
    "dropped_line",
    "encode_sd15",
    "encode_sdxl",
    "has_break",
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
