"""Editing real pictures: sessions, inversion, prompt alignment, attention control, blending, and two editors."""

from .codec import DiffusersCodec, LatentCodec
from .control import Blend, Control
from .editor import Edited, edit
from .flow import flow_edit, rf_inversion_edit
from .inversion import OnStep, Trajectory, invert
from .prompt_to_prompt import PromptToPromptOptions, ResolvedEdit, build_control
from .session import EditResult, EditSession, EditSettings, Inversion, WordMaps

__all__ = [
    "Blend",
    "Control",
    "DiffusersCodec",
    "EditResult",
    "EditSession",
    "EditSettings",
    "Edited",
    "Inversion",
    "LatentCodec",
    "OnStep",
    "PromptToPromptOptions",
    "ResolvedEdit",
    "Trajectory",
    "WordMaps",
    "build_control",
    "edit",
    "flow_edit",
    "invert",
    "rf_inversion_edit",
]
