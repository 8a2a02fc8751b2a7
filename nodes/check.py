"""Widget values, checked again inside ``execute``.

ComfyUI checks a widget only when nobody links to it, and lets NaN through; every value here may come from a stranger's
workflow. Each function returns the value it was given or raises a ``ValueError`` that names the input.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..llmga.images import holes

MAX_TEXT = 200_000

# Names become file names on every system: no separators, no leading dot, no device name of Windows.
MAX_NAME = 64
MAX_NAME_BYTES = 200  # of the 255 that file systems allow, less the suffix and a temporary file's
_NOT_IN_NAMES = frozenset('<>:"/\\|?*')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..{0,99})?", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def text(name: str, value: Any, *, limit: int = MAX_TEXT) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} must be text, got {type(value).__name__}")
    if len(value) > limit:
        raise ValueError(f"{name} holds {len(value)} characters, at most {limit} are allowed")
    broken = _SURROGATE.search(value)
    if broken:
        raise ValueError(
            f"{name} holds half a surrogate pair (a broken emoji) at character {broken.start() + 1}, which no tokenizer "
            "takes; delete it"
        )
    return value


def optional_text(name: str, value: Any, *, limit: int = MAX_TEXT) -> str:
    """``text``, or an empty one for null, of which ComfyUI makes the word None before a node sees it."""
    return (
        ""
        if value is None or (isinstance(value, str) and value == "None")
        else text(name, value, limit=limit)
    )


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options) or '(none)'}; got {_short(value)}")
    return value


def integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {_short(value)}")
    return value


def number(name: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number from {low:g} to {high:g}, got {_short(value)}")
    return float(value)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {_short(value)}")
    return value


def instance(name: str, value: Any, kind: type, wanted: str) -> Any:
    """``value`` if it is a ``kind``; ``wanted`` tells a person which node makes one."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must come from {wanted}, got {type(value).__name__}")
    return value


def vae(value: Any) -> Any:
    """The value of the input "vae": looked at before the work whose result it decodes."""
    if not hasattr(value, "encode") or not hasattr(value, "decode"):
        raise ValueError(
            f"vae must be a VAE, got {type(value).__name__}; the checkpoint may hold none: connect Load VAE"
        )
    return value


def finite(said: str, value: torch.Tensor, advice: str) -> None:
    """
    Raises:
        ValueError: the numbers of ``value`` are not all finite, which the sums of a network in half precision may be.
    """
    if not torch.isfinite(value).all():
        raise ValueError(f"{said} NaN or infinite numbers; {advice}")


def file_name(name: str, value: Any) -> str:
    """A plain name, in any script, that is safe as a file name on every system: no path, no hidden file, no device."""
    if not is_file_name(value):
        raise ValueError(
            f"{name} must be a plain name of up to {MAX_NAME} characters (no folders, none of "
            f"{' '.join(sorted(_NOT_IN_NAMES))}, no dot or space at either end), got {_short(value)}"
        )
    return unicodedata.normalize("NFC", value)


def is_file_name(value: Any) -> bool:
    """Whether ``file_name`` would take it."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_NAME
        and value.isprintable()  # neither control characters nor those that change the direction of writing
        and not _NOT_IN_NAMES & set(value)
        and value == value.strip(". ")
        and len(unicodedata.normalize("NFC", value).encode("utf-8", "replace")) <= MAX_NAME_BYTES
        and not _DEVICES.fullmatch(value)
    )


def image(name: str, value: Any) -> torch.Tensor:
    """An IMAGE as float32: BHWC with 1, 3 or 4 channels, finite, at least one picture of 1×1.

    Half and double pictures are taken (``--fp16-intermediates`` and several packs give them) and converted here, so that
    no node mixes two float types.
    """
    wanted = "an IMAGE (batch, height, width, 1, 3 or 4 channels)"
    tensor = _dense(name, value, wanted)
    if tensor.ndim != 4 or tensor.shape[-1] not in (1, 3, 4):
        raise ValueError(f"{name} must be {wanted}, got {_shape(tensor)}")
    return _floats(name, tensor)


def mask(name: str, value: Any) -> torch.Tensor:
    """A MASK as float32 BHW, 0 .. 1: (H, W), (B, H, W), (B, 1, H, W) and (B, H, W, 1) are taken.

    What a hole is, is said by ``llmga.images.holes``: a value below 1/64 is 0.
    """
    wanted = "a MASK (batch, height, width)"
    tensor = _dense(name, value, wanted)
    if tensor.ndim == 2:
        tensor = tensor[None]
    elif tensor.ndim == 4 and tensor.shape[1] == 1:
        tensor = tensor[:, 0]
    elif tensor.ndim == 4 and tensor.shape[-1] == 1:
        tensor = tensor[..., 0]
    if tensor.ndim != 3:
        raise ValueError(f"{name} must be {wanted}, got {_shape(value)}")
    return holes(_floats(name, tensor.float() if tensor.dtype == torch.bool else tensor))


def _dense(name: str, value: Any, wanted: str) -> torch.Tensor:
    """``value`` if it is an ordinary tensor with its numbers in memory; without its history of gradients."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} must be {wanted}, got {type(value).__name__}")
    kinds = {
        "nested": value.is_nested,
        "quantised": value.is_quantized,
        "meta": value.is_meta,
        str(value.layout).removeprefix("torch."): value.layout != torch.strided,
    }
    for kind, found in kinds.items():
        if found:
            raise ValueError(f"{name} must be {wanted} as a plain dense tensor, got a {kind} one")
    return value.detach()


def _floats(name: str, value: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, with at least one number, all of them finite."""
    if 0 in value.shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(value.shape)}")
    if value.dtype not in _FLOATS:
        raise ValueError(
            f"{name} must hold floating-point numbers from 0 to 1 (float16, bfloat16, float32 or float64), got "
            f"{str(value.dtype).removeprefix('torch.')}; look at the node that made it"
        )
    value = value.to(torch.float32)
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinite values; look at the node that made it")
    return value


def _shape(value: Any) -> str:
    return (
        f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
    )


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "…"


@contextmanager
def about(name: str) -> Iterator[None]:
    """Put the name of an input before what the library says about its value."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
