"""The tasks and styles of the chat nodes: the built-in ones, and those that the machine's owner adds as files.

The files are Markdown in ``user/__llmga/tasks`` and ``user/__llmga/styles`` (``llmga.chat.task_files`` says how they look).
They are read anew whenever ComfyUI lists its nodes, so R in the page shows a new one.
"""

from __future__ import annotations

from ..llmga.chat import TASKS, PromptStyle, Task, read_styles, read_tasks
from . import check, host

NO_STYLE = "default"
"""The system prompt as it is: a paragraph of plain English."""

_said: set[str] = set()


def task_names(built_in: tuple[str, ...] = tuple(TASKS), *, pictures: bool = False) -> list[str]:
    """The values of a 'task' input: the built-in ones, then those of files; with ``pictures`` those about a picture."""
    own, skipped = read_tasks(host.private_directory() / "tasks")
    _log(skipped)
    return [*built_in, *(name for name, task in own.items() if task.needs_picture or not pictures)]


def find_task(name: object, allowed: list[str]) -> str | Task:
    """The task of that name, a built-in one by its name.

    Raises:
        ValueError: it is not among those that are allowed; a file of that name that was skipped is named with its reason.
    """
    own, skipped = read_tasks(host.private_directory() / "tasks")
    reasons = [reason for reason in skipped if reason.startswith(f"tasks/{name}.md ")]
    if reasons:
        raise ValueError(f"task: {reasons[0]}")
    chosen = check.choice("task", name, allowed)
    return own.get(chosen, chosen)


def style_names() -> list[str]:
    """The values of the 'style' input."""
    found, skipped = read_styles(host.private_directory() / "styles")
    _log(skipped)
    return [NO_STYLE, *found]


def find_style(name: object) -> PromptStyle | None:
    """The style of that name, None for the system prompt as it is.

    Raises:
        ValueError: there is none.
    """
    found, _ = read_styles(host.private_directory() / "styles")
    return found.get(check.choice("style", name, [NO_STYLE, *found]))


def skipped_files() -> tuple[str, ...]:
    """A sentence for each file that was skipped, for the person who writes it."""
    folder = host.private_directory()
    return (*read_tasks(folder / "tasks")[1], *read_styles(folder / "styles")[1])


def _log(skipped: tuple[str, ...]) -> None:
    for reason in skipped:
        if reason not in _said:
            _said.add(reason)
            host.logger.warning("LLMGA: %s", reason)
