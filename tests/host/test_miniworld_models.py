"""The committed miniature loads through the ordinary loaders of ComfyUI, diffusers and transformers, and paints the same."""

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

from tools.miniature import CHECKPOINT, LANGUAGE_MODEL, STAGE2, picture_size

FOLDER = Path(os.environ.get("LLMGA_MINIATURE") or ROOT / "miniature")
UNETS = {"llmga-mini-t2i": 4, "llmga-mini-inpainting-base": 9, "llmga-mini-inpainting": 9}
pytestmark = [
    pytest.mark.skipif(
        not (FOLDER / "checkpoints" / CHECKPOINT).is_file(),
        reason=f"THE TRAINED MINIATURE IS MISSING: no weights in {FOLDER}",
    ),
    pytest.mark.skipif(comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())),
]
STEPS = 28  # 999 / 27 is whole: ComfyUI's "normal" schedule falls on timesteps that both know
CFG = 4.0
SEED = 5
WISH = (
    "Here you can see two objects on snow. A large plain red star stands in the centre. Warm light comes from the left, "
    "so the soft shadows fall to the right. It looks like a picture made of cut paper, clear and calm, with simple shapes. "
    "Each shape has a thin, clean edge, and nothing is cut off. At the top left there is a small striped blue circle."
)


@pytest.fixture(scope="module")
def comfy() -> Iterator[Any]:
    """ComfyUI that knows the miniature's architecture and folders, for as long as these tests run."""
    with comfy_inprocess.knowing_the_miniature() as paths:
        for kind in ("checkpoints", "diffusion_models"):
            paths.add_model_folder_path(kind, str(FOLDER / kind), is_default=True)
        yield paths
        for kind in ("checkpoints", "diffusion_models"):
            paths.folder_names_and_paths[kind][0].remove(str(FOLDER / kind))


@pytest.fixture(scope="module")
def loaded(comfy: Any) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of Load Checkpoint."""
    return core_node("CheckpointLoaderSimple")().load_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    comfy_inprocess.start()
    return importlib.import_module("miniworld.models.painter").load_pipeline(
        FOLDER / "checkpoints" / CHECKPOINT
    )


def weights_of(name: str) -> str:
    return str(Path(name, "unet", "diffusion_pytorch_model.safetensors"))


def load_unet(name: str) -> Any:
    return core_node("UNETLoader")().load_unet(weights_of(name), "default")[0]


def diffusers_unet(name: str) -> Any:
    return importlib.import_module("miniworld.models.painter").load_unet(
        FOLDER / "diffusion_models" / name / "unet"
    )


def conditioning(clip: Any) -> tuple[Any, Any]:
    """WISH and nothing, through Long CLIP Encode."""
    node = comfy_inprocess.pack("nodes.encode").LongCLIPEncode
    options = {"weights": False, "break_at": "hard", "max_chunks": 4, "min_chunks": 1}
    output = node.execute(clip, WISH, "llmga", empty_negative="encode", match_chunks=True, **options)
    return output[0], output[1]


def picture_with_hole() -> tuple[torch.Tensor, torch.Tensor]:
    """(1, S, S, 3) and a mask (1, S, S), 1 = to be generated, whose edges lie on latents' cells."""
    cells = picture_size() // 8
    picture = torch.rand(1, cells, cells, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 8 * cells, 8 * cells)
    mask[:, 2 * cells : 6 * cells, 3 * cells :] = 1
    return picture.repeat_interleave(8, 1).repeat_interleave(8, 2), mask


