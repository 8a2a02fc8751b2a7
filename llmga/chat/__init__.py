"""What the assistant says: conversations, tasks, tags and the engines that continue a chat."""

from .assistant import Policy, Reply, respond
from .batch import Failed, respond_each, shortcomings
from .conversation import Conversation, Picture, Turn
from .engines.base import ChatEngine, OnText, Said, Sampling
from .presets import LANGUAGES, MAX_PAGES
from .refusal import is_refusal
from .tags import ParsedReply, parse
from .task_files import PromptStyle, read_styles, read_tasks
from .tasks import SYSTEM_PROMPT, TASKS, Task, check_pictures, render
from .transcript import MAX_TRANSCRIPT, read_transcript

__all__ = [
    "LANGUAGES",
    "MAX_PAGES",
    "MAX_TRANSCRIPT",
    "SYSTEM_PROMPT",
    "TASKS",
    "ChatEngine",
    "Conversation",
    "Failed",
    "OnText",
    "ParsedReply",
    "Picture",
    "Policy",
    "PromptStyle",
    "Reply",
    "Said",
    "Sampling",
    "Task",
    "Turn",
    "check_pictures",
    "is_refusal",
    "parse",
    "read_styles",
    "read_tasks",
    "read_transcript",
    "render",
    "respond",
    "respond_each",
    "shortcomings",
]
