"""What every reader that loads through transformers shares: its arguments, and the check of what was loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

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


def log_dtype(folder: Path, net: Any, asked: torch.dtype | None) -> None:
    """Say which dtype the weights have where none was asked for."""
    if asked is None:
        _log.info("%s: no dtype was asked for; its weights stay %s", folder.name, net.dtype)
