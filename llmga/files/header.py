"""What a weight file holds, told by its header alone: names, shapes and types, and the usual accidents by name."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch

MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors format
SAFE = (".safetensors", ".sft")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")


class Weight(NamedTuple):
    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: F16, BF16, F32, F8_E4M3, I8 …"""


Header = Mapping[str, Weight]
Kind = Literal["empty", "pointer", "page", "gguf", "torch", "safetensors"]
_ACCIDENTS = {
    "empty": "empty; download it again",
    "pointer": "a Git LFS pointer and not the file itself; run `git lfs pull`",
    "page": "an HTML page (often a login or an error page of the download site); download it again",
    "gguf": "a GGUF file; take the safetensors file of the model",
}
_DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}


def read_header(path: Path) -> dict[str, Weight]:
    """Names, shapes and types of a file's weights; the weights themselves are not read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no whole safetensors or PyTorch file; the text says what it is instead.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent.name}/{path.name} is missing; download it again")
    if path.suffix in SAFE:
        return _safetensors_header(path)
    if path.suffix in PICKLES:
        return _pickle_header(path)
    raise ValueError(
        f"{path.name} is no weight file: its name must end in one of {', '.join(SAFE + PICKLES)}"
    )


def damaged(path: Path, cause: str) -> str:
    return f"{path.parent.name}/{path.name} ({path.stat().st_size:,} bytes) is {cause}"


def kind_of(head: bytes) -> Kind | None:
    """What a file is, by its first 64 bytes; "torch" is a zip or a bare pickle."""
    if not head:
        return "empty"
    # Before the others: a header's length may begin like a pickle or a zip.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER:
        return "safetensors"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    if head.startswith(b"version https://git-lfs"):
        return "pointer"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "page"
    return "gguf" if head.startswith(b"GGUF") else None


def foreign_kind(head: bytes) -> str | None:
    """In words what a file that begins with these bytes is, if it is one of the usual accidents."""
    kind = kind_of(head)
    return None if kind is None else _ACCIDENTS.get(kind)


def _safetensors_header(path: Path) -> dict[str, Weight]:
    """8 bytes with the header's length, the header as JSON, then the tensors without a gap."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        length = int.from_bytes(head[:8], "little")
        kind = kind_of(head)
        if kind == "torch":
            raise ValueError(
                damaged(path, "a pickle under another name; download the safetensors file again")
            )
        if kind != "safetensors":
            raise ValueError(damaged(path, foreign_kind(head) or "no safetensors file; download it again"))
        file.seek(8)
        text = file.read(length)
    if len(text) < length:
        raise ValueError(damaged(path, "cut off inside its header: half a download; download it again"))
    try:
        tensors = json.loads(text)
        tensors.pop("__metadata__", None)
        found = {
            name: Weight(tuple(int(side) for side in one["shape"]), str(one["dtype"]))
            for name, one in tensors.items()
        }
        whole = 8 + length + max((int(one["data_offsets"][1]) for one in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(
            damaged(path, f"a safetensors file with an unreadable header ({error}); download it again")
        ) from error
    if size != whole:
        why = "cut off: half a download" if size < whole else "longer than its header says"
        raise ValueError(damaged(path, f"{why} (its header says {whole:,} bytes); download it again"))
    return found


def _pickle_header(path: Path) -> dict[str, Weight]:
    """A PyTorch file's state dict on the meta device; code in it is refused, never run."""
    with path.open("rb") as file:
        if cause := foreign_kind(file.read(64)):
            raise ValueError(damaged(path, cause))
    try:
        # A zip is mapped, so that nothing but its index and its pickle is read; the older format is read whole.
        state = torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises whatever its parser met
        why = (
            "holds more than weights, and was not opened" if "Unsupported" in str(error) else "cannot be read"
        )
        raise ValueError(
            damaged(path, f"a PyTorch file that {why} ({type(error).__name__}); take the safetensors file")
        ) from error
    for key in ("state_dict", "params_ema", "params"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise ValueError(damaged(path, f"a PyTorch file of a {type(state).__name__} and no weights"))
    return {
        str(name): Weight(tuple(value.shape), _DTYPES.get(value.dtype, str(value.dtype)))
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
