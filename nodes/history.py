"""Save History and Load History: conversations by name, in a folder that the server does not serve."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from comfy_api.latest import io

from ..llmga.chat import Conversation
from ..llmga.files.writing import what_to_do, write_text
from . import check, host
from .types import History

NONE_SAVED = "(no saved history)"


class SaveHistory(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_SaveHistory",
            display_name="LLMGA Save History",
            category="LLMGA/chat",
            description="Saves a conversation with its pictures under a name, to go on with it after a restart. "
            "A conversation of that name is replaced.",
            search_aliases=["save chat", "save conversation", "session"],
            is_output_node=True,
            inputs=[
                History.Input("history", tooltip="The conversation to save, from LLMGA Chat."),
                io.String.Input(
                    "name",
                    default="conversation",
                    optional=True,
                    tooltip="Up to 64 characters of any script: a name, never a path.",
                ),
            ],
            outputs=[
                History.Output(display_name="history", tooltip="The same conversation, for the next node.")
            ],
        )

    @classmethod
    @host.guarded
    def execute(cls, history, name) -> io.NodeOutput:
        check.instance("history", history, Conversation, "LLMGA Chat or Load History")
        try:
            save(history, check.file_name("name", name))
        except OSError as error:
            raise ValueError(
                f"the history {name!r} cannot be saved as histories/{name}.json in ComfyUI's user folder "
                f"{host.private_directory().name}: {what_to_do(error)}, then press Run again; the conversation is still in "
                "the chat, and what was saved under this name before is as it was"
            ) from error
        return io.NodeOutput(history, ui={"text": [f"saved {len(history.turns)} turns as {name}"]})


class LoadHistory(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="LLMGA_LoadHistory",
            display_name="LLMGA Load History",
            category="LLMGA/chat",
            description="Loads a conversation that Save History saved.",
            search_aliases=["load chat", "load conversation", "session"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=host.names_on_disk(saved_names) or [NONE_SAVED],
                    tooltip="A saved conversation. Press R in ComfyUI after saving a new one to see it here.",
                )
            ],
            outputs=[History.Output(display_name="history", tooltip="The conversation, for LLMGA Chat.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name) -> str:
        try:
            return host.state_of_choice(saved(), name)
        except (OSError, ValueError, RuntimeError) as error:  # said when the node runs
            return type(error).__name__

    @classmethod
    @host.guarded
    def execute(cls, name) -> io.NodeOutput:
        files = saved()
        path = files[check.choice("name", name, list(files))]
        try:
            return io.NodeOutput(Conversation.from_json(path.read_text(encoding="utf-8")))
        except (ValueError, OSError) as error:
            raise ValueError(
                f"the saved history {name!r} cannot be read: {error}; choose another name"
            ) from error


def history_path(name: str) -> Path:
    return host.private_directory() / "histories" / f"{check.file_name('name', name)}.json"


def saved() -> dict[str, Path]:
    """The files that Load History can load, by the names that Save History would give them, in order.

    A file that came from a Mac may have the letters and the accents of its name apart; Save History writes them together.
    """
    files = [
        path
        for path in (host.private_directory() / "histories").glob("*.json")
        if check.is_file_name(path.stem)
    ]
    names = {unicodedata.normalize("NFC", path.stem): path for path in sorted(files) if path.is_file()}
    return dict(sorted(names.items()))


def saved_names() -> list[str]:
    """The names that Load History offers."""
    return list(saved())


def save(conversation: Conversation, name: str) -> None:
    """Write the whole file or none of it, whenever the machine stops."""
    write_text(history_path(name), conversation.to_json(), mode=0o600)


NODES = [SaveHistory, LoadHistory]
