"""Headers of weight files: the names, shapes and types of all tensors, without reading the tensors."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .contents import contents_of
from .kinds import AGAIN, WrongFileError, fault

MAX_TENSORS = 20_000
"""Of one file; the largest published ones hold a few thousand."""
WRAPPERS = ("params_ema", "params", "state_dict")
"""Where BasicSR, Lightning and others keep the weights in a PyTorch file; the first that is there is taken."""
_DEPTH = 6  # of dicts and lists in a PyTorch file whose tensors are listed


class Weight(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    """A key of ``BITS``."""


Header = Mapping[str, Weight]

BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Types of the safetensors format (``Dtype`` in safetensors/src/tensor.rs) and the size of one number in bits."""

_TORCH_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e5m2": "F8_E5M2",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ",
    "float8_e5m2fnuz": "F8_E5M2FNUZ",
}
CUT_OFF = fault("cut off: half a download", AGAIN)
TOO_LONG = fault("longer than its header says", AGAIN)
BAD_HEADER = fault("a safetensors file with an unreadable header", AGAIN)
NEW_TYPE = fault(
    "a safetensors file with an unknown type of numbers", "take the file in fp16, or update LLMGA"
)
TOO_MANY = fault(f"a file of more than {MAX_TENSORS:,} tensors", "choose another file")
NO_WEIGHTS = fault("a file without a single weight", AGAIN)
DAMAGED_TORCH = fault("a damaged or incomplete PyTorch file", AGAIN)
NOT_TENSORS = fault(
    "a PyTorch file of something else than tensors by name", "take the safetensors file of this model"
)
PICKLED_CODE = fault(
    "a PyTorch file that holds more than weights, could run code and was not opened",
    "take the safetensors file of this model",
)
TRAINING_STATE = fault(
    "the state of a training and not its weights",
    "take the weights, which BasicSR keeps in models/net_g_*.pth",
)


def read_header(path: Path) -> dict[str, Weight]:
    """Names, shapes and types of a file's weights; the weights themselves are not read.

    In a PyTorch file nothing is run. Weights inside one of ``WRAPPERS`` have the names that they have there; those in
    other dicts and lists have all names on the way to them, with dots between.

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is not a whole safetensors or PyTorch file, or holds no or more than ``MAX_TENSORS`` tensors.
    """
    header = _safetensors_header(path) if contents_of(path) == "safetensors" else _torch_header(path)
    if not header:
        raise WrongFileError(path, NO_WEIGHTS)
    return header


def header_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, Weight]:
    """The header that a file of these tensors has."""
    return {name: Weight(tuple(value.shape), _dtype_name(value.dtype)) for name, value in tensors.items()}


def read_metadata(path: Path) -> dict[str, str]:
    """The free texts of a safetensors header (``__metadata__``); a PyTorch file has none.

    Raises:
        FileNotFoundError: there is no such file.
        WrongFileError: it is not a weight file, or its header cannot be read.
    """
    if contents_of(path) != "safetensors":
        return {}
    metadata = _parse(path, _header_text(path)).get("__metadata__")
    return {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}


