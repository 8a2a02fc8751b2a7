"""What is known to be wrong with a model folder before anything in it is used.

A folder is somebody else's data. Nothing in it may run code, reach outside it or unpickle, and the usual
accidents (half a download, a Git LFS pointer, a saved login page) get their own words, because a library's
error for them names none of it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LLMGA_TYPES = ("llava_llama", "llava_mistral", "llava_gemma", "llava_Phi3", "llava_Qwen2")
"""``model_type`` of the official checkpoints (LLMGA 7e32eb6, llmga/llava/model/language_model/llava_*.py)."""

_OWN_CODE = "asks to run code that comes with the model; delete it if transformers has this model built in"
REFUSED_KEYS = {
    "auto_map": _OWN_CODE,
    "trust_remote_code": _OWN_CODE,
    "transformers_weights": "names another weight file than the one that is checked; delete it",
    "quantization_config": "needs a quantised runtime; take the unquantised model",
}
"""Keys that no config of a folder may hold, at any depth, and why."""

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes, the limit of the safetensors format


def check_model_folder(folder: Path) -> None:
    """Raise for a transformers folder that must not or cannot be loaded; its weights are not read.

    Raises:
        FileNotFoundError: the folder, its ``config.json``, its weights or one part of them is missing.
        ValueError: a config or ``tokenizer.json`` is no JSON, a config holds a key of ``REFUSED_KEYS``, the weights
            are only there as pickles or no whole safetensors files, or the layout is not transformers' own.
    """
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder.name!r} is no model folder: it has no config.json; choose another 'model'"
        )
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder.name!r} is a LoRA adapter (adapter_config.json); choose a whole model in 'model'"
        )
    configs = {path.name: _read_object(path) for path in sorted(folder.glob("*config*.json"))}
    for name, config in configs.items():
        for key in sorted(_keys(config) & REFUSED_KEYS.keys()):
            raise ValueError(f"{folder.name}/{name} has the key {key!r}, which {REFUSED_KEYS[key]}")
    model_type = configs["config.json"].get("model_type")
    if not isinstance(model_type, str):  # transformers would guess one from the folder's name
        raise ValueError(f"{folder.name}/config.json has no 'model_type'; download it again")
    if model_type in LLMGA_TYPES:
        raise ValueError(
            f"{folder.name!r} has the layout of the official LLMGA code (model_type {model_type!r}), which "
            "this loader does not support yet; convert it to the llava-hf layout (model_type 'llava')"
        )
    if (tokenizer := folder / "tokenizer.json").is_file():
        _read_object(tokenizer)
    for path in _weight_files(folder):
        _check_safetensors(path)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        with path.open("rb") as file:
            cause = _foreign_kind(file.read(64)) or f"no JSON ({error})"
        raise ValueError(_damaged(path, cause)) from error
    if not isinstance(value, dict):
        raise ValueError(_damaged(path, f"a JSON {type(value).__name__} and no object"))
    return value


def _keys(config: dict[str, Any]) -> set[str]:
    """Every key at any depth that holds something."""
    found: set[str] = set()
    stack: list[Any] = [config]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            found.update(key for key, item in value.items() if item is not None)
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
    return found


def _weight_files(folder: Path) -> list[Path]:
    if (whole := folder / "model.safetensors").is_file():  # transformers prefers it to an index
        return [whole]
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        if pickles:
            raise ValueError(
                f"{folder.name!r} has its weights only as a pickle ({pickles[0]}), which can run code and is "
                "never opened; take its safetensors files, or convert it with transformers' save_pretrained"
            )
        raise FileNotFoundError(
            f"{folder.name!r} has no weights (model.safetensors or {INDEX}); download it again"
        )
    weight_map = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(_damaged(folder / INDEX, "an index without a 'weight_map'"))
    parts = sorted({str(part) for part in weight_map.values()})
    for part in parts:
        if Path(part).name != part or "\\" in part or not part.endswith(".safetensors"):
            raise ValueError(
                f"{folder.name}/{INDEX} names {part!r}, which is no safetensors file of this folder"
            )
        if not (folder / part).is_file():
            raise FileNotFoundError(
                f"{folder.name}/{part} is missing, one of the {len(parts)} parts that {INDEX} names; "
                "finish the download"
            )
    return [folder / part for part in parts]


def _check_safetensors(path: Path) -> None:
    """Read the header only: 8 bytes with its length, itself as JSON, then the tensors without a gap."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        length = int.from_bytes(head[:8], "little")
        if (cause := _foreign_kind(head)) or head[8:9] != b"{" or length > MAX_HEADER:
            raise ValueError(_damaged(path, cause or "no safetensors file"))
        file.seek(8)
        header = file.read(length)
    if len(header) < length:
        raise ValueError(_damaged(path, f"cut off inside its header of {length:,} bytes: half a download"))
    try:
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        whole = 8 + length + int(max(ends, default=0))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(_damaged(path, f"a safetensors file with an unreadable header ({error})")) from error
    if size != whole:
        why = "cut off: half a download" if size < whole else "longer than its header says"
        raise ValueError(_damaged(path, f"{why} (its header says {whole:,} bytes)"))


def _foreign_kind(head: bytes) -> str | None:
    """What a file that begins with these bytes is, if it is one of the usual accidents."""
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer and not the file itself; run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "an HTML page (often a login or an error page of the download site)"
    if head.startswith((b"PK\x03\x04", b"\x80\x02")):
        return "a pickle under another name"
    return None


def _damaged(path: Path, cause: str) -> str:
    return f"{path.parent.name}/{path.name} ({path.stat().st_size:,} bytes) is {cause}; download it again"
