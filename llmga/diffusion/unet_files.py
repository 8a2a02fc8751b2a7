"""Files of a published UNet: found in every layout that it comes in, and checked before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from ..files.contents import PICKLES, SAFE, contents_of
from ..files.header import read_header
from ..files.index import parts_of
from ..files.json_files import read_object
from ..files.kinds import shown
from .noise_settings import read_noise_settings
from .unet_identity import SHARD, UNet, identify

Variant = Literal["auto", "fp16", "full", "not_ema"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)
STEM = "diffusion_pytorch_model"


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
    unet = identify(files, [read_header(path) for path in files])
    _check_names(files)
    beside = read_noise_settings(files[0].parent)
    return replace(unet, noise=beside if beside.stated else unet.noise, ema=ema)


def fingerprint(unet: UNet) -> str:
    """Changes with any of its files, the scheduler's among them."""
    files = (f"{path}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in unet.files)
    return "|".join([*files, str(unet.noise)])


def _check_names(files: Iterable[Path]) -> None:
    """ComfyUI chooses its reader by the end of a file's name."""
    for path in files:
        contents = contents_of(path)
        endings = SAFE if contents == "safetensors" else PICKLES
        if path.suffix.lower() not in endings:
            raise ValueError(
                f"{shown(path)} is a {contents} file under another name; rename it to end in {endings[0]}"
            )


def _files_of(place: Path) -> tuple[Path, ...]:
    """A file, or all the parts of which it is one."""
    if not place.exists():
        raise FileNotFoundError(f"{place.name} does not exist; press R and choose 'unet' again")
    shard = SHARD.fullmatch(place.name)
    if shard:
        base, _, suffix = shard[1].partition(".")
        for index in _indices(place.parent, base, suffix, shard[4]):
            return tuple(parts_of(index))
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
        return tuple(parts_of(index))
    pattern = f"{whole.name.removesuffix(suffix)}-*-of-*{suffix}"
    if parts := sorted(place.glob(pattern)):
        raise FileNotFoundError(
            f"{place.parent.name}/{place.name} holds {parts[0].name} but no index ({whole.name}.index.json), "
            "which says what belongs together; download the folder again"
        )
    return ()


def _check_config(place: Path) -> None:
    path = place / "config.json"
    if path.is_file():
        kind = read_object(path).get("_class_name", "UNet2DConditionModel")
        if kind != "UNet2DConditionModel":
            raise ValueError(
                f"{place.parent.name}/{place.name} is a diffusers {kind} and no UNet; choose another 'unet'"
            )
