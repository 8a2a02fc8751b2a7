"""The miniature painter is one set of numbers in ComfyUI and in diffusers."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
DETECT = "unet_config_from_diffusers_unet"
TOLERANCE = 2e-5  # float32, the same operations in another order


@pytest.fixture(scope="module", params=[128, 256])
def picture(request: pytest.FixtureRequest) -> int:
    """Pixels of a side of what the architecture paints."""
    return request.param


@pytest.fixture(scope="module")
def pipeline(picture: int) -> Any:
    comfy_inprocess.start()
    return importlib.import_module("miniworld.models.random_diffusion").random_pipeline(3, picture)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, picture: int) -> tuple[Any, Any, Any]:
    comfy_inprocess.start()
    path: Path = tmp_path_factory.mktemp("mini") / "mini.safetensors"
    importlib.import_module("miniworld.models.random_diffusion").write_checkpoint(path, 3, picture)
    with pytest.MonkeyPatch.context() as patch:
        models = importlib.import_module("comfy.supported_models").models
        patch.setattr(importlib.import_module("comfy.supported_models"), "models", list(models))
        detection: Any = importlib.import_module("comfy.model_detection")
        patch.setattr(detection, DETECT, getattr(detection, DETECT))
        importlib.import_module("miniworld.pack").register()
        return importlib.import_module("comfy.sd").load_checkpoint_guess_config(str(path))[:3]


def test_nothing_of_the_host_changes_without_the_miniatures_pack() -> None:
    """Neither our nodes nor the import of that pack touch what ComfyUI recognises."""
    comfy_inprocess.start()
    models = importlib.import_module("comfy.supported_models").models
    detection: Any = importlib.import_module("comfy.model_detection")
    before, detect = list(models), getattr(detection, DETECT)
    comfy_inprocess.pack("nodes").extension()
    importlib.import_module("miniworld.pack")
    assert models == before and getattr(detection, DETECT) is detect


@pytest.mark.parametrize("channels", [4, 9])
def test_a_diffusers_folder_is_told_from_a_single_file_by_its_names_alone(
    channels: int, picture: int
) -> None:
    """What the miniature's pack says of a UNet is what ComfyUI finds out about the same weights in a checkpoint."""
    comfy_inprocess.start()
    architecture = importlib.import_module("miniworld.models.architecture")
    sizes = {**architecture.unet_config(picture), "in_channels": channels}
    net = importlib.import_module("diffusers").UNet2DConditionModel(**sizes)
    names = importlib.import_module("llmga.diffusion.ldm").unet_to_ldm(net.state_dict())
    detection: Any = importlib.import_module("comfy.model_detection")
    found = detection.detect_unet_config(names, "")
    widths = importlib.import_module("miniworld.pack.sizes").WIDTHS[picture]
    said = importlib.import_module("miniworld.pack").comfy_unet_config(widths)
    assert found == {**said, "in_channels": channels}


@torch.no_grad()
def test_the_unet_predicts_the_same_noise(pipeline: Any, loaded: tuple[Any, Any, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(2, 4, 16, 24, generator=generator)
    context = torch.randn(2, 152, pipeline.unet.config.cross_attention_dim, generator=generator)
    importlib.import_module("comfy.model_management").load_models_gpu([loaded[0]])
    for timestep in (0, 37, 999):
        expected = pipeline.unet(sample, timestep, context).sample
        steps = torch.full((2,), float(timestep))
        found = loaded[0].model.diffusion_model(sample, steps, context=context)
        assert (found - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.05


@torch.no_grad()
def test_the_autoencoder_gives_the_same_latents_and_pixels(
    pipeline: Any, loaded: tuple[Any, Any, Any]
) -> None:
    image = torch.rand(1, 32, 48, 3, generator=torch.Generator().manual_seed(1))
    scale = 0.18215  # ComfyUI's latents are not yet multiplied by it
    latents = pipeline.vae.encode(image.movedim(-1, 1) * 2 - 1).latents
    assert (loaded[2].encode(image) * scale - latents).abs().max() < TOLERANCE
    pixels = (pipeline.vae.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    # The file has TAESD's layout; the net in it is narrow.
    lean = importlib.import_module("miniworld.models.narrow_taesd").narrowed(copy.deepcopy(pipeline.vae))
    weights = [sum(each.numel() for each in net.parameters()) for net in (lean, pipeline.vae)]
    assert weights[0] < 0.6 * weights[1]
    assert (lean.encode(image.movedim(-1, 1) * 2 - 1).latents - latents).abs().max() < TOLERANCE
    narrow = (lean.decode(latents).sample / 2 + 0.5).clamp(0, 1)
    assert (loaded[2].decode(latents / scale).movedim(-1, 1) - narrow).abs().max() < TOLERANCE
    assert (loaded[2].decode(latents / scale).movedim(-1, 1) - pixels).abs().max() < TOLERANCE


@torch.no_grad()
def test_the_text_encoder_gives_the_same_rows(pipeline: Any, loaded: tuple[Any, Any, Any]) -> None:
    encode = comfy_inprocess.pack("llmga.text").encode_sd15
    text = "a large red star at the top left, " * 20
    clip = loaded[1]
    execute = comfy_inprocess.pack("nodes.encode").LongCLIPEncode.execute
    options = {"weights": False, "break_at": "hard", "max_chunks": 4, "min_chunks": 1}
    for layout in ("llmga", "llmga_lpw"):
        output = execute(clip, text, layout, empty_negative="encode", match_chunks=False, **options)
        expected = encode(pipeline.tokenizer, pipeline.text_encoder, text, layout=layout)
        assert (
            output[0][0][0] - expected
        ).abs().max() < 2e-3  # ComfyUI keeps this text encoder in half precision
