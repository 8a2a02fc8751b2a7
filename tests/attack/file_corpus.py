"""Hostile files by name: changes of a good file, of any kind and of safetensors.

A change takes a folder or file that a loader takes, and breaks it in place.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Change = Callable[[Path, random.Random], None]
CANARY = "llmga-attack-code-ran"


class Runs:
    """Unpickled, it runs a command."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.place}'",)


def replaced(content: bytes | str) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda path, rng: rewrite(path, data)


def rewrite(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    rewrite(path, data[: rng.randrange(len(data))])


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(min(len(data), rng.choice((64, 4096, len(data)))))] ^= 1 << rng.randrange(8)
    rewrite(path, bytes(data))


def grown(path: Path, rng: random.Random) -> None:
    rewrite(path, path.read_bytes() + bytes(rng.randrange(1, 5000)))


def code(path: Path, rng: random.Random) -> None:
    rewrite(path, pickle.dumps(Runs(path.with_name(CANARY))))


def fifo(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def folder(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def dangling(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.with_name("not there"))


def loop(path: Path, rng: random.Random) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def gone(path: Path, rng: random.Random) -> None:
    path.unlink()


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4000000000\n"
ANY_FILE: dict[str, Change] = {
    "cut": cut,
    "flipped bits": flipped,
    "something after its end": grown,
    "empty": replaced(b""),
    "zeros": replaced(bytes(10_000)),
    "LFS pointer": replaced(LFS),
    "HTML page": replaced("<!DOCTYPE html><html><head><title>404</title></head></html>"),
    "GGUF": replaced(b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(200)),
    "zip": replaced(b"PK\x03\x04" + bytes(300)),
    "code in a pickle": code,
    "FIFO": fifo,
    "folder": folder,
    "dangling link": dangling,
    "link to itself": loop,
    "missing": gone,
}


def header(change: Callable[[dict[str, Any]], Any]) -> Change:
    """Another header of a safetensors file, with the bytes as they are."""

    def apply(path: Path, rng: random.Random) -> None:
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        tensors = json.loads(data[8 : 8 + length])
        text = change(tensors)
        text = (text if isinstance(text, str) else json.dumps(tensors)).encode()
        rewrite(path, struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def first(tensors: dict[str, Any]) -> dict[str, Any]:
    return next(value for name, value in tensors.items() if name != "__metadata__")


def every(path: Path, change: Callable[[Any], Any]) -> None:
    """All tensors of a safetensors file changed."""
    from safetensors.torch import load_file, save_file

    tensors = {name: change(value.clone()).contiguous() for name, value in load_file(path).items()}
    path.unlink()
    save_file(tensors, path, {"format": "pt"})


def one_value(value: float) -> Change:
    def change(tensor: Any) -> Any:
        if tensor.is_floating_point() and tensor.numel():
            tensor.view(-1)[0] = value
        return tensor

    return lambda path, rng: every(path, change)


def many_tensors(path: Path, rng: random.Random) -> None:
    empty = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    text = json.dumps(empty).encode()
    rewrite(path, struct.pack("<Q", len(text)) + text)


SAFETENSORS: dict[str, Change] = {
    "header of 2**63 bytes": replaced(struct.pack("<Q", 2**63) + b"{}"),
    "header that is a list": header(lambda _: "[]"),
    "header without an end": header(lambda _: "{" * 2000),
    "100,000 tensors": many_tensors,
    "shape of 10**12": header(lambda t: first(t).update(shape=[10**6, 10**6])),
    "shape of infinity": header(lambda t: json.dumps(t).replace("[", "[1e999, ", 1)),
    "negative shape": header(lambda t: first(t).update(shape=[-1])),
    "shape of text": header(lambda t: first(t).update(shape=["a"])),
    "no shape": header(lambda t: first(t).pop("shape")),
    "scalar shape": header(lambda t: first(t).update(shape=[])),
    "unknown type": header(lambda t: first(t).update(dtype="Q7")),
    "offsets beyond the end": header(lambda t: first(t).update(data_offsets=[0, 10**15])),
    "offsets turned": header(lambda t: first(t).update(data_offsets=[100, 0])),
    "offsets of text": header(lambda t: first(t).update(data_offsets=["0", "1"])),
    "tensor that is null": header(lambda t: t.update(zzz=None)),
    "metadata that is a list": header(lambda t: t.update(__metadata__=[1])),
    "name that is an attribute": header(lambda t: t.update({"a.__class__.__init__": first(t)})),
    "NaN weight": one_value(float("nan")),
    "infinite weight": one_value(float("inf")),
    "integer weights": lambda path, rng: every(path, lambda t: t.int()),
    "truth values": lambda path, rng: every(path, lambda t: t.bool()),
    "complex weights": lambda path, rng: every(path, lambda t: t.to(__import__("torch").complex64)),
    "double weights": lambda path, rng: every(path, lambda t: t.double()),
    "transposed": lambda path, rng: every(path, lambda t: t.transpose(0, -1) if t.ndim > 1 else t),
    "flattened": lambda path, rng: every(path, lambda t: t.flatten()),
    "scalars": lambda path, rng: every(path, lambda t: t.flatten()[:1].reshape(())),
}
MUST_REFUSE = {
    "cut", "something after its end", "empty", "zeros", "LFS pointer", "HTML page", "GGUF", "zip", "code in a pickle",
    "FIFO", "folder", "dangling link", "link to itself", "missing", "NaN weight", "infinite weight", "integer weights",
    "truth values", "complex weights", "100,000 tensors", "shape of 10**12", "header that is a list",
}  # fmt: skip
"""Changes of weights after which nothing may be loaded."""


def copied(source: Path, target: Path) -> None:
    """A tree of hard links where that is possible: a change writes a new file."""
    shutil.copytree(source, target, copy_function=_linked)


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
