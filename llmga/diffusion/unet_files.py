"""A published UNet, found on disk and checked before anything of it is loaded.

ComfyUI takes whatever weights it knows by name and leaves the rest as they were: of half a UNet it makes a model that
paints NaN. Here every weight must be there with its shape, by the headers of the files alone, and what is no such UNet
is named for what it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..files.header import PICKLES, SAFE, Header, damaged, read_header
from .ldm import unet_to_ldm
from .unet_kinds import something_else
from .unet_shapes import SD15, SDXL, Shape, Sizes, measured, shapes

Variant = Literal["auto", "fp16", "full", "not_ema"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
STEM = "diffusion_pytorch_model"
CHECKPOINT_PREFIX = "model.diffusion_model."
FLOATS = ("F16", "BF16", "F32", "F64", "F8_E4M3", "F8_E5M2")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.[a-z]+)")
_LDM = ("input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "time_embed.0.weight", "out.2.weight")
_TASKS = {4: "text-to-image", 9: "inpainting"}


@dataclass(frozen=True)
class Sampling:
    """What the UNet was trained to predict, and on which noise."""

    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    zero_snr: bool = False
    """The last timestep is noise alone."""
    beta_start: float = 0.00085
    beta_end: float = 0.012
    stated: bool = False
    """A scheduler_config.json says so; otherwise it is what SD1.5 and SDXL have."""


@dataclass(frozen=True)
class UNet:
    """A whole UNet on disk."""

    files: tuple[Path, ...]
    base: str
    """SD1.5, SDXL, or the widths of another one."""
    channels: int
    parameters: int
    dtypes: tuple[str, ...]
    layout: str
    sampling: Sampling
    ema: bool = False
    """From the folder of smoothed weights that training keeps next to the others."""

    @property
    def task(self) -> str:
        return _TASKS[self.channels]

    def describe(self) -> str:
        """What it is, in one line for each fact."""
        s = self.sampling
        files = self.files[0].name if len(self.files) == 1 else f"{len(self.files)} files as one"
        how = (
            "InpaintModelConditioning gives it the picture and the mask" if self.channels == 9 else "no mask"
        )
        return "\n".join(
            (
                f"{self.base} UNet for {self.task}",
                f"input: {self.channels} channels ({how})",
                f"prediction: {s.prediction}{', zero terminal SNR' if s.zero_snr else ''} "
                f"({'from its scheduler' if s.stated else 'assumed, it has no scheduler file'})",
                f"weights: {self.parameters:,} in {' and '.join(self.dtypes)}, {self.layout}",
                f"file: {files}{', smoothed in training (EMA)' if self.ema else ''}",
            )
        )


def find_unet(place: Path, variant: Variant = "auto") -> UNet:
    """The UNet of a file or of a diffusers folder, checked by its headers.

    Args:
        place: a weight file, or a folder that holds ``unet/`` or ``unet_ema/`` or is one of them.
        variant: which weights of a folder. "auto": half precision before full, smoothed (``unet_ema``) before others;
            "fp16" or "full" precision alone; "not_ema": those that were trained on (``non_ema`` files, or ``unet`` where
            there is a ``unet_ema``). A file is what it is, whatever the variant.

    Raises:
        FileNotFoundError: there is nothing of that kind.
        ValueError: it is damaged, incomplete, ambiguous, or something else; says what.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    files, ema = _files_of_folder(place, variant) if place.is_dir() else (_files_of(place), False)
    unet = identify(_union(files), files)
    return replace(unet, sampling=_sampling(files[0].parent), ema=ema)


def fingerprint(unet: UNet) -> str:
    """Changes with any of its files."""
    return "|".join(f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in unet.files)


