"""GILL: a frozen language model that generates pictures, retrieves pictures, and decides which.

Source: J. Y. Koh, D. Fried, R. Salakhutdinov, "Generating Images with Multimodal Language Models", 2023, and the released
code, kohjingyu/gill 4600b71 (Apache-2.0). The code here is our own; tests hold it to that one.
"""

from .answer import Decision, GILLReply, Match, ReplyPicture, answer
from .checkpoint import load_decision, load_parts, save_decision, save_parts
from .heads import HEAD_KINDS
from .language import FrozenLanguage, load_language
from .model import GILL, ReplyOptions
from .parts import DecisionModel, GILLParts, GILLSizes
from .vision import FrozenVision, load_vision

__all__ = [
    "GILL",
    "HEAD_KINDS",
    "Decision",
    "DecisionModel",
    "FrozenLanguage",
    "FrozenVision",
    "GILLParts",
    "GILLReply",
    "GILLSizes",
    "Match",
    "ReplyOptions",
    "ReplyPicture",
    "answer",
    "load_decision",
    "load_language",
    "load_parts",
    "load_vision",
    "save_decision",
    "save_parts",
]
