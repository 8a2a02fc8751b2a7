"""Weights in the quantised layouts of ComfyUI's files, and what their numbers mean."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

QUANTISED = ("scaled_fp8", "comfy_quant", "metadata", "float8_e5m2", "int8_tensorwise", "nvfp4", "mxfp8")


def stored_as(value: torch.Tensor, name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """A matrix in one of ComfyUI's formats, by the endings of its tensors' names, and what it means."""
    dtype, most = {
        "float8_e4m3fn": (torch.float8_e4m3fn, 448.0),
        "float8_e5m2": (torch.float8_e5m2, 57344.0),
        "int8_tensorwise": (torch.int8, 127.0),
    }.get(name, (None, 0.0))
    if dtype is not None:
        scale = value.abs().max() / most
        numbers = ((value / scale).round() if dtype == torch.int8 else value / scale).to(dtype)
        return {"weight": numbers, "weight_scale": scale}, numbers.float() * scale
    host: Any = importlib.import_module(
        "comfy.quant_ops"
    )  # blocks with scales of their own: as the host stores them
    layout = host.QUANT_ALGOS[name]["comfy_tensor_layout"]
    options = {"scale": "recalculate"} if name == "nvfp4" else {}
    tensor = host.QuantizedTensor.from_float(value, layout, **options)
    entries = {key.removeprefix("l."): part for key, part in tensor.state_dict("l.weight").items()}
    if name == "mxfp8":
        entries["weight_scale"] = entries["weight_scale"].view(torch.uint8)
    return entries, tensor.dequantize()


def quantised(
    weights: dict[str, torch.Tensor], how: str
) -> tuple[dict[str, torch.Tensor], dict[str, str], Any]:
    """Weights with the attentions' linear layers quantised as ComfyUI's files are, the metadata, and what they mean."""
    name = "float8_e4m3fn" if how in ("scaled_fp8", "comfy_quant", "metadata") else how
    stored, meant, layers = dict(weights), dict(weights), {}
    for key, value in weights.items():
        if not key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "ff.net.2.weight")):
            continue
        if how == "nvfp4" and key.endswith("attn2.to_k.weight"):
            continue  # by its width the host tells what it is, see below
        layer = key.removesuffix(".weight")
        entries, meant[key] = stored_as(value.float(), name)
        if how == "scaled_fp8":
            entries["scale_weight"] = entries.pop("weight_scale")
        elif how != "metadata":
            entries["comfy_quant"] = torch.tensor(
                list(json.dumps({"format": name}).encode()), dtype=torch.uint8
            )
        layers[layer] = {"format": name}
        stored |= {f"{layer}.{ending}": entry for ending, entry in entries.items()}
    if how == "scaled_fp8":
        stored["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    text = json.dumps({"format_version": "1.0", "layers": layers})
    return stored, {"_quantization_metadata": text} if how == "metadata" else {}, meant


def save(path: Path, weights: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file."""
    save_file({name: value.contiguous() for name, value in weights.items()}, path, metadata)
