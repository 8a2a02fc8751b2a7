"""What the assistant says: conversations, tasks, tags and the engines that continue a chat."""

from .assistant import Policy, Reply, respond
from .conversation import Conversation, Picture, Turn
from .engines.base import ChatEngine, OnText, Sampling
from .refusal import is_refusal
from .tags import ParsedReply, parse
from .tasks import SYSTEM_PROMPT, TASKS, Task, check_pictures, render

__all__ = [
    "SYSTEM_PROMPT",
    "TASKS",
    "ChatEngine",
    "Conversation",
    "OnText",
    "ParsedReply",
    "Picture",
    "Policy",
    "Reply",
    "Sampling",
    "Task",
    "Turn",
    "check_pictures",
    "is_refusal",
    "parse",
    "render",
    "respond",
]
