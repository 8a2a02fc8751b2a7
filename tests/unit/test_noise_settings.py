"""What a UNet predicts and on which noise: by its scheduler file, or by marks in its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.weight_headers import write_json, write_sparse

from llmga.diffusion.ldm import unet_to_ldm
from llmga.diffusion.noise_settings import NoiseSettings
from llmga.diffusion.unet_files import STEM, find_unet
from llmga.diffusion.unet_shapes import SD15, SDXL, shapes

SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


@pytest.mark.parametrize("chosen", ["", "unet", f"unet/{STEM}.safetensors"])
def test_the_scheduler_next_to_it_is_heard(tmp_path: Path, chosen: str) -> None:
    write_sparse(tmp_path / f"unet/{STEM}.safetensors", shapes(SD15))
    said = {**SCHEDULER, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
    write_json(tmp_path / "scheduler" / "scheduler_config.json", said)
    unet = find_unet(tmp_path / chosen)
    assert unet.noise == NoiseSettings("v_prediction", True, 0.00085, 0.012, stated=True)
    assert "v_prediction, zero terminal SNR (as its scheduler or its file says)" in unet.describe()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"prediction_type": "sample"}, "prediction_type 'sample'"),
        ({"beta_schedule": "linear"}, "beta_schedule 'linear'"),
        ({"num_train_timesteps": 50}, "over 50 timesteps"),
        ({"beta_start": "x"}, "beta_start 'x'"),
    ],
)
def test_a_scheduler_that_the_host_cannot_follow_is_an_error(tmp_path: Path, said: Any, words: str) -> None:
    write_sparse(tmp_path / f"unet/{STEM}.safetensors", shapes(SD15))
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {**SCHEDULER, **said})
    with pytest.raises(ValueError, match=words):
        find_unet(tmp_path)


@pytest.mark.parametrize("whole", [True, False])
def test_a_mark_in_the_file_says_what_its_unet_predicts(tmp_path: Path, whole: bool) -> None:
    prefix = "model.diffusion_model." if whole else ""
    weights = {f"{prefix}{name}": shape for name, shape in unet_to_ldm(shapes(SDXL)).items()}
    if whole:
        weights["first_stage_model.decoder.conv_in.weight"] = (1,)
    path = tmp_path / "v.safetensors"
    assert find_unet(write_sparse(path, weights)).noise == NoiseSettings()
    unet = find_unet(write_sparse(path, {**weights, "v_pred": (0,)}))
    assert unet.noise == NoiseSettings("v_prediction", stated=True)
    unet = find_unet(write_sparse(path, {**weights, "v_pred": (0,), "ztsnr": (0,)}))
    assert unet.noise == NoiseSettings("v_prediction", zero_snr=True, stated=True)
    assert "v_prediction, zero terminal SNR (as its scheduler or its file says)" in unet.describe()
    write_json(tmp_path / "scheduler" / "scheduler_config.json", {"prediction_type": "epsilon"})
    assert find_unet(path).noise == NoiseSettings(stated=True)
    for mark in ("edm_mean", "edm_vpred.sigma_max"):
        with pytest.raises(
            ValueError, match=rf"v.safetensors: it was trained on EDM's noise \(it holds {mark}\)"
        ):
            find_unet(write_sparse(path, {**weights, mark: (1,)}))