def _header_text(path: Path) -> bytes:
    """A safetensors file is 8 bytes with the header's length, the header as JSON, then the tensors without a gap."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length)
    if len(text) < length:
        raise WrongFileError(
            path, CUT_OFF, f"its header alone has {length:,} bytes, the file {8 + len(text):,}"
        )
    return text


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # add returns None
            raise ValueError(f"the key {twice[:200]!r} stands there twice")
        return found

    try:
        entries = json.loads(text, object_pairs_hook=unique)
        if not isinstance(entries, dict):
            raise ValueError(f"expected a JSON object, got {type(entries).__name__}")
    except (ValueError, RecursionError) as error:
        raise WrongFileError(path, BAD_HEADER, str(error)) from error
    return entries


_FIELDS = ("dtype", "shape", "data_offsets")


def _safetensors_header(path: Path) -> dict[str, Weight]:
    text = _header_text(path)
    entries = _parse(path, text)
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise WrongFileError(path, TOO_MANY, f"{len(entries):,}")
    for name, entry in entries.items():
        if missing := [key for key in _FIELDS if not isinstance(entry, dict) or entry.get(key) is None]:
            raise WrongFileError(path, BAD_HEADER, f"the tensor {name[:200]!r} has no {missing[0]}")
    types = {str(entry["dtype"]) for entry in entries.values()}
    if new := types - BITS.keys():
        raise WrongFileError(path, NEW_TYPE, ", ".join(sorted(new)))
    try:
        header = {name: _weight(name, entry) for name, entry in entries.items()}
        end = _check_offsets(entries, header)
    except (ValueError, TypeError, KeyError) as error:
        raise WrongFileError(path, BAD_HEADER, str(error)) from error
    size, expected = path.stat().st_size, 8 + len(text) + end
    if size != expected:
        kind = CUT_OFF if size < expected else TOO_LONG
        raise WrongFileError(path, kind, f"its header says {expected:,} bytes, it has {size:,}")
    return header


def _weight(name: str, entry: dict[str, Any]) -> Weight:
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"{name} has the shape {shape!r}")
    return Weight(tuple(shape), dtype)


def _check_offsets(entries: dict[str, Any], header: Header) -> int:
    """The end of the last tensor; each must begin where another ends, and be as long as its shape asks for."""
    places = sorted((*map(int, entry["data_offsets"]), name) for name, entry in entries.items())
    end = 0
    for start, stop, name in places:
        if start != end:
            raise ValueError(f"{name} {'overlaps another tensor' if start < end else 'begins after a gap'}")
        bits = math.prod(header[name].shape) * BITS[header[name].dtype]
        if 8 * (stop - start) != bits:
            raise ValueError(f"{name} has {stop - start:,} bytes, its shape asks for {bits / 8:,.0f}")
        end = stop
    return end


def _torch_header(path: Path) -> dict[str, Weight]:
    """A PyTorch file's content on the meta device, so that no weight is read."""
    content, _ = unwrap(load_torch(path, "meta"))
    if not isinstance(content, Mapping):
        raise WrongFileError(path, NOT_TENSORS, f"a {type(content).__name__}")
    found: dict[str, Weight] = {}
    _collect(content, "", found, _DEPTH)
    if len(found) > MAX_TENSORS:
        raise WrongFileError(path, TOO_MANY)
    if not found and {"optimizers", "optimizer", "param_groups"} & content.keys():
        raise WrongFileError(path, TRAINING_STATE)
    return found


def load_torch(path: Path, device: torch.device | str) -> Any:
    """``torch.load`` in its restricted form, which builds tensors and plain containers and runs nothing.

    A zip is mapped into memory, so that only what is used of it is read; the older format is read whole.

    Raises:
        WrongFileError: the file holds something else, or is damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever its parser met
        kind = PICKLED_CODE if "Unsupported" in str(error) else DAMAGED_TORCH
        reason = (str(error).splitlines() or [""])[0][:120]
        raise WrongFileError(
            path, kind, "" if kind is PICKLED_CODE else f"{type(error).__name__}: {reason}"
        ) from error


def unwrap(content: Any) -> tuple[Any, str | None]:
    """What is inside the first of ``WRAPPERS`` and which it was, or the content itself and None."""
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                return content[wrapper], wrapper
    return content, None


def _collect(value: Any, name: str, found: dict[str, Weight], depth: int) -> None:
    if isinstance(value, torch.Tensor):
        found[name] = Weight(tuple(value.shape), _dtype_name(value.dtype))
    elif depth and len(found) <= MAX_TENSORS:
        for key, item in _items(value):
            _collect(item, f"{name}.{key}" if name else str(key), found, depth - 1)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, (list, tuple)) else ()


def _dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return _TORCH_NAMES.get(name, name)
