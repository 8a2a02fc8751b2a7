"""Weight files of any size that take no room: a real header, and data that the file system leaves out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "I8": 1}


def write_sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    """A safetensors file of zeros, as long as its header says."""
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode("utf-8")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def split(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], count: int = 2, stem: str = "diffusion_pytorch_model"
) -> list[Path]:
    """The same in parts, with their index."""
    names = list(shapes)
    parts = []
    places = {}
    for i in range(count):
        own = names[i * len(names) // count : (i + 1) * len(names) // count]
        path = folder / f"{stem}-{i + 1:05d}-of-{count:05d}.safetensors"
        parts.append(write_sparse(path, {name: shapes[name] for name in own}))
        places |= dict.fromkeys(own, path.name)
    write_json(folder / f"{stem}.safetensors.index.json", {"weight_map": places})
    return parts


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
