"""UNets in ComfyUI's folders, and their weights as a MODEL that samples as they were trained."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.model_sampling
import comfy.sd
import comfy.utils
import folder_paths
import torch

from ..llmga.diffusion.noise_settings import NoiseSettings
from ..llmga.diffusion.unet_files import STEM
from ..llmga.diffusion.unet_identity import UNet
from ..llmga.files.kinds import shown
from ..llmga.files.tensors import check_finite
from . import host

DIFFUSION_MODELS = "diffusion_models"
WEIGHT_DTYPES: dict[str, dict[str, Any]] = {  # as Load Diffusion Model has them
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
}


def unets() -> dict[str, Path]:
    """Diffusers folders (their names end in "/"), then files, below ``models/diffusion_models`` and ``models/unet``; and
    the diffusers folders of ``models/diffusers``."""
    folders: dict[str, Path] = {}
    files: dict[str, Path] = {}
    for name, full in host.model_files(DIFFUSION_MODELS, ("",)).items():
        path = Path(name)
        files[name] = full
        if path.name.startswith(STEM) and path.parent.name:
            up = path.parent.name in ("unet", "unet_ema") and path.parent.parent.name
            folder, place = (path.parent.parent, full.parent.parent) if up else (path.parent, full.parent)
            folders.setdefault(f"{folder.as_posix()}/", place)
    for root in folder_paths.get_folder_paths("diffusers"):
        for pattern in ("*/unet/config.json", "*/*/unet/config.json"):
            for config in sorted(Path(root).glob(pattern)):
                folder = config.parent.parent
                folders.setdefault(f"{folder.relative_to(root).as_posix()}/", folder)
    return {**dict(sorted(folders.items())), **files}


def download_folder() -> Path:
    """Where new diffusion models go: the folder of that name, and not the older ``models/unet``."""
    paths = folder_paths.get_folder_paths(DIFFUSION_MODELS)
    return Path(next((path for path in paths if os.path.basename(path) == DIFFUSION_MODELS), paths[0]))


def load_unet(unet: UNet, weight_dtype: str) -> Any:
    """The host's MODEL of a checked UNet.

    Raises:
        ValueError: a weight is not finite or not found by the host, or the host does not know its widths, or a format that
            it is quantised in.
    """
    if unknown := set(unet.formats) - known_formats():
        raise ValueError(
            f"unet is quantised as {', '.join(sorted(unknown))}, which this ComfyUI does not read; update ComfyUI or take "
            "the weights in fp16"
        )
    arguments = (unet.files, unet.base, weight_dtype, unet.noise)
    model = _load(*arguments)
    model.cached_patcher_init = (_load, arguments)  # the host loads it anew for each of several GPUs
    return model


def known_formats() -> set[str]:
    """The formats of quantised layers that this ComfyUI reads, by its names; empty for versions without any."""
    quant_ops: Any = getattr(comfy, "quant_ops", None)
    reads = hasattr(comfy.utils, "convert_old_quants")
    return set(getattr(quant_ops, "QUANT_ALGOS", ())) if reads else set()


def _load(
    files: tuple[Path, ...], base: str, weight_dtype: str, noise: NoiseSettings, disable_dynamic: bool = False
) -> Any:
    weights: dict[str, torch.Tensor] = {}
    metadata = None
    for path in files:
        part, metadata = comfy.utils.load_torch_file(str(path), return_metadata=True)
        if nested := [name for name, value in part.items() if not isinstance(value, torch.Tensor)]:
            raise ValueError(
                f"unet {shown(path)} keeps its weights under {nested[0]!r}, where ComfyUI does not look; save them as "
                "safetensors"
            )
        check_finite(part.items(), shown(path))
        weights.update(part)
    more = {"disable_dynamic": True} if disable_dynamic else {}
    options = dict(WEIGHT_DTYPES[weight_dtype])
    model = comfy.sd.load_diffusion_model_state_dict(
        weights, model_options=options, metadata=metadata, **more
    )
    if model is None:
        raise ValueError(f"unet is whole, but ComfyUI does not know its architecture: {base}")
    _follow(model, noise)
    return model


def _follow(model: Any, noise: NoiseSettings) -> None:
    """Patch what the UNet predicts, and on which noise, onto a MODEL; the host itself never reads a scheduler's file."""
    if noise == NoiseSettings(stated=noise.stated):
        return
    source = comfy.model_sampling
    kind = source.V_PREDICTION if noise.prediction == "v_prediction" else source.EPS

    class Patched(source.ModelSamplingDiscrete, kind):
        pass

    settings = {"linear_start": noise.beta_start, "linear_end": noise.beta_end}
    known = model.model.model_config.sampling_settings
    config = SimpleNamespace(sampling_settings={**known, **settings})
    model.add_object_patch("model_sampling", Patched(config, zsnr=noise.zero_snr))
