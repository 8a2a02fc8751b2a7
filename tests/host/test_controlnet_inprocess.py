"""A ControlNet of ours is one set of numbers in ComfyUI and in diffusers, and its edges are those of ComfyUI's Canny."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.comfy_inprocess import ROOT, core_node

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)
MINIATURE = Path(os.environ.get("LLMGA_MINIATURE") or ROOT / "miniature")
TOLERANCE = 1e-4  # float32, the same operations in another order
LAYOUTS = ("lllyasviel.safetensors", "diffusers.safetensors")
STEPS, CFG, SEED = (
    10,
    4.0,
    5,
)  # 999 / 9 is whole: ComfyUI's "normal" schedule falls on timesteps that both know


def module(name: str) -> Any:
    comfy_inprocess.start()
    return importlib.import_module(name)


def world_pictures(count: int, size: int = 128) -> torch.Tensor:
    """(B, size, size, 3) in 0 .. 1."""
    import numpy as np

    render, scenes = module("miniworld.world.render").render, module("miniworld.world.scene")
    drawn = [np.asarray(render(scenes.sample_scene(seed, (1, 4)), size).image) for seed in range(count)]
    return torch.from_numpy(np.stack(drawn)).float() / 255


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.2), (0.3, 0.7), (0.4, 0.8)])
def test_the_edges_of_training_are_those_of_the_hosts_canny(low: float, high: float) -> None:
    node = module("comfy_extras.nodes_canny").Canny
    blocks = torch.rand(12, 16, 16, 3, generator=torch.Generator().manual_seed(0)).round()
    hard = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)  # steps whose two sides are equally strong
    pictures = torch.cat(
        [hard, torch.nn.functional.interpolate(world_pictures(12).movedim(-1, 1), 128).movedim(1, -1)]
    )
    theirs = node.execute(pictures, low, high)[0]
    ours = module("llmga.data.edges").canny(pictures.movedim(-1, 1), low, high)
    assert 0.005 < ours[12:].mean() < 0.3
    assert torch.equal(ours.expand(-1, 3, -1, -1).movedim(1, -1), theirs.float())


@pytest.fixture(scope="module")
def unet() -> Any:
    """The committed UNet, so that what is painted is a picture; a random one where it is missing."""
    path = MINIATURE / "checkpoints" / "llmga-mini.safetensors"
    if path.is_file():
        return module("miniworld.models.painter").load_pipeline(path).unet
    return module("miniworld.models.random_diffusion").random_pipeline(0).unet


@pytest.fixture(scope="module")
def files(unet: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The same ControlNet in both layouts where Load ControlNet Model looks, and as diffusers' network."""
    from safetensors.torch import save_file

    net = module("miniworld.models.random_diffusion").random_controlnet(unet, seed=2)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.startswith(("controlnet_down", "controlnet_mid")):
                parameter.mul_(0.2)  # so that a picture is left
    folder = tmp_path_factory.mktemp("controlnet")
    names = module("llmga.diffusion.ldm").controlnet_to_ldm(net.state_dict())
    save_file(names, folder / LAYOUTS[0])
    save_file(net.state_dict(), folder / LAYOUTS[1])
    with comfy_inprocess.knowing_the_miniature() as paths:
        paths.add_model_folder_path("controlnet", str(folder), is_default=True)
        yield {"net": net, "folder": folder}
        paths.folder_names_and_paths["controlnet"][0].remove(str(folder))


def loaded(name: str) -> Any:
    return core_node("ControlNetLoader")().load_controlnet(name)[0]


