"""What every reader that loads through transformers shares: its arguments, and the check of what was loaded."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ...files.header import Header
from ...files.json_files import read_object
from ..engines.stream import FolderSampling
from ..engines.weight_only import quantise

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


_STORED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float32}


def stored_dtype(header: Header) -> torch.dtype:
    """The type in which most bytes of a folder's weights are stored; bfloat16 for those of 8 bits."""
    sizes: dict[str, int] = {}
    for weight in header.values():
        sizes[weight.dtype] = sizes.get(weight.dtype, 0) + math.prod(weight.shape)
    return _STORED.get(max(sizes, key=lambda name: sizes[name]), torch.bfloat16)


def quantise_loaded(net: Any, bits: int, dtype: torch.dtype | None) -> str:
    """Quantise a model that was loaded in the type of its files, so that its weights are views of them, and give the rest
    the type that it computes in.

    Args:
        net: it is changed.
        bits: 8 or 4.
        dtype: None is that of the files.

    Returns:
        A sentence on what was quantised.
    """
    stored = net.dtype
    said = quantise(net, bits)
    float32 = tuple(getattr(net, "_keep_in_fp32_modules", None) or ())
    for name, weight in net.named_parameters():
        if dtype is not None and weight.dtype == stored:
            in_float32 = dtype == torch.float16 and any(part in name for part in float32)  # as transformers
            weight.data = weight.data.to(torch.float32 if in_float32 else dtype)
    return str(said)


def log_dtype(folder: Path, net: Any, asked: torch.dtype | None) -> None:
    """Say which dtype the weights have where none was asked for."""
    if asked is None:
        _log.info("%s: no dtype was asked for; its weights stay %s", folder.name, net.dtype)
