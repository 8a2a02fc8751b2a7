"""File contents by their first bytes: a weight file, or one of the usual accidents of a download."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from .kinds import AGAIN, Kind, Registry, WrongFileError, fault, shown

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors format."""
SAFE = (".safetensors", ".sft")
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
HEAD = 512
"""Bytes that tell what a file is."""

Contents = Literal["safetensors", "torch"]
_UNPACK = "unpack it and choose the weight file inside"
_CHOOSE = "choose a safetensors or PyTorch file"


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


def _matches(pattern: bytes) -> Callable[[bytes], bool]:
    search = re.compile(pattern, re.IGNORECASE | re.DOTALL).match
    return lambda head: search(head) is not None


ACCIDENTS: Registry[bytes] = Registry(
    (
        Kind("an empty file", lambda head: not head, AGAIN),
        Kind(
            "a Git LFS pointer and not the file itself",
            _begins(b"version https://git-lfs"),
            "run `git lfs pull`, or download it again",
        ),
        Kind(
            "a web page, often a login or an error page of the download site",
            _matches(rb"\s*<(!doctype|html|head|body|\?xml|error)"),
            AGAIN,
        ),
        Kind(
            "an error message of the download site",
            _matches(
                rb"(Entry|Repository|File|Not) (not )?found|Invalid (username|credentials)|Access to model"
            ),
            AGAIN,
        ),
        Kind("a JSON text", _matches(rb"(\xef\xbb\xbf)?\s*[{\[]\s*([\"{\[\]}]|\Z)"), _CHOOSE),
        Kind(
            "a GGUF file",
            _begins(b"GGUF"),
            "ComfyUI has no GGUF loader of its own; take the safetensors file of the model",
        ),
        Kind(
            "a picture",
            _matches(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|BM....\0\0\0\0"),
            _CHOOSE,
        ),
        Kind(
            "an archive (gzip, 7z, RAR, xz or zstd)",
            _begins(b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"),
            _UNPACK,
        ),
        Kind("a tar archive", lambda head: head[257:262] == b"ustar", _UNPACK),
        Kind("an HDF5 file (Keras or TensorFlow)", _begins(b"\x89HDF"), _CHOOSE),
        Kind("an ONNX network", _matches(rb"\x08[\x01-\x0f]\x12.(pytorch|onnx|tf2onnx|skl2onnx)"), _CHOOSE),
    )
)


UNKNOWN_CONTENTS = fault("not a weight file", _CHOOSE)
ZIP = fault("a zip archive without weights", _UNPACK)
TORCHSCRIPT = fault("a TorchScript program", "take the file of its weights alone")
RENAMED_PICKLE = fault("a pickle under another name", "download the safetensors file again")
NOT_A_FILE = fault("a folder or a device and not a file", "choose a file")


def accident(head: bytes) -> Kind | None:
    """The accident that a file beginning with these bytes is."""
    return None if _is_safetensors(head) else ACCIDENTS.find(head)


def contents_of(path: Path) -> Contents:
    """Whether a file is a safetensors or a PyTorch file, by its first bytes.

    Raises:
        FileNotFoundError: there is no such file, or it is a link to a missing one.
        WrongFileError: it is neither; says what it is.
    """
    check_is_file(path)
    with path.open("rb") as file:
        head = file.read(HEAD)
    # The length of a safetensors header may begin like a pickle, a zip or a picture: it is asked for first.
    if _is_safetensors(head):
        return "safetensors"
    if (found := ACCIDENTS.find(head)) is not None:
        raise WrongFileError(path, found)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"\x80")):
        if path.suffix.lower() in SAFE:
            raise WrongFileError(path, RENAMED_PICKLE)
        if head.startswith(b"PK"):
            _check_archive(path)
        return "torch"
    raise WrongFileError(path, UNKNOWN_CONTENTS, f"it begins with {head[:8]!r}")


def check_is_file(path: Path) -> None:
    """Raise unless ``path`` is a regular file, which can be opened without waiting for anything.

    Raises:
        FileNotFoundError: there is nothing, or a link to nothing.
        WrongFileError: a folder, a pipe or a device.
    """
    if path.is_file():
        return
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{shown(path)} is a link to {path.readlink().name}, which is missing; {AGAIN}"
        )
    if path.exists():
        raise WrongFileError(path, NOT_A_FILE)
    raise FileNotFoundError(f"{shown(path)} is missing; {AGAIN}")


def _is_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return  # its end is missing: the reader of the weights says so
    if not any(name.rpartition("/")[2] == "data.pkl" for name in names):
        raise WrongFileError(path, ZIP)
    if any("/code/" in name for name in names):
        raise WrongFileError(path, TORCHSCRIPT)
