"""Noise settings of a UNet: its prediction type and schedule, from the scheduler file beside it or marks in its own file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..files.json_files import read_object

V_PREDICTION, ZERO_SNR = "v_pred", "ztsnr"
MARKS = (V_PREDICTION, ZERO_SNR)
"""Entries without weights by which a file under the original names says what its UNet predicts."""
_EDM = ("edm_mean", "edm_vpred.sigma_max")


@dataclass(frozen=True)
class NoiseSettings:
    """What a UNet was trained to predict, and on which noise. The defaults are those of SD1.5 and SDXL."""

    prediction: Literal["epsilon", "v_prediction"] = "epsilon"
    zero_snr: bool = False
    """The last timestep is noise alone."""
    beta_start: float = 0.00085
    beta_end: float = 0.012
    stated: bool = False
    """A scheduler_config.json, or a mark in the file, says so; otherwise the defaults are assumed."""


def read_noise_settings(place: Path) -> NoiseSettings:
    """The settings in ``scheduler/scheduler_config.json`` beside a UNet's folder ``place`` or inside it.

    Raises:
        ValueError: the file is not valid JSON, or describes a schedule that SD1.5 and SDXL do not have.
    """
    beside = place.parent / "scheduler" if place.name in ("unet", "unet_ema") else None
    for folder in (beside, place / "scheduler"):
        if folder is not None and (folder / "scheduler_config.json").is_file():
            return _parse(folder / "scheduler_config.json")
    return NoiseSettings()


def marked_settings(names: Iterable[str]) -> NoiseSettings:
    """The settings that the names in a weight file stand for.

    Raises:
        ValueError: it is made for EDM's noise, which SD1.5 and SDXL do not have.

    Source: ComfyUI ``comfy/supported_models.py``, SDXL.model_type.
    """
    names = set(names)
    if edm := names.intersection(_EDM):
        raise ValueError(
            f"it was trained on EDM's noise (it holds {min(edm)}), as Playground 2.5 and CosXL were; load it with Load "
            "Checkpoint"
        )
    if V_PREDICTION not in names:
        return NoiseSettings()
    return NoiseSettings("v_prediction", ZERO_SNR in names, stated=True)


def _parse(path: Path) -> NoiseSettings:
    config = read_object(path)
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
    return NoiseSettings(
        prediction, bool(config.get("rescale_betas_zero_snr", False)), start, end, stated=True
    )
