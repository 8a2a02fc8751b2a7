"""What the chat panel shows: the record that goes out with a chat node's output, and the pictures it names.

The panel draws a conversation from the node's widgets and from this record; nothing here changes what a workflow does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..llmga.chat import Picture, Reply, Turn
from ..llmga.files.writing import what_to_do, write_bytes
from . import host

logger = logging.getLogger(__name__)

KEY = "llmga_chat"
"""Of the record: in a node's ``ui`` and, so that a saved picture brings its conversation back, in its properties."""

MAX_EARLIER = 100_000
"""Characters of the turns from the ``history`` socket that are shown; the oldest are left out first."""


def record(
    reply: Reply,
    earlier: Sequence[Turn],
    task: str,
    instruction: str,
    *,
    edited: bool = False,
    remarks: Sequence[str] = (),
) -> dict[str, Any]:
    """The last exchange, as the next transcript would hold it, and what the history socket brought.

    Where a picture cannot be put where the page sees it, the reply is still given, and ``notes`` says what is missing.

    Args:
        edited: a person wrote the reply, or chose an earlier one.
        remarks: what else is to be said beside the reply.
    """
    notes: dict[str, None] = {}
    *_, asked, answered = reply.conversation.turns
    shown: list[dict[str, Any]] = []
    room = MAX_EARLIER
    for turn in reversed(earlier):
        room -= len(turn.text)
        if room < 0:
            break
        shown.insert(0, as_json(turn, notes))
    exchange = [{**as_json(asked, notes), "task": task, "instruction": instruction}, as_json(answered, notes)]
    return {
        "exchange": exchange,
        "prompts": list(reply.prompts),
        "earlier": shown,
        "omitted": len(earlier) - len(shown),
        **({"notes": [*remarks, *notes]} if notes or remarks else {}),
        "thought": reply.thought[:MAX_EARLIER],
        **({"edited": True} if edited else {}),
    }


def as_json(turn: Turn, notes: dict[str, None]) -> dict[str, Any]:
    """A turn with the names of its pictures, which are then there to be shown, or ``notes`` says why not."""
    for picture in turn.pictures:
        try:
            show(picture)
        except OSError as error:
            note = (
                f"A picture of this conversation cannot be shown again: {what_to_do(error)}, in {host.PICTURES} in "
                "ComfyUI's temp folder. The reply and the output 'history' are whole; Save History keeps them."
            )
            if note not in notes:
                logger.warning("LLMGA Chat: %s", note)
            notes[note] = None
    return {"role": turn.role, "text": turn.text, "images": [picture.sha256 for picture in turn.pictures]}


def show(picture: Picture) -> None:
    """Put a picture where the page can see it; ComfyUI empties this folder when it starts and ends.

    Raises:
        OSError: the disk is full or read-only, or another thing stands there.
    """
    path = host.shown_picture(picture.sha256)
    if not path.is_file():
        write_bytes(path, picture.png)


def kept(sha256: str) -> Picture:
    """The picture that a transcript names, whose pixels must be those that its name promises.

    Raises:
        ValueError: it is not there, or is another.
    """
    path: Path = host.kept_picture(sha256)
    name = f"{host.PICTURES}/{sha256[:12]}….png in ComfyUI's input folder"
    try:
        with Image.open(path, formats=("PNG",)) as image:
            picture = Picture.from_pil(image)
    except FileNotFoundError:
        raise ValueError(
            f"'transcript' shows the picture {name}, which is not there; put it back, or clear the conversation"
        ) from None
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"'transcript' shows the picture {name}, which cannot be read: {error}") from error
    if picture.sha256 != sha256:
        raise ValueError(
            f"'transcript' shows the picture {name}, which holds other pixels than its name says"
        )
    return picture


def remember(metadata: Any, node_id: str, record: dict[str, Any]) -> None:
    """Leave the record in the workflow that saved pictures carry, on the node that made it.

    The workflow was written before there was a reply. It is the client's and may be anything: where the node is not
    found, nothing happens.
    """
    graph = metadata.get("workflow") if isinstance(metadata, dict) else None
    definitions = _get(_get(graph, "definitions"), "subgraphs")
    *path, last = node_id.split(":")
    for one in path:
        kind = _get(_by_id(_get(graph, "nodes"), one), "type")
        graph = _by_id(definitions, str(kind))
    node = _by_id(_get(graph, "nodes"), last)
    if node is not None:
        properties = node.get("properties")
        node["properties"] = {**(properties if isinstance(properties, dict) else {}), KEY: record}


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _by_id(values: Any, wanted: str) -> dict[str, Any] | None:
    for value in values if isinstance(values, list) else ():
        if isinstance(value, dict) and str(value.get("id")) == wanted:
            return value
    return None
