"""What every reader that loads through transformers shares: its arguments, and the check of what was loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ...files.json_files import read_object

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
    "top_k": (None, 0, 50),
    "repetition_penalty": (None, 1, 1.0),
    "min_p": (None, 0, 0.0),
    "typical_p": (None, 1, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "presence_penalty": (None, 0, 0.0),
    "frequency_penalty": (None, 0, 0.0),
}
"""Settings of a ``generation_config.json`` that this library's own sampling has no part for, and what changes nothing."""


def settings_left_out(folder: Path) -> tuple[str, ...]:
    """A sentence on the sampling settings that a folder asks for and does not get, if there are any; it goes to the log."""
    path = folder / "generation_config.json"
    try:
        settings = read_object(path) if path.is_file() else {}
    except ValueError:  # transformers passes over a damaged one, too
        return ("generation_config.json cannot be read and was passed over",)
    asked = [
        f"{key} {settings[key]!r:.40}"
        for key, neutral in _NEUTRAL.items()
        if settings.get(key) not in neutral
    ]
    if not asked:
        return ()
    note = f"generation_config.json asks for {', '.join(asked)}, which is not applied: only temperature and top_p are"
    _log.info("%s: %s", folder.name, note)
    return (note,)


def log_dtype(folder: Path, net: Any, asked: torch.dtype | None) -> None:
    """Say which dtype the weights have where none was asked for."""
    if asked is None:
        _log.info("%s: no dtype was asked for; its weights stay %s", folder.name, net.dtype)
