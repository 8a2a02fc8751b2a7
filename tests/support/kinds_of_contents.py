"""Small files of every kind that stand where weights should: archives, pages, pictures, damaged and unsafe files."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from .weight_headers import write_sparse


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def _torch(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def _picture(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, kind)
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.safetensors", b"x")
    return out.getvalue()


def _safetensors(cut: int = 0, add: bytes = b"") -> bytes:
    path = Path("made.safetensors")
    write_sparse(path, {"a": (64,)})
    content = path.read_bytes()
    path.unlink()
    return content[: len(content) - cut] + add


def _torchscript() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("m/data.pkl", "m/code/__torch__.py", "m/version"):
            archive.writestr(name, b"3")
    return out.getvalue()


_VECTOR = torch.zeros(2)
CONTENTS: dict[str, tuple[str, Callable[[], bytes], str]] = {
    # What it is: the kind's name, the file's bytes, and the ending that its name has.
    "an empty file": ("an empty file", bytes, "safetensors"),
    "LFS pointer": (
        "a Git LFS pointer and not the file itself",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "safetensors",
    ),
    "HTML page": (
        "a web page, often a login or an error page of the download site",
        lambda: b"\n<!DOCTYPE html><html><title>Sign in</title></html>",
        "safetensors",
    ),
    "XML of a bucket": (
        "a web page, often a login or an error page of the download site",
        lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "safetensors",
    ),
    "error message": ("an error message of the download site", lambda: b"Entry not found", "safetensors"),
    "JSON": ("a JSON text", lambda: b'{"model_type": "llama"}', "safetensors"),
    "GGUF": ("a GGUF file", lambda: b"GGUF\x03\0\0\0\x10\0\0\0", "gguf"),
    "GGUF under another name": ("a GGUF file", lambda: b"GGUF\x03\0\0\0\x10\0\0\0", "safetensors"),
    "PNG": ("a picture", lambda: _picture("PNG"), "safetensors"),
    "JPEG": ("a picture", lambda: _picture("JPEG"), "pth"),
    "WebP": ("a picture", lambda: _picture("WEBP"), "pth"),
    "zip": ("a zip archive without weights", _zip, "pth"),
    "gzip": ("an archive (gzip, 7z, RAR, xz or zstd)", lambda: b"\x1f\x8b\x08\0\0\0\0\0", "pth"),
    "tar": ("a tar archive", lambda: bytes(257) + b"ustar\x0000" + bytes(248), "pth"),
    "HDF5": ("an HDF5 file (Keras or TensorFlow)", lambda: b"\x89HDF\r\n\x1a\n" + bytes(8), "pth"),
    "ONNX": ("an ONNX network", lambda: b"\x08\x07\x12\x07pytorch\x1a\x052.0.0", "pth"),
    "noise": ("not a weight file", lambda: bytes(range(100)), "safetensors"),
    "half a download": ("cut off: half a download", lambda: _safetensors(cut=10), "safetensors"),
    "cut in the header": ("cut off: half a download", lambda: _safetensors(cut=150), "safetensors"),
    "two downloads in one": ("longer than its header says", lambda: _safetensors(add=b"more"), "safetensors"),
    "no weight": ("a file without a single weight", lambda: (2).to_bytes(8, "little") + b"{}", "safetensors"),
    "pickle under another name": (
        "a pickle under another name",
        lambda: _torch({"a": _VECTOR}),
        "safetensors",
    ),
    "pickle with code": (
        "a PyTorch file that holds more than weights, could run code and was not opened",
        lambda: _torch({"a": Evil()}),
        "pth",
    ),
    "bare pickle with code": (
        "a PyTorch file that holds more than weights, could run code and was not opened",
        lambda: pickle.dumps(Evil(), protocol=2),
        "pth",
    ),
    "half a PyTorch file": (
        "a damaged or incomplete PyTorch file",
        lambda: _torch({"a": torch.zeros(999)})[:-200],
        "pth",
    ),
    "TorchScript": ("a TorchScript program", _torchscript, "pt"),
    "a tensor alone": (
        "a PyTorch file of something else than tensors by name",
        lambda: _torch(_VECTOR),
        "pth",
    ),
    "training state of BasicSR": (
        "the state of a training and not its weights",
        lambda: _torch({"epoch": 1, "iter": 2, "optimizers": [{"state": {0: {"exp_avg": _VECTOR}}}]}),
        "pth",
    ),
    "training state without a tensor": (
        "the state of a training and not its weights",
        lambda: _torch({"epoch": 1, "iter": 2, "optimizers": []}),
        "pth",
    ),
    "state of an optimizer": (
        "the state of a training and not its weights",
        lambda: _torch({"state": {0: {"exp_avg": _VECTOR}}, "param_groups": []}),
        "bin",
    ),
    "textual inversion (PyTorch)": (
        "a textual inversion embedding",
        lambda: _torch(
            {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": {"*": _VECTOR}, "name": "x"}
        ),
        "pt",
    ),
    "hypernetwork": (
        "a hypernetwork",
        lambda: _torch(
            {768: [{"linear.0.weight": _VECTOR}, {"linear.0.weight": _VECTOR}], "name": "x", "step": 3}
        ),
        "pt",
    ),
    "IP-Adapter (PyTorch)": (
        "an IP-Adapter",
        lambda: _torch({"image_proj": {"proj.weight": _VECTOR}, "ip_adapter": {"1.to_k_ip.weight": _VECTOR}}),
        "bin",
    ),
    "GILL (PyTorch)": (
        "a GILL checkpoint",
        lambda: _torch({"epoch": 1, "state_dict": {"model.gen_text_hidden_fcs.0.fc.weight": _VECTOR}}),
        "pth",
    ),
    "ESRGAN (PyTorch, wrapped)": (
        "an ESRGAN upscaler",
        lambda: _torch({"params_ema": {"conv_first.weight": _VECTOR, "body.0.rdb1.conv1.weight": _VECTOR}}),
        "pth",
    ),
}
