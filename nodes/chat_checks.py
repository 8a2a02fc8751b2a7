"""What can be said of a chat node before anything runs: when a prompt is queued, and before a language model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..llmga.chat import Task, check_pictures
from ..llmga.chat.tasks import get_task
from . import host
from .own_tasks import find_task


def complaint(
    node: Any,
    task: Any,
    instruction: Any,
    links: Mapping[str, str],
    allowed: list[str],
    earlier: bool = False,
) -> bool | str:
    """For ``validate_inputs``: True, or what is wrong with a request, in the words that the node would use later.

    Args:
        node: the node's class.
        task, instruction: the widgets' values; None where they are linked or left out.
        links: the types of what is linked, by input.
        allowed: the values of 'task', the first of which is its default.
        earlier: pictures may have been shown earlier in the conversation.
    """
    wrong = host.wrong_link(node, links)
    if wrong or "task" in links:
        return wrong or True
    # What a linked picture or mask holds is known later; whether there is one, now.
    shown = "image" in links
    try:
        asked = find_task(allowed[0] if task is None else task, allowed)
        if "instruction" not in links:
            require_words(asked, instruction or "")
        check_pictures(asked, image=shown or earlier, mask=not shown or "mask" in links)
    except ValueError as error:
        return str(error)
    return True


def require_words(task: str | Task, instruction: Any) -> None:
    """Raise the error of a task that needs words and has none."""
    asked = get_task(task)
    if asked.needs_instruction and not str(instruction).strip():
        raise ValueError(f"the task {asked.name!r} needs words to work with, but 'instruction' is empty")
