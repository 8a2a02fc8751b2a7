"""Storage layouts of weights, as data: plain, the older scaled_fp8, ComfyUI's comfy_quant, bitsandbytes.

A quantised file holds the names of the plain one and, beside each quantised weight, scales and a description. To tell
what a file is, one looks through the layout: at the weights under their plain names, in the shapes that the network
has. GGUF is another file format altogether; ``contents.ACCIDENTS`` knows it.

Source: ComfyUI QUANTIZATION.md, ``comfy/utils.py`` convert_old_quants, ``comfy/ops.py`` _load_quantized_module,
``comfy/quant_ops.py`` QUANT_ALGOS (0.26 and 0.33); bitsandbytes ``functional.py`` QuantState.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .header import Header, Weight, read_metadata
from .kinds import shown

PLAIN = "plain"
SCALED_FP8 = "scaled_fp8"
COMFY_QUANT = "comfy_quant"
BITSANDBYTES = "bitsandbytes"
METADATA_KEY = "_quantization_metadata"

LAYOUTS: dict[str, tuple[str, ...]] = {
    SCALED_FP8: (".scale_weight", ".scale_input"),
    COMFY_QUANT: (
        ".comfy_quant",
        ".weight_scale",
        ".weight_scale_2",
        ".input_scale",
        ".pre_quant_scale",
        ".weight_s_rel",
        ".weight_s_channel",
        ".weight_codebook",
    ),
    BITSANDBYTES: (
        ".absmax",
        ".quant_map",
        ".nested_absmax",
        ".nested_quant_map",
        ".quant_state.bitsandbytes__nf4",
        ".quant_state.bitsandbytes__fp4",
        ".SCB",
        ".weight_format",
    ),
}
"""Endings of the names of what a layout keeps beside a layer's weight."""
_MARKER = "scaled_fp8"  # an entry of that name says how the whole file is stored


@dataclass(frozen=True)
class Format:
    """How the numbers of one quantised layer are stored."""

    dtype: str
    scales: tuple[str, ...]
    """What must stand beside the weight."""
    packed: int = 1
    """Numbers in one stored element, along the last axis."""


FORMATS: dict[str, Format] = {
    "float8_e4m3fn": Format("F8_E4M3", ("weight_scale",)),
    "float8_e5m2": Format("F8_E5M2", ("weight_scale",)),
    "mxfp8": Format("F8_E4M3", ("weight_scale",)),
    "nvfp4": Format("U8", ("weight_scale", "weight_scale_2"), packed=2),
    "int8_tensorwise": Format("I8", ("weight_scale",)),
    "convrot_w4a4": Format("I8", ("weight_scale",), packed=2),
    "asym_w4a8_int8": Format("I8", ("weight_s_rel",), packed=2),
}
"""ComfyUI's formats by the names that its files give them."""


@dataclass(frozen=True)
class Stored:
    """A header, looked through."""

    layout: str
    """A key of ``LAYOUTS``, or ``PLAIN``."""
    weights: Header
    """Under their plain names, in the shapes that the network has."""
    formats: Mapping[str, str] = field(default_factory=dict)
    """The format of each quantised layer; empty where the files do not say."""
    undescribed: tuple[str, ...] = ()
    """Layers with scales that no description goes with: a reader would take their numbers unscaled."""


def look_through(header: Header, formats: Mapping[str, str] | None = None) -> Stored:
    """The plain weights behind a storage layout.

    Args:
        formats: of the layers, as ``read_formats`` finds them; without, packed weights keep their stored shapes.
    """
    beside: dict[str, list[str]] = {}  # by layout
    weights, marked = {}, False
    for name, weight in header.items():
        layout = next((key for key, endings in LAYOUTS.items() if name.endswith(endings)), None)
        if layout is not None:
            beside.setdefault(layout, []).append(name)
        elif name.rpartition(".")[2] == _MARKER:
            marked = True
        else:
            weights[name] = weight
    if not beside:
        return Stored(PLAIN, weights)
    layout = max(beside, key=lambda key: len(beside[key]))
    known = dict(formats or {})
    if layout == SCALED_FP8 and marked:
        known |= {_layer(name): "float8_e4m3fn" for name in beside[layout] if name.endswith(".scale_weight")}
    scaled = {_layer(name) for names in beside.values() for name in names if not name.endswith(_INPUT_SCALES)}
    undescribed = tuple(sorted(scaled - known.keys())) if layout != BITSANDBYTES else ()
    unpacked = {
        name: Weight((*weight.shape[:-1], weight.shape[-1] * _packed(known, name)), weight.dtype)
        if weight.shape
        else weight
        for name, weight in weights.items()
    }
    return Stored(layout, unpacked, known, undescribed)


