"""Training samples as ``messages`` JSONL, which today's trainers of language models read.

One line is one conversation with the pictures that it shows. ``trl`` has a list of parts as the content of each message;
``ms-swift`` and ``llama-factory`` have text in which ``<image>`` stands for a picture, and for the latter a
``dataset_info.json`` is written beside.

Source: TRL 1.16, ``data_utils.prepare_multimodal_messages``; ms-swift, "Custom dataset"; LLaMA-Factory, ``data/README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from ..files.writing import replacing, write_text
from .samples import Sample
from .schemas import IMAGE_MARK

MessageLayout = Literal["trl", "ms-swift", "llama-factory"]
_LAYOUTS: tuple[MessageLayout, ...] = get_args(MessageLayout)
_INFO = "dataset_info.json"


def write_messages(samples: Iterable[Sample], path: Path, layout: MessageLayout) -> int:
    """Write samples as JSONL; the number of lines.

    Pictures are named by their full paths. A picture with a hole is written anew, with the hole black as the model is to see
    it, into the folder ``NAME_pictures`` beside the file. For ``llama-factory`` an entry named as the file is added to
    ``dataset_info.json`` beside it.

    Args:
        path: of the ``.jsonl`` file, replaced as a whole or not at all.

    Raises:
        ValueError: no such layout, a sample's text holds ``<image>`` itself where that stands for a picture, a picture
            cannot be read, or the ``dataset_info.json`` that is there is not a JSON object.
        OSError: a file cannot be written.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(_LAYOUTS)}, got {layout!r}")
    count = 0
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for count, sample in enumerate(samples, 1):
            try:
                line = to_messages(sample, layout, _shown(sample, path, count))
            except ValueError as error:
                raise ValueError(f"sample {count}: {error}") from error
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
    if layout == "llama-factory":
        _add_to_info(path)
    return count


def to_messages(sample: Sample, layout: MessageLayout, image: Path | None) -> dict[str, Any]:
    """One line of ``write_messages`` as a value; ``image`` is the file of what the sample shows.

    Raises:
        ValueError: a text holds ``<image>`` where that stands for a picture.
    """
    messages = [_message("system", sample.system, False, layout)] if sample.system else []
    messages += [_message(turn.role, turn.text, turn.shows_image, layout) for turn in sample.turns]
    shows = any(turn.shows_image for turn in sample.turns)
    return {"messages": messages, "images": [str(image)] if shows and image is not None else []}


def _message(role: str, text: str, shows_image: bool, layout: MessageLayout) -> dict[str, Any]:
    if layout == "trl":
        parts: list[dict[str, Any]] = [{"type": "image", "text": None}] if shows_image else []
        # Every part has the same keys and every content is a list: Arrow takes one type for each column.
        return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
    if IMAGE_MARK in text:
        raise ValueError(
            f"the {role}'s text holds {IMAGE_MARK}, which {layout} would take for a picture; use trl"
        )
    return {"role": role, "content": f"{IMAGE_MARK}{text}" if shows_image else text}


def _shown(sample: Sample, path: Path, number: int) -> Path | None:
    """The picture file of a sample; with a hole a new one."""
    picture = sample.picture() if sample.hole is not None else None
    if picture is None:
        return None if sample.image is None else sample.image.absolute()
    place = path.absolute().parent / f"{path.stem}_pictures" / f"{number:07}.png"
    with replacing(place) as temporary:
        picture.save(temporary, "PNG")
    return place


def _add_to_info(path: Path) -> None:
    place = path.with_name(_INFO)
    entry = {
        "file_name": path.name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
    try:
        known = json.loads(place.read_text("utf-8")) if place.exists() else {}
    except ValueError as error:
        raise ValueError(f"{place} is not valid JSON ({error}); mend or remove it") from error
    if not isinstance(known, dict):
        raise ValueError(f"{place} must hold a JSON object, got a {type(known).__name__}; mend or remove it")
    write_text(place, json.dumps({**known, path.stem: entry}, ensure_ascii=False, indent=2) + "\n")