@torch.no_grad()
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_residuals_are_the_same(files: dict[str, Any], layout: str) -> None:
    control = loaded(layout).control_model.float()
    net, generator = files["net"], torch.Generator().manual_seed(0)
    width = net.config.cross_attention_dim
    sample = torch.randn(2, 4, 16, 24, generator=generator)
    context = torch.randn(2, 152, width, generator=generator)
    hint = (torch.rand(2, 3, 128, 192, generator=generator) < 0.1).float()
    for timestep in (0, 37, 999):
        steps = torch.full((2,), float(timestep))
        down, middle = net(sample, timestep, context, hint, return_dict=False)
        found = control(x=sample, hint=hint, timesteps=steps, context=context)
        assert len(found["output"]) == len(down) and len(found["middle"]) == 1
        for ours, theirs in zip([*found["output"], *found["middle"]], [*down, middle], strict=True):
            assert theirs.std() > 0.01
            assert (ours - theirs).abs().max() < TOLERANCE


@torch.no_grad()
def test_what_is_painted_with_it_is_the_same_picture(files: dict[str, Any]) -> None:
    """From the loader through Apply ControlNet and KSampler, against diffusers' networks in Euler's method."""
    checkpoint = MINIATURE / "checkpoints" / "llmga-mini.safetensors"
    if not checkpoint.is_file():
        pytest.skip(f"THE TRAINED MINIATURE IS MISSING: no weights in {MINIATURE}")
    pipeline = module("miniworld.models.painter").load_pipeline(checkpoint)
    paths = module("folder_paths")
    paths.add_model_folder_path("checkpoints", str(checkpoint.parent), is_default=True)
    model, clip, vae = core_node("CheckpointLoaderSimple")().load_checkpoint(checkpoint.name)
    paths.folder_names_and_paths["checkpoints"][0].remove(str(checkpoint.parent))
    positive, negative = (core_node("CLIPTextEncode")().encode(clip, text)[0] for text in ("a red star", ""))
    side = pipeline.unet.config.sample_size
    edges = module("comfy_extras.nodes_canny").Canny.execute(world_pictures(1, 8 * side), 0.3, 0.7)[0]
    painted = {}
    for strength in (0.0, 0.8):
        steered = core_node("ControlNetApplyAdvanced")().apply_controlnet(
            positive, negative, loaded(LAYOUTS[0]), edges, strength, 0.0, 1.0
        )
        latent = {"samples": torch.zeros(1, 4, side, side)}
        (latent,) = core_node("KSampler")().sample(
            model, SEED, STEPS, CFG, "euler", "normal", *steered, latent, denoise=1.0
        )
        painted[strength] = core_node("VAEDecode")().decode(vae, latent)[0]
    theirs = by_diffusers(pipeline, files["net"], edges.float().movedim(-1, 1), 0.8)
    assert (painted[0.8] - theirs).abs().max() <= 2 / 255
    assert (painted[0.0] - theirs).abs().max() > 20 / 255  # and the ControlNet is what makes it so


def by_diffusers(pipeline: Any, net: Any, edges: torch.Tensor, strength: float) -> torch.Tensor:
    from diffusers import EulerDiscreteScheduler

    encode = comfy_inprocess.pack("llmga.text").encode_sd15
    contexts = [
        encode(pipeline.tokenizer, pipeline.text_encoder, text).reshape(1, 77, -1)
        for text in ("a red star", "")
    ]
    schedule = module("miniworld.models.architecture").SCHEDULER
    betas = {name: schedule[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    euler = EulerDiscreteScheduler(**betas, timestep_spacing="linspace")
    euler.set_timesteps(STEPS)
    side = pipeline.unet.config.sample_size
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(SEED))
    x = noise * (1 + euler.sigmas[0] ** 2).sqrt()
    for t in euler.timesteps:
        scaled, both = euler.scale_model_input(x, t), []
        for context in contexts:
            down, middle = net(scaled, t, context, edges, conditioning_scale=strength, return_dict=False)
            both.append(
                pipeline.unet(
                    scaled,
                    t,
                    context,
                    down_block_additional_residuals=down,
                    mid_block_additional_residual=middle,
                ).sample
            )
        with_text, without = both
        x = euler.step(without + CFG * (with_text - without), t, x).prev_sample
    pixels = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
    return (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1)
