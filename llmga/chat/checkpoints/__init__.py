"""LLMGA's released language models: every family straight from its folder, or converted for transformers and vLLM."""

from .convert import convert
from .families import FAMILIES, Family, chat_template, find_family
from .join import JoinOptions, join
from .official import Checkpoint, is_official, read_checkpoint
from .options import CheckpointOptions

__all__ = [
    "FAMILIES",
    "Checkpoint",
    "CheckpointOptions",
    "Family",
    "JoinOptions",
    "chat_template",
    "convert",
    "find_family",
    "is_official",
    "join",
    "read_checkpoint",
]
