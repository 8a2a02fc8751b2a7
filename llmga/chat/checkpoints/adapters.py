"""Partial checkpoints of LLMGA: a bare projector, or a LoRA with one."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from ...files.json_files import read_object
from ...files.tensors import Tensors, read_file
from .names import from_official

PROJECTOR = ("mm_projector.safetensors", "mm_projector.bin")
ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
REST = ("non_lora_trainables.safetensors", "non_lora_trainables.bin")
_PLAIN = {
    "bias": "none",
    "fan_in_fan_out": False,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
    "modules_to_save": None,
}
"""Settings of a LoRA that the sum below is right for."""
_FACTOR = re.compile(r"(?P<module>.{1,500})\.lora_(?P<side>[AB])(?:\.default)?\.weight")


def first_file(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The first of these files that the folder holds."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_projector(path: Path) -> Tensors:
    """A projector's tensors under llava-hf names.

    Raises:
        ValueError: the file is damaged or holds something else.
    """
    named = _llava_hf(read_file(path))
    if other := sorted(name for name in named if not name.startswith("multi_modal_projector.")):
        raise ValueError(f"{path.parent.name}/{path.name} is not a bare projector: it also holds {other[0]}")
    return named


def merge_lora(folder: Path, weights: Tensors) -> Tensors:
    """Base weights (llava-hf names) with a folder's LoRA added, in float32, and its other trained tensors in place.

    Raises:
        FileNotFoundError: the folder lacks ``adapter_model`` or ``non_lora_trainables``.
        ValueError: the LoRA is of a kind that is not supported, incomplete, or for another model.

    Source: LLMGA 7e32eb6, llmga/llava/model/builder.py:53-92; the sum is PEFT's, ``W + alpha / r * B @ A``.
    """
    config = read_object(folder / "adapter_config.json")
    for key, plain in _PLAIN.items():
        if (value := config.get(key)) and value != plain:
            raise ValueError(f"{folder.name}/adapter_config.json: {key} must be {plain!r}, got {value!r}")
    files = first_file(folder, ADAPTER), first_file(folder, REST)
    for path, names in zip(files, (ADAPTER, REST), strict=True):
        if path is None:
            raise FileNotFoundError(f"{folder.name!r} is a LoRA without {names[1]}; finish the download")
    adapter, rest = files
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in read_file(adapter).items():  # pyright: ignore[reportArgumentType]
        if not (match := _FACTOR.fullmatch(name)):
            raise ValueError(f"{folder.name}: the tensor {name!r} is not a factor of a LoRA")
        factors.setdefault(match["module"], {})[match["side"]] = value
    merged = weights | _llava_hf(read_file(rest))  # pyright: ignore[reportArgumentType]
    for module, pair in factors.items():
        (target,) = _llava_hf({f"{module}.weight": pair[min(pair)]})
        if pair.keys() != {"A", "B"} or target not in merged:
            lacks = (
                "its model has no such layer" if target not in merged else "one of its two factors is missing"
            )
            raise ValueError(f"{folder.name}: the LoRA of {module!r} fits nothing: {lacks}; check 'base'")
        merged[target] = _added(merged[target], pair, config, module)
    return merged


def _added(weight: torch.Tensor, pair: dict[str, torch.Tensor], config: dict, module: str) -> torch.Tensor:
    """weight (out, in) + B (out, rank) @ A (rank, in), scaled."""
    rank = pair["A"].shape[0]
    scale = config.get("lora_alpha", 8) / (rank**0.5 if config.get("use_rslora") else rank)
    if pair["B"].shape != (weight.shape[0], rank) or pair["A"].shape[1:] != weight.shape[1:]:
        raise ValueError(
            f"the LoRA of {module!r} has the shapes {tuple(pair['B'].shape)} and {tuple(pair['A'].shape)} for a layer of "
            f"{tuple(weight.shape)}; it belongs to another 'base'"
        )
    return (weight.float() + scale * pair["B"].float() @ pair["A"].float()).to(weight.dtype)


def _llava_hf(tensors: Tensors) -> Tensors:
    """Under llava-hf names, without the wrappers that PEFT put around the official ones."""
    named = {}
    for name, value in tensors.items():
        name = name.removeprefix("base_model.")
        name = name.removeprefix("model.") if name.startswith(("model.model.", "model.lm_head.")) else name
        name = f"model.{name}" if name.startswith("mm_projector.") else name
        if (known := from_official(name)) is not None:
            named[known] = value
    return named
