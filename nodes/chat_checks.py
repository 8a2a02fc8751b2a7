"""What can be said of a chat node before anything runs: when a prompt is queued, and before a language model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..llmga.chat import Conversation, Picture, Task, Turn, check_pictures
from ..llmga.chat.conversation import MAX_PICTURES, MAX_TURNS
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


def require_room(history: Conversation, settled: Sequence[Turn], pictures: Sequence[Picture]) -> None:
    """Raise ``ValueError`` where this exchange has no room in its conversation.

    Args:
        history: what came from 'history'.
        settled: the turns of 'transcript'.
        pictures: of 'image', without those that 'transcript' shows.
    """
    shown = {
        "image": len(pictures),
        "history": len(history.pictures),
        "transcript": sum(len(turn.pictures) for turn in settled),
    }
    if sum(shown.values()) > MAX_PICTURES:
        raise ValueError(
            f"a conversation holds at most {MAX_PICTURES} pictures, got {sum(shown.values())}: {_parts(shown)}; "
            f"{_way_out(shown)}"
        )
    turns = {"history": len(history.turns), "transcript": len(settled)}
    if sum(turns.values()) + 2 > MAX_TURNS:
        raise ValueError(
            f"a conversation holds at most {MAX_TURNS} turns, and this exchange would add 2 to {sum(turns.values())}: "
            f"{_parts(turns)}; {_way_out(turns)}"
        )


def _parts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} from {name!r}" for name, count in counts.items() if count)


def _way_out(counts: Mapping[str, int]) -> str:
    ways = {
        "image": "show fewer, or let LLMGA Chat per Picture ask about each by itself",
        "history": "go on from an earlier 'history', or disconnect it to begin anew",
        "transcript": "press Clear in the panel to begin anew",
    }
    # One picture on top of a full history is not one too many.
    return "; or ".join(way for name, way in ways.items() if counts.get(name, 0) > (name == "image"))
