"""Identity of a Stable Diffusion UNet: which one it is, and that every weight is there with its shape.

ComfyUI takes the weights that it knows by name and leaves the rest as they were: of half a UNet it makes a model that
paints NaN. Here every weight must be there, by the headers of the files alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.header import Header
from ..files.kinds import WrongFileError, shown
from ..files.known_kinds import CHECKPOINT, SD15_UNET, SDXL_UNET, SMALL_UNET, check_kind, kind_of
from ..files.storage import PLAIN, Stored, check_formats, is_packed, look_through, read_formats
from .ldm import unet_to_ldm
from .noise_settings import MARKS, NoiseSettings, marked_settings
from .unet_shapes import SD15, SDXL, Shape, Sizes, measured, shapes

CHECKPOINT_PREFIX = "model.diffusion_model."
FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
UNETS = (SD15_UNET, SDXL_UNET, SMALL_UNET)
DIFFUSERS, ORIGINAL = "diffusers names", "original names"
SHARD = re.compile(r"(.{1,250})-(\d{5})-of-(\d{5})(\.[a-z]{1,16})")
_LDM = ("input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "time_embed.0.weight", "out.2.weight")
_SIZED = re.compile(r"(attn2\.to_k|conv2|^conv_in|^input_blocks\.0\.0|^add_embedding\.linear_1)\.weight$")
"""Weights that sizes are read off."""
_MEASURED = re.compile(r"\.attn2\.to_k$|^label_emb\.0\.0$")
"""Layers of which ComfyUI's ``model_detection`` reads the stored width."""
_TASKS = {4: "text-to-image", 9: "inpainting"}


@dataclass(frozen=True)
class UNet:
    """A whole UNet on disk."""

    files: tuple[Path, ...]
    base: str
    """SD1.5, SDXL, or the widths of another one."""
    channels: int
    """Of the input: 4, or 9 with a mask and a masked picture."""
    parameters: int
    dtypes: tuple[str, ...]
    """Types of the stored weights, as safetensors writes them."""
    layout: str
    """Whose names the weights have."""
    formats: tuple[str, ...] = ()
    """Quantisation formats of its layers, by ComfyUI's names; empty: it is not quantised."""
    noise: NoiseSettings = NoiseSettings()
    ema: bool = False
    """From the folder of smoothed weights that training keeps next to the others."""

    @property
    def task(self) -> str:
        return _TASKS[self.channels]

    def describe(self) -> str:
        """What it is, in one line for each fact."""
        noise = self.noise
        files = self.files[0].name if len(self.files) == 1 else f"{len(self.files)} files as one"
        inputs = (
            "InpaintModelConditioning gives it the picture and the mask" if self.channels == 9 else "no mask"
        )
        quantised = f", quantised ({', '.join(self.formats)})" if self.formats else ""
        return "\n".join(
            (
                f"{self.base} UNet for {self.task}",
                f"input: {self.channels} channels ({inputs})",
                f"prediction: {noise.prediction}{', zero terminal SNR' if noise.zero_snr else ''} "
                f"({'as its scheduler or its file says' if noise.stated else 'assumed, it has no scheduler file'})",
                f"weights: {self.parameters:,} in {' and '.join(self.dtypes)}, {self.layout}{quantised}",
                f"file: {files}{', smoothed in training (EMA)' if self.ema else ''}",
            )
        )


def identify(files: Sequence[Path], headers: Sequence[Header]) -> UNet:
    """What the weights of ``files`` are together, by their headers.

    Raises:
        ValueError: not a whole UNet of SD1.5 or SDXL for text-to-image or inpainting; says what is wrong or what it is.
    """
    path = files[0]
    name = shown(path)
    header = _union(files, headers)
    try:
        noise = marked_settings(header)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    inside, prefix = _inside(path, {key: weight for key, weight in header.items() if key not in MARKS})
    stored = _stored(name, files, headers, inside, prefix)
    layout = ORIGINAL if any(key in stored.weights for key in _LDM) else DIFFUSERS
    if stored.formats and layout == DIFFUSERS:
        raise ValueError(
            f"{name} is quantised under diffusers' names, under which ComfyUI leaves the scales out; take a file with "
            "the original names (input_blocks …), or the weights in fp16"
        )
    if packed := [layer for layer in stored.formats if _MEASURED.search(layer) and is_packed(stored, layer)]:
        raise ValueError(
            f"{name} is quantised as {stored.formats[packed[0]]} in {packed[0]} too, by which ComfyUI tells a UNet's sizes; "
            "it would not know this one. Take the weights in fp8 or fp16"
        )
    given = {key: weight.shape for key, weight in stored.weights.items()}
    for key, shape in given.items():
        if _SIZED.search(key) and (len(shape) < 2 or 0 in shape):
            raise ValueError(f"{name}: {key} has the shape {shape}, which no UNet has; download it again")
    sizes, expected = _expected(given, ldm=layout == ORIGINAL)
    if sizes is None:
        raise ValueError(
            f"{name} is incomplete: too little of a UNet is left to tell which; download it again"
        )
    _compare(name, given, expected, sizes)
    _check_dtypes(name, stored)
    return UNet(
        files=tuple(files),
        base=_base(sizes),
        channels=sizes.channels,
        parameters=sum(map(math.prod, expected.values())),
        dtypes=tuple(sorted({weight.dtype for weight in stored.weights.values()})),
        layout="inside a whole checkpoint" if prefix else layout,
        formats=tuple(sorted(set(stored.formats.values()))),
        noise=noise,
    )