_INPUT_SCALES = (".input_scale", ".scale_input", ".pre_quant_scale")  # of activations: exact without them


def check_formats(stored: Stored, header: Header) -> None:
    """Raise unless each quantised layer has what its format needs.

    Raises:
        ValueError: a format is unknown, a weight has another type or a scale is missing; says which layer.
    """
    if stored.layout == BITSANDBYTES:
        raise ValueError(
            "stored by bitsandbytes, which ComfyUI's own loader does not read; take the weights in fp16"
        )
    if stored.undescribed:
        raise ValueError(
            f"quantised, but nothing says in which format (first {stored.undescribed[0]}): ComfyUI would leave its "
            "scales out; take another file"
        )
    for layer, name in stored.formats.items():
        known = FORMATS.get(name)
        weight = header.get(f"{layer}.weight")
        if known is None:
            raise ValueError(f"quantised as {name!r}, which is none of {', '.join(FORMATS)}")
        if weight is None:
            raise ValueError(f"quantised, but the weight of {layer} is missing; download it again")
        if weight.dtype != known.dtype:
            raise ValueError(
                f"quantised as {name}, which is stored in {known.dtype}; {layer} is in {weight.dtype}"
            )
        if len(weight.shape) != 2:
            raise ValueError(
                f"quantised in its convolutions too (first {layer}); ComfyUI reads only linear layers quantised"
            )
        for scale in known.scales:
            if not {f"{layer}.{scale}", f"{layer}.{_OLDER_NAMES.get(scale, scale)}"} & header.keys():
                raise ValueError(f"quantised as {name}, but {layer}.{scale} is missing; download it again")


_OLDER_NAMES = {"weight_scale": "scale_weight"}


def read_formats(files: Iterable[Path], headers: Iterable[Header], prefix: str = "") -> dict[str, str]:
    """The formats of quantised layers by the layers' names, which the files' metadata or ``comfy_quant`` entries give.

    Args:
        prefix: of the network's names in the files; it is taken off.

    Raises:
        ValueError: a description is not the JSON that ComfyUI writes.
    """
    found: dict[str, str] = {}
    by_metadata: dict[str, str] = {}
    for path, header in zip(files, headers, strict=True):
        if names := [name for name in header if name.endswith(".comfy_quant")]:
            found |= _read_entries(path, names)
        if text := read_metadata(path).get(METADATA_KEY):  # the last file's counts, as in ComfyUI
            layers = _object(text, f"the {METADATA_KEY} of {shown(path)}").get("layers")
            if not isinstance(layers, dict):
                raise ValueError(f"the {METADATA_KEY} of {shown(path)} has no 'layers'")
            by_metadata = {
                layer: _format(value, f"{shown(path)}, {layer}") for layer, value in layers.items()
            }
    found |= by_metadata
    return {layer.removeprefix(prefix): name for layer, name in found.items()}


def _read_entries(path: Path, names: list[str]) -> dict[str, str]:
    from .tensors import read_some

    found = {}
    for name, tensor in read_some(path, names).items():
        where = f"{shown(path)}, {name}"
        if tensor.dtype != torch.uint8:
            raise ValueError(f"{where} is not a text in bytes but {tensor.dtype}")
        found[_layer(name)] = _format(_object(tensor.numpy().tobytes(), where), where)
    return found


def _object(text: str | bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _format(value: Any, where: str) -> str:
    name = value.get("format") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise ValueError(f"{where} names no 'format'")
    return name


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def is_packed(stored: Stored, layer: str) -> bool:
    """Whether one stored element of a layer's weight holds several numbers."""
    return _packed(stored.formats, f"{layer}.weight") > 1


def _packed(formats: Mapping[str, str], name: str) -> int:
    layer, _, leaf = name.rpartition(".")
    known = FORMATS.get(formats.get(layer, "")) if leaf == "weight" else None
    return known.packed if known else 1
