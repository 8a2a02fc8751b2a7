"""Bounds on what a model folder may ask for, checked before anything is built after it.

The files are somebody else's data: a number in them decides how much memory and time a library spends.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import torch

from ..files.header import Header

MAX_PIXELS = 4_000_000
"""Of a picture that a processor may make of any picture; the conversation's own pictures have no more."""
MAX_SIDE = 4096
_MAX_GRID = 16_000_000
"""Pixels of all the tiles or patches together: LLaVA-OneVision's largest grid has 5.3 million, Step 3.7's 9.1 million."""
_MAX_TILES = 256
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth")
_FEW_LAYERS = 128
"""So many layers are built before anybody notices, whatever the files hold."""
_COUNTS = {
    **dict.fromkeys(_LAYERS, 4096),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "n_head"), 65_536),
    **dict.fromkeys(("hidden_size", "intermediate_size", "vocab_size", "head_dim"), 1 << 24),
    **dict.fromkeys(("patch_size", "image_size", "num_channels"), MAX_SIDE),
    "max_position_embeddings": 1 << 31,
}
"""The largest value of a config's counts, all of which begin at 1."""
_OR_NONE = ("head_dim",)
"""Counts that may be 0, as GLM-5's is, which has another for each kind of its attention."""
_FLOATS = ("F16", "BF16", "F32", "F64", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ")
_COMPUTED = ("position_ids", "num_batches_tracked", "attn.bias", "attn.masked_bias", "position_bias")
"""Ends of the names of buffers that old versions of transformers saved, whole numbers or flags among them."""
_SLACK = 50_000_000  # numbers that a network may have beside its files: buffers, tied weights


def check_counts(config: Mapping[str, Any], where: str) -> None:
    """Raise ``ValueError`` for a count that is not a whole number from 1 to its bound, at any depth of a config."""
    for mapping in _mappings(config):
        for key, most in _COUNTS.items():
            value, least = mapping.get(key), 0 if key in _OR_NONE else 1
            for count in value if isinstance(value, (list, tuple)) else [value]:
                if count is None:
                    continue
                if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= most:
                    raise ValueError(
                        f"{where}: {key} must be a whole number from 1 to {most:,}, got {_short(count)}; download it again"
                    )


def check_dtypes(config: Mapping[str, Any], where: str) -> None:
    """Raise ``ValueError`` for a dtype that PyTorch does not have, at any depth of a config."""
    for mapping in _mappings(config):
        for key in ("dtype", "torch_dtype"):
            name = mapping.get(key)
            if name is None or name == "auto":
                continue
            if not isinstance(name, str) or not isinstance(
                getattr(torch, name.removeprefix("torch."), None), torch.dtype
            ):
                raise ValueError(
                    f"{where}: {key} must be a dtype of PyTorch such as float16, got {_short(name)}"
                )


def check_layers(config: Mapping[str, Any], header: Header, where: str) -> None:
    """Raise ``ValueError`` for a config with more layers than the weights have.

    Args:
        header: of all weight files of the model together.
    """
    numbers = (int(part) for name in header for part in re.findall(r"(?<![^.])\d{1,6}(?![^.])", name))
    stored = max(numbers, default=-1) + 1
    for mapping in _mappings(config):
        for key in _LAYERS:
            count = mapping.get(key)
            if isinstance(count, int) and count > max(stored, _FEW_LAYERS):
                raise ValueError(
                    f"{where}: {key} is {count:,}, but the weights hold {stored:,} layers; download both again"
                )


def check_types(header: Header, where: str) -> None:
    """Raise ``ValueError`` for a weight of whole numbers or flags: no network of floats can be made of it."""
    for name, weight in header.items():
        if weight.dtype not in _FLOATS and not name.endswith(_COMPUTED):
            raise ValueError(
                f"{where}: the tensor {name[:200]!r} is of type {weight.dtype}, but weights are floating point; take "
                "the unquantised model"
            )


def check_network(net: torch.nn.Module, header: Header, where: str, packed: bool = False) -> None:
    """Raise ``ValueError`` for a network that is far larger than its weight files.

    Args:
        net: on the meta device.
        header: of all weight files of the model together.
        packed: the files may hold several numbers in one: two of 4 bits in a byte, up to 16 of 2 bits in a 32-bit one.
    """
    in_one = {"U8": 2, "I8": 2, "I32": 16, "I64": 32} if packed else {}
    stored = sum(math.prod(weight.shape) * in_one.get(weight.dtype, 1) for weight in header.values())
    asked = sum(value.numel() for values in (net.parameters(), net.buffers()) for value in values)
    if asked > 2 * stored + _SLACK:
        raise ValueError(
            f"{where}: config.json describes a network of {asked:,} numbers, its weight files hold {stored:,}; download "
            "both again"
        )


def check_preprocessor(config: Mapping[str, Any], where: str) -> None:
    """Raise ``ValueError`` for sizes of pictures that no processor of a vision-language model asks for.

    What a single number of ``size`` means depends on the class; see ``check_image_processor``.
    """
    for key in ("size", "crop_size", "pad_size", "max_image_size"):
        size, most = config.get(key), _MAX_GRID if key == "max_image_size" else MAX_PIXELS
        if _is_box(size):
            _check_box(size["height"], size["width"], f"{where}: {key}", most)
        elif isinstance(size, int):
            _check_box(size, size, f"{where}: {key}", most)
    grid = config.get("image_grid_pinpoints")
    for pair in grid if isinstance(grid, list) else ():
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            _check_box(pair[0], pair[1], f"{where}: image_grid_pinpoints", _MAX_GRID)
    for key in ("max_patches", "max_image_tiles", "max_dynamic_patch", "max_num"):
        tiles, most = config.get(key), _MAX_TILES
        if key == "max_patches" and not _is_box(config.get("size")):  # Kosmos-2.5, Kimi: of the vision tower
            most = max(most, _MAX_GRID // _patch_area(config.get("patch_size")))
        if tiles is not None and not (type(tiles) is int and 1 <= tiles <= most):
            raise ValueError(f"{where}: {key} must be a whole number from 1 to {most:,}, got {_short(tiles)}")


def check_image_processor(processor: Any, where: str) -> None:
    """Raise ``ValueError`` for an image processor that would enlarge a small picture beyond ``MAX_PIXELS``.

    ``shortest_edge`` is a length for most classes, and a number of pixels for those that merge patches (Qwen-VL's kin).
    """
    counts_pixels = hasattr(type(processor), "merge_size") or any(
        name in inspect.signature(type(processor).__init__).parameters
        for name in ("merge_size", "min_pixels")
    )
    size = getattr(processor, "size", None) or {}
    shortest = size.get("shortest_edge") if hasattr(size, "get") else None
    for key, value in (("shortest_edge", shortest), ("min_pixels", getattr(processor, "min_pixels", None))):
        if value is None:
            continue
        most = MAX_PIXELS if counts_pixels else MAX_SIDE // 2
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= most:
            raise ValueError(f"{where}: {key} must be from 1 to {most:,}, got {_short(value)}")


def _is_box(size: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(size, Mapping) and "height" in size and "width" in size


def _patch_area(size: Any) -> int:
    """Pixels of a patch; of no use as a bound where its size is not told."""
    sides = (size["height"], size["width"]) if _is_box(size) else (size, size)
    return math.prod(sides) if all(type(side) is int and side >= 1 for side in sides) else _MAX_GRID


def _check_box(height: Any, width: Any, what: str, most: int) -> None:
    whole = all(type(side) is int and side >= 1 for side in (height, width))
    if not whole or height * width > most:
        raise ValueError(
            f"{what} must be whole numbers with at most {most:,} pixels together, got {_short(height)} x {_short(width)}"
        )


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    stack = [value]
    while stack:
        found = stack.pop()
        if isinstance(found, Mapping):
            yield found
            stack.extend(found.values())
        elif isinstance(found, (list, tuple)):
            stack.extend(found)


def _short(value: Any) -> str:
    try:
        return repr(value)[:60]
    except ValueError:  # a whole number of more than 4,300 digits
        return "a huge number"