def identify(header: Header, files: tuple[Path, ...]) -> UNet:
    """What the weights of ``files`` are together, by ``header``.

    Raises:
        ValueError: no whole UNet of SD1.5 or SDXL for text-to-image or inpainting; says what is wrong or what it is.
    """
    name = "/".join(files[0].parts[-2:])
    found, prefix = _own(header)
    if (cause := something_else(header, found)) is not None:
        raise ValueError(f"{name} is {cause}")
    layout = "diffusers names" if not any(key in found for key in _LDM) else "original names"
    given = {key: weight.shape for key, weight in found.items()}
    sizes, wanted = _wanted(given, ldm=layout == "original names")
    if sizes is None:
        raise ValueError(
            f"{name} is incomplete: too little of a UNet is left to tell which; download it again"
        )
    _compare(name, given, wanted, sizes)
    dtypes = tuple(sorted({weight.dtype for weight in found.values()}))
    if unknown := sorted(set(dtypes) - set(FLOATS)):
        raise ValueError(f"{name} is quantised ({', '.join(unknown)}); take the weights in fp16 or fp32")
    if prefix:
        layout = "inside a whole checkpoint"
    return UNet(
        files, _base(sizes), sizes.channels, sum(map(_count, wanted.values())), dtypes, layout, Sampling()
    )


def _own(header: Header) -> tuple[Header, str]:
    """The UNet's weights alone, and the prefix they had in a whole checkpoint."""
    inside = {
        key.removeprefix(CHECKPOINT_PREFIX): weight
        for key, weight in header.items()
        if key.startswith(CHECKPOINT_PREFIX)
    }
    return (inside, CHECKPOINT_PREFIX) if inside else (header, "")


def _wanted(given: dict[str, Shape], ldm: bool) -> tuple[Sizes | None, dict[str, Shape]]:
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
    wanted = shapes(sizes)
    return sizes, unet_to_ldm(wanted) if ldm else wanted


def _compare(name: str, given: dict[str, Shape], wanted: dict[str, Shape], sizes: Sizes) -> None:
    if missing := [key for key in wanted if key not in given]:
        shard = _SHARD.search(name)
        why = (
            f"it is part {int(shard[2])} of {int(shard[3])}, choose the folder with all parts and their index"
            if shard
            else "download it again, or it is a smaller relative (SSD-1B, a pruned one) that LLMGA has not"
        )
        raise ValueError(
            f"{name} is an incomplete {_base(sizes)} UNet: {len(missing)} of {len(wanted)} weights are missing, "
            f"first {', '.join(missing[:3])}; {why}"
        )
    if extra := [key for key in given if key not in wanted]:
        raise ValueError(
            f"{name} is more than a {_base(sizes)} UNet: {len(extra)} weights have no place in one, "
            f"first {', '.join(extra[:3])}; it was changed (motion modules, a distilled guidance …)"
        )
    for key, shape in wanted.items():
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


def _count(shape: Shape) -> int:
    product = 1
    for side in shape:
        product *= side
    return product


