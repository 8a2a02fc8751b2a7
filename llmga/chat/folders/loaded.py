"""What every reader that loads through transformers shares: its arguments, and the check of what was loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ...files.json_files import read_object
from ..engines.stream import FolderSampling

_log = logging.getLogger(__name__)

LOCAL_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Arguments of every ``from_pretrained``: nothing is downloaded, and no code of the folder runs."""


def check_loaded(info: dict[str, Any]) -> None:
    """Raise ``ValueError`` for weights out of place, of which transformers only warns: they leave a model that writes
    nonsense.

    Args:
        info: transformers' ``output_loading_info``.
    """
    for fault, of in (("missing", "its files"), ("unexpected", "the model"), ("mismatched", "the model")):
        keys = sorted(key[0] if isinstance(key, tuple) else key for key in info.get(f"{fault}_keys", ()))
        if keys:
            raise ValueError(
                f"{len(keys)} tensors are {fault} in {of}: {', '.join(keys[:3])}{', …' * (len(keys) > 3)}"
            )


_NEUTRAL = {
    "min_p": (None, 0, 0.0),
    "typical_p": (None, 1, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
}
"""Settings of a ``generation_config.json`` that this library's own sampling has no part for, and what changes nothing."""
_REQUESTS = ("temperature", "top_p")
_MOST_TOKENS = 1 << 31
MAX_PENALTY = 100.0


def read_sampling(
    folder: Path, defaults: Mapping[str, Any] = MappingProxyType({})
) -> tuple[FolderSampling, tuple[str, ...]]:
    """The sampling settings that a folder asks for, and sentences on what is applied, not applied, and the request's.

    The sentences also go to the log. A setting that is not a number of its range is passed over, and said.

    Args:
        defaults: what holds where the folder's generation_config.json says nothing of a key.
    """
    path = folder / "generation_config.json"
    try:
        settings = {**defaults, **(read_object(path) if path.is_file() else {})}
    except ValueError:  # transformers passes over a damaged one, too
        return FolderSampling(), ("generation_config.json cannot be read and was passed over",)
    found, left_out = _sound(settings)
    left_out += [key for key, neutral in _NEUTRAL.items() if settings.get(key) not in neutral]
    suggested = [key for key in _REQUESTS if settings.get(key) not in (None, 1)]
    notes = []
    for keys, words in (
        (list(found), "{} applied"),
        (suggested, "{} suggested; temperature and top_p are those of the request"),
        (left_out, "{} asked for, which is not applied"),
    ):
        if keys:
            listed = ", ".join(f"{key} {settings[key]!r:.40}" for key in keys)
            notes.append("generation_config.json: " + words.format(listed))
    for note in notes:
        _log.info("%s: %s", folder.name, note)
    return FolderSampling(**found), tuple(notes)


def _sound(settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings that change something and are of their range, and the names of those that are not."""
    found: dict[str, Any] = {}
    wrong: list[str] = []
    for key, is_sound, neutral in (("top_k", _is_top_k, 0), ("repetition_penalty", _is_penalty, 1)):
        value = settings.get(key)
        if value is None or (type(value) in (int, float) and value == neutral):
            continue
        if is_sound(value):
            found[key] = value
        else:
            wrong.append(key)
    return found, wrong


def _is_top_k(value: Any) -> bool:
    return type(value) is int and 0 < value < _MOST_TOKENS


def _is_penalty(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value <= MAX_PENALTY


def log_dtype(folder: Path, net: Any, asked: torch.dtype | None) -> None:
    """Say which dtype the weights have where none was asked for."""
    if asked is None:
        _log.info("%s: no dtype was asked for; its weights stay %s", folder.name, net.dtype)
