"""The weights of a tiny official checkpoint: read, written back, split into parts, and without their vision tower."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

TOWER = "model.vision_tower.vision_tower."
Weights = dict[str, torch.Tensor]


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def replace_weights(folder: Path, weights: Weights) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def split(folder: Path, suffix: str) -> list[Path]:
    """The weights as two parts with an index, as ``.safetensors`` or ``.bin``."""
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    stem, whole = (
        ("model", "model.safetensors") if suffix == ".safetensors" else ("pytorch_model", "pytorch_model.bin")
    )
    names, files = sorted(weights), []
    where = {}
    for i, part in enumerate((names[::2], names[1::2])):
        path = folder / f"{stem}-{i + 1:05}-of-00002{suffix}"
        tensors = {name: weights[name] for name in part}
        save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
        where |= dict.fromkeys(part, path.name)
        files.append(path)
    (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": where}))
    return files


def without_tower(folder: Path) -> Weights:
    weights = weights_of(folder)
    replace_weights(folder, {name: value for name, value in weights.items() if not name.startswith(TOWER)})
    return {name.removeprefix(TOWER): value for name, value in weights.items() if name.startswith(TOWER)}