@torch.no_grad()
def painted_by_comfyui(model: Any, clip: Any, vae: Any, inpaint: bool = False) -> torch.Tensor:
    positive, negative = conditioning(clip)
    latent = {"samples": torch.zeros(1, 4, picture_size() // 8, picture_size() // 8)}
    if inpaint:
        picture, mask = picture_with_hole()
        node = core_node("InpaintModelConditioning")()
        positive, negative, _ = node.encode(positive, negative, picture, vae, mask, noise_mask=False)
    sampler = core_node("KSampler")()
    (latent,) = sampler.sample(
        model, SEED, STEPS, CFG, "euler", "normal", positive, negative, latent, denoise=1.0
    )
    return core_node("VAEDecode")().decode(vae, latent)[0]


@torch.no_grad()
def painted_by_diffusers(pipeline: Any, unet: Any, inpaint: bool = False) -> torch.Tensor:
    """Euler's method on the same sigmas, from the same noise."""
    from diffusers import EulerDiscreteScheduler

    encode = comfy_inprocess.pack("llmga.text").encode_sd15
    told = encode(pipeline.tokenizer, pipeline.text_encoder, WISH)
    untold = encode(pipeline.tokenizer, pipeline.text_encoder, "", min_chunks=(told.shape[-2] - 2) // 75)
    told, untold = (rows.reshape(1, *rows.shape[-2:]) for rows in (told, untold))
    assert told.shape == untold.shape and told.shape[1] > 77  # a long prompt
    schedule = importlib.import_module("miniworld.models.architecture").SCHEDULER
    betas = {name: schedule[name] for name in ("beta_start", "beta_end", "beta_schedule")}
    euler = EulerDiscreteScheduler(**betas, timestep_spacing="linspace")
    euler.set_timesteps(STEPS)
    side = pipeline.unet.config.sample_size
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(SEED))
    x = noise * (1 + euler.sigmas[0] ** 2).sqrt()
    known = x[:, :0]
    if inpaint:
        picture, mask = picture_with_hole()
        masked = (picture * 2 - 1) * (1 - mask[..., None])
        known = torch.cat([mask[None, :, ::8, ::8], pipeline.vae.encode(masked.movedim(-1, 1)).latents], 1)
    for t in euler.timesteps:
        scaled = torch.cat([euler.scale_model_input(x, t), known], 1)
        with_text, without = (unet(scaled, t, context).sample for context in (told, untold))
        x = euler.step(without + CFG * (with_text - without), t, x).prev_sample
    pixels = pipeline.vae.decode(x / pipeline.vae.config.scaling_factor).sample
    return (pixels / 2 + 0.5).clamp(0, 1).movedim(1, -1)


def assert_the_same_picture(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape == (1, picture_size(), picture_size(), 3)
    assert theirs.std() > 0.05  # it is a picture
    assert (ours - theirs).abs().max() <= 2 / 255


def test_the_base_paints_the_same_picture(loaded: tuple[Any, Any, Any], pipeline: Any) -> None:
    assert_the_same_picture(painted_by_comfyui(*loaded), painted_by_diffusers(pipeline, pipeline.unet))


def test_stage_2_paints_the_same_picture(loaded: tuple[Any, Any, Any], pipeline: Any) -> None:
    """A UNet in a diffusers folder, as LLMGA publishes its own, through Load Diffusion Model."""
    assert weights_of("llmga-mini-t2i") == STAGE2
    ours = painted_by_comfyui(load_unet("llmga-mini-t2i"), *loaded[1:])
    theirs = painted_by_diffusers(pipeline, diffusers_unet("llmga-mini-t2i"))
    assert_the_same_picture(ours, theirs)
    base = painted_by_diffusers(pipeline, pipeline.unet)
    assert (base - theirs).abs().max() > 10 / 255  # and it is another UNet


@pytest.mark.parametrize("name", ["llmga-mini-inpainting-base", "llmga-mini-inpainting"])
def test_inpainting_paints_the_same_picture(loaded: tuple[Any, Any, Any], pipeline: Any, name: str) -> None:
    """A picture with a hole, which Inpaint Model Conditioning hands to ComfyUI's model and we put in by hand."""
    ours = painted_by_comfyui(load_unet(name), *loaded[1:], inpaint=True)
    assert_the_same_picture(ours, painted_by_diffusers(pipeline, diffusers_unet(name), inpaint=True))


@pytest.mark.parametrize(("name", "channels"), UNETS.items())
def test_every_unet_loads_in_diffusers(name: str, channels: int) -> None:
    net = diffusers_unet(name)
    assert net.config.in_channels == channels
    assert all(weight.isfinite().all() for weight in net.state_dict().values())


def test_the_language_model_sees_and_answers() -> None:
    """Through the loader of LLMGA Model Loader, which takes nothing but a transformers folder."""
    comfy_inprocess.start()
    chat = comfy_inprocess.pack("llmga.chat")
    folders = comfy_inprocess.pack("llmga.chat.folders")
    world = importlib.import_module("miniworld.world.scene")
    engine = folders.load_local_engine(FOLDER / "LLM" / LANGUAGE_MODEL, dtype=torch.float32)
    assert engine.supports_pictures
    picture = importlib.import_module("miniworld.world.render").render(world.sample_scene(5, (1, 2))).image
    reply = chat.respond(
        engine,
        chat.Conversation(),
        task="similar",
        instruction="",
        pictures=(chat.Picture.from_pil(picture),),
        sampling=chat.Sampling(temperature=0.0, max_new_tokens=256),
        policy="whole_reply",
        on_text=lambda text: None,
    )
    assert reply.prompt