def _union(files: Iterable[Path]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for path in files:
        part = read_header(path)
        if twice := whole.keys() & part.keys():
            raise ValueError(damaged(path, f"no part of the others: both hold {sorted(twice)[0]}"))
        whole |= part
    return whole


def _files_of(place: Path) -> tuple[Path, ...]:
    """A file, or all the parts of which it is one."""
    if not place.exists():
        raise FileNotFoundError(f"{place.name} does not exist; press R and choose 'unet' again")
    shard = _SHARD.fullmatch(place.name)
    if shard:
        base, _, suffix = shard[1].partition(".")
        for index in _indices(place.parent, base, suffix, shard[4]):
            return _parts(index)
    return (place,)


def _indices(folder: Path, base: str, variant: str, suffix: str) -> list[Path]:
    """An index under the two names that diffusers has given it."""
    names = [f"{base}{suffix}.index.json"]
    if variant:
        names = [f"{base}.{variant}{suffix}.index.json", f"{base}{suffix}.index.{variant}.json"]
    return [folder / name for name in names if (folder / name).is_file()]


def _files_of_folder(folder: Path, variant: Variant) -> tuple[tuple[Path, ...], bool]:
    smoothed, plain = folder / "unet_ema", folder / "unet"
    if variant == "not_ema":
        places = [(plain, ("",) if smoothed.is_dir() else ("non_ema",)), (folder, ("non_ema",))]
    else:
        kinds = {"auto": ("fp16", ""), "fp16": ("fp16",), "full": ("",)}[variant]
        places = [(place, kinds) for place in (smoothed, plain, folder)]
    for place, kinds in places:
        if place.is_dir():
            _check_config(place)
            for suffixes in (SAFE[:1], PICKLES[:1]):
                for kind in kinds:
                    for suffix in suffixes:
                        if files := _weights(place, kind, suffix):
                            return files, place == smoothed
    held = sorted(path.name for path in folder.iterdir())[:8]
    raise FileNotFoundError(
        f"{folder.name} holds no UNet weights for variant {variant!r} (it holds {', '.join(held) or 'nothing'}); "
        f"wanted {STEM}.safetensors or its parts with their index in unet/"
    )


def _weights(place: Path, kind: str, suffix: str) -> tuple[Path, ...]:
    whole = place / (f"{STEM}.{kind}{suffix}" if kind else f"{STEM}{suffix}")
    if whole.is_file():
        return (whole,)
    for index in _indices(place, STEM, kind, suffix):
        return _parts(index)
    pattern = f"{whole.name.removesuffix(suffix)}-*-of-*{suffix}"
    if parts := sorted(place.glob(pattern)):
        raise FileNotFoundError(
            f"{place.parent.name}/{place.name} holds {parts[0].name} but no index ({whole.name}.index.json), "
            "which says what belongs together; download the folder again"
        )
    return ()


def _parts(index: Path) -> tuple[Path, ...]:
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ValueError(damaged(index, "an index without a 'weight_map'; download it again"))
    parts = sorted({str(part) for part in places.values()})
    for part in parts:
        if Path(part).name != part or "\\" in part or not part.endswith((*SAFE, *PICKLES)):
            raise ValueError(
                f"{index.parent.name}/{index.name} names {part!r}, which is no weight file of its folder"
            )
        if not (index.parent / part).is_file():
            raise FileNotFoundError(
                f"{index.parent.name}/{part} is missing, one of the {len(parts)} parts that {index.name} names; "
                "finish the download"
            )
    return tuple(index.parent / part for part in parts)


def _check_config(place: Path) -> None:
    path = place / "config.json"
    if path.is_file():
        kind = _read_json(path).get("_class_name", "UNet2DConditionModel")
        if kind != "UNet2DConditionModel":
            raise ValueError(
                f"{place.parent.name}/{place.name} is a diffusers {kind} and no UNet; choose another 'unet'"
            )


def _sampling(place: Path) -> Sampling:
    """What the scheduler next to a UNet's folder says."""
    path = next(
        (
            p
            for p in (place.parent / "scheduler", place / "scheduler")
            if (p / "scheduler_config.json").is_file()
        ),
        None,
    )
    if path is None or place.name not in ("unet", "unet_ema") and path.parent != place:
        return Sampling()
    config = _read_json(path / "scheduler_config.json")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(
            f"its scheduler says prediction_type {prediction!r}; known are epsilon and v_prediction"
        )
    schedule = config.get("beta_schedule", "scaled_linear")
    steps = config.get("num_train_timesteps", 1000)
    if schedule != "scaled_linear" or steps != 1000 or config.get("trained_betas"):
        raise ValueError(
            f"its scheduler says beta_schedule {schedule!r} over {steps} timesteps; SD1.5 and SDXL have "
            "'scaled_linear' over 1000"
        )
    start, end = config.get("beta_start", 0.00085), config.get("beta_end", 0.012)
    if not all(isinstance(beta, float) for beta in (start, end)) or not 0 < start < end < 1:
        raise ValueError(
            f"its scheduler says beta_start {start!r} and beta_end {end!r}; they must rise between 0 and 1"
        )
    return Sampling(prediction, bool(config.get("rescale_betas_zero_snr", False)), start, end, stated=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(damaged(path, f"no JSON ({error}); download it again")) from error
    if not isinstance(value, dict):
        raise ValueError(damaged(path, f"a JSON {type(value).__name__} and no object; download it again"))
    return value