def _inside(path: Path, header: Header) -> tuple[Header, str]:
    """The UNet's weights alone, and the prefix they had in a whole checkpoint.

    Raises:
        WrongFileError: there is no UNet of SD1.5 or SDXL.
    """
    inside = {
        key.removeprefix(CHECKPOINT_PREFIX): weight
        for key, weight in header.items()
        if key.startswith(CHECKPOINT_PREFIX)
    }
    kind = kind_of(header)
    if kind is not None and kind.name == CHECKPOINT:
        found = kind_of(inside)
        if found is None or found.name not in UNETS:
            raise WrongFileError(path, kind)
    else:
        check_kind(path, header, UNETS)
    return (inside, CHECKPOINT_PREFIX) if inside else (header, "")


def _stored(
    name: str, files: Sequence[Path], headers: Sequence[Header], inside: Header, prefix: str
) -> Stored:
    if look_through(inside).layout == PLAIN:
        return look_through(inside)
    stored = look_through(inside, read_formats(files, headers, prefix))
    try:
        check_formats(stored, inside)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from error
    return stored


def _check_dtypes(name: str, stored: Stored) -> None:
    quantised = {f"{layer}.weight" for layer in stored.formats}
    other = {weight.dtype for key, weight in stored.weights.items() if key not in quantised}
    if unknown := sorted(other - set(FLOATS)):
        raise ValueError(f"{name} is quantised ({', '.join(unknown)}); take the weights in fp16 or fp32")


def _expected(given: dict[str, Shape], ldm: bool) -> tuple[Sizes | None, dict[str, Shape]]:
    """The sizes that the weights have, and all the weights that go with them, in the file's own naming."""
    context = next((s[1] for key, s in given.items() if key.endswith(".attn2.to_k.weight")), None)
    stem = given.get("input_blocks.0.0.weight" if ldm else "conv_in.weight", (320, 4))
    for known in (SD15, SDXL):
        if context == known.context and stem[0] == known.widths[0]:
            sizes = replace(known, channels=stem[1])
            break
    else:
        sizes = None if ldm else measured(given)
    if sizes is None:
        return None, {}
    expected = shapes(sizes)
    return sizes, unet_to_ldm(expected) if ldm else expected


def _compare(name: str, given: dict[str, Shape], expected: dict[str, Shape], sizes: Sizes) -> None:
    if missing := [key for key in expected if key not in given]:
        shard = SHARD.search(name)
        why = (
            f"it is part {int(shard[2])} of {int(shard[3])}, choose the folder with all parts and their index"
            if shard
            else "download it again, or it is a smaller relative (a pruned one) that LLMGA does not know"
        )
        raise ValueError(
            f"{name} is an incomplete {_base(sizes)} UNet: {len(missing)} of {len(expected)} weights are missing, "
            f"first {', '.join(missing[:3])}; {why}"
        )
    if extra := [key for key in given if key not in expected]:
        raise ValueError(
            f"{name} is more than a {_base(sizes)} UNet: {len(extra)} weights have no place in one, "
            f"first {', '.join(extra[:3])}; it was changed (a distilled guidance, another input …)"
        )
    for key, shape in expected.items():
        if given[key] != shape:
            raise ValueError(
                f"{name}: {key} has the shape {given[key]}, a {_base(sizes)} UNet has {shape} there; "
                "parts of different models were mixed"
            )
    if sizes.channels not in _TASKS:
        raise ValueError(
            f"{name} is a {_base(sizes)} UNet of {sizes.channels} input channels; LLMGA's have 4 (text-to-image) "
            "or 9 (inpainting)"
        )


def _base(sizes: Sizes) -> str:
    for base, known in (("SD1.5", SD15), ("SDXL", SDXL)):
        if replace(sizes, channels=4) == known:
            return base
    return f"small Stable Diffusion (widths {'/'.join(map(str, sizes.widths))})"


def _union(files: Sequence[Path], headers: Sequence[Header]) -> Header:
    whole: dict = {}
    for path, header in zip(files, headers, strict=True):
        if twice := whole.keys() & header.keys():
            raise ValueError(f"{shown(path)} repeats {sorted(twice)[0]} of another part; download it again")
        whole |= header
    return whole
