"""LLMGA Flow Edit in this process: ComfyUI's flow models against diffusers', and what becomes of every odd input."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit, tiny_flow
from support import tiny_flow_host as tiny
from support.tiny_unet import noise

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

FAMILIES = tuple(tiny_flow.CONFIGS)
SHAPE = (2, 16, 8, 12)
SIGMAS = (0.95, 0.8, 0.6, 0.3, 0.0)
TOLERANCE = 1e-4
SOURCE, TARGET = "a large red star on snow", "a large blue star on snow"
GUIDANCE = {"source": 1.5, "target": 4.0}
METHODS = ("FlowEdit", "RF-Inversion")
OPTIONS = {
    "strength": 0.75, "source_guidance": 1.5, "target_guidance": 3.0, "steps": 4, "seed": 1, "method": "FlowEdit",
    "n_avg": 1, "n_min": 0, "gamma": 0.5, "eta": 0.9, "eta_part": 0.25,
}  # fmt: skip


@cache
def trio(family: str) -> Any:
    comfy.start()
    return tiny.trio(family)


@pytest.fixture(scope="module", autouse=True)
def _release() -> Iterator[None]:
    yield
    trio.cache_clear()  # ComfyUI's patchers do not outlive its modules well


def picture(height: int = 64, width: int = 96, batch: int = 1, channels: int = 3) -> torch.Tensor:
    coarse = torch.rand(batch, channels, 4, 4, generator=torch.Generator().manual_seed(height))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


def edit(models: Any, image: Any = None, source: Any = SOURCE, target: Any = TARGET, **options: Any) -> Any:
    node = comfy.pack("nodes.flow").FlowEdit
    given = {**OPTIONS, **options}
    with torch.inference_mode():
        return node.execute(*models, picture() if image is None else image, source, target, **given).result


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_is_the_same_on_comfyui_and_on_diffusers(family: str, method: str) -> None:
    """Prompts of different lengths, two pictures, a mask; cfg, or the guidance that is embedded in Flux."""
    host, library = comfy.pack("nodes.host_flow"), comfy.pack("llmga.edit.flow")
    net = tiny_flow.transformer(family)
    x = noise("latent", *SHAPE)
    prompts = {
        name: tiny_flow.prompt(family, name, tokens, GUIDANCE.get(name, 1.0))
        for name, tokens in (("source", 5), ("target", 9), ("negative", 5))
    }
    mask = (noise("mask", 1, 1, *SHAPE[2:]) > -1).float()
    options = {"n_max": 3, **({"n_avg": 2, "n_min": 1} if method == "FlowEdit" else {"eta_steps": 1})}
    method_of = {"FlowEdit": library.flow_edit, "RF-Inversion": library.rf_inversion_edit}[method]

    def run(latent: torch.Tensor, velocities: Any, where: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(5)
        both = (velocities["source"], velocities["target"])
        return method_of(latent, SIGMAS, *both, generator=generator, mask=where, **options)

    def theirs(name: str) -> Any:
        def velocity(latent: torch.Tensor, sigma: float) -> torch.Tensor:
            at = partial(tiny_flow.velocity, family, net, latent, max(sigma, host.LEAST_SIGMA))
            if family == "flux":
                return at(prompts[name])
            unguided = at(prompts["negative"])
            return unguided + GUIDANCE[name] * (at(prompts[name]) - unguided)

        return velocity

    expected = run(x, {name: theirs(name) for name in GUIDANCE}, mask)
    model = tiny.host_model(family, net)
    frames = 1 if family == "qwen_image" else None
    scaled = model.model.process_latent_out(x[:, :, None] if frames else x)
    with torch.inference_mode():
        conds = {name: [[one.text, {"pooled_output": one.pooled}]] for name, one in prompts.items()}
        guided = {name: host.Guided(conds[name], GUIDANCE[name]) for name in GUIDANCE}
        work = partial(run, where=mask[:, :, None] if frames else mask)
        made = model.model.process_latent_in(host.run(model, guided, conds["negative"], scaled, work))
    assert (expected - x).abs().max() > 0.05, "nothing was edited: this test would see nothing"
    assert (made.reshape(SHAPE) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_is_edited_and_what_is_cut_is_said(family: str, method: str) -> None:
    image = picture(70, 100, 2, 4)
    edited, samples, report = edit(trio(family), image, method=method)
    assert edited.shape == (2, 64, 96, 3) and edited.dtype == torch.float32
    assert 0 <= edited.min() and edited.max() <= 1
    assert samples["samples"].shape[:2] == (2, 16)
    assert "cut at its edges to 96×64" in report and "alpha was dropped" in report
    assert f"{method}: the last 3 of 4 steps" in report
    assert ("embedded guidance" in report) == (family == "flux")
    alone = edit(trio(family), image[1:], method=method)[1]["samples"]
    torch.testing.assert_close(samples["samples"][1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["flux", "qwen_image"])
def test_without_a_change_the_picture_comes_back(family: str) -> None:
    models = trio(family)
    same = edit(models, target=SOURCE, target_guidance=1.5)
    none = edit(models, strength=0.0)
    with torch.inference_mode():
        latent = models[2].encode(picture())
    for _, samples, report in (same, none):
        torch.testing.assert_close(samples["samples"].reshape(latent.shape), latent, atol=1e-5, rtol=1e-5)
        assert "both prompts are the same" in report or "kept as it is" in report
    changed = edit(models)[1]["samples"].reshape(latent.shape)
    assert (changed - latent).abs().mean() > 10 * (
        same[1]["samples"].reshape(latent.shape) - latent
    ).abs().mean()


def test_outside_the_mask_the_latent_stays() -> None:
    models = trio("flux")
    mask = torch.zeros(1, 64, 96)
    mask[:, 16:40, 30:60] = 1
    with torch.inference_mode():
        latent = models[2].encode(picture())
    for method in METHODS:
        samples = edit(models, mask=mask, method=method)[1]["samples"]
        difference = (samples - latent).abs().amax(1)[0]
        inside = torch.zeros(8, 12, dtype=torch.bool)
        inside[2:5, 3:8] = True
        assert difference[~inside].max() < 1e-6 < difference[inside].min()
    report = edit(models, picture(batch=2), mask=torch.cat([mask, torch.zeros_like(mask)]))[2]
    assert "mask 1 is empty: picture 1 stays as it is" in report
    whole, _, report = edit(models, mask=torch.zeros(1, 8, 8))
    torch.testing.assert_close(whole, edit(models)[0])
    assert "the mask is empty and counts as none" in report


def test_the_models_patches_and_the_sigmas_of_a_scheduler_act() -> None:
    models = trio("flux")
    model = models[0].clone()
    model.set_model_unet_function_wrapper(
        lambda apply, given: apply(given["input"], given["timestep"], **given["c"]) * 0.5
    )
    plain = edit(models)[1]["samples"]
    assert not torch.equal(edit((model, *models[1:]))[1]["samples"], plain)
    samplers = importlib.import_module("comfy.samplers")
    sigmas = samplers.calculate_sigmas(models[0].get_model_object("model_sampling"), "simple", 4)
    torch.testing.assert_close(edit(models, sigmas=sigmas, steps=28)[1]["samples"], plain)
    assert torch.equal(edit(models)[1]["samples"], plain), "the same seed gives the same picture"
    assert not torch.equal(edit(models, seed=2)[1]["samples"], plain)


def test_what_has_no_effect_is_said() -> None:
    report = edit(trio("flux"), negative_prompt="a house")[2]
    assert "the negative prompt has no effect" in report
    report = edit(trio("z_image"), negative_prompt="a house", source_guidance=1.0, target_guidance=1.0)[2]
    assert "the negative prompt has no effect" in report
    assert "no effect" not in edit(trio("z_image"), negative_prompt="a house")[2]
    report = edit(trio("z_image"), method="RF-Inversion")[2]
    assert "eta 0.9 pulls the first 1 steps back" in report
    assert "pulls the first 0 steps" in edit(trio("z_image"), method="RF-Inversion", eta_part=0.1)[2]


def with_wrapper(model: Any) -> Any:
    changed = model.clone()
    kind = importlib.import_module("comfy.patcher_extension").WrappersMP.CALC_COND_BATCH
    changed.add_wrapper_with_key(kind, "easycache", lambda executor, *given: executor(*given))
    return changed


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "target": ({"target": "  "}, "target_prompt is empty"),
    "source": ({"source": None}, "source_prompt"),
    "small": ({"image": picture(16, 16)}, "an edit needs 32 on each side"),
    "strength": ({"strength": 1.5}, "strength must be a number from 0 to 1"),
    "guidance": ({"target_guidance": 0.5}, "target_guidance must be a number from 1 to 30"),
    "method": ({"method": "DDIM"}, "method must be one of"),
    "n_min": ({"n_min": 4}, "n_min is 4, and strength 0.75 of 4 steps takes 3"),
    "masks": ({"mask": torch.ones(3, 8, 8)}, "mask holds 3 masks for 1 pictures"),
    "sigmas": ({"sigmas": torch.tensor([14.6, 1.0, 0.0])}, "from 14.6 to 0"),
    "no sigmas": ({"sigmas": torch.zeros(0)}, "got none"),
    "not sigmas": ({"sigmas": [1.0, 0.0]}, "sigmas must be SIGMAS"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_is_named(name: str) -> None:
    options, said = WRONG[name]
    with pytest.raises(ValueError, match=said):
        edit(trio("flux"), **options)


def test_models_of_another_kind_are_named() -> None:
    flux = trio("flux")
    unet = tiny_edit.host_model("sd15", tiny_edit.diffusers_unet("sd15"))
    with pytest.raises(ValueError, match="use Inversion Edit for SD1.5 and SDXL"):
        edit((unet, *flux[1:]))
    v = tiny_edit.host_model("sd15", tiny_edit.diffusers_unet("sd15"), v=True)
    with pytest.raises(ValueError, match="predicts no flow"):
        edit((v, *flux[1:]))
    with pytest.raises(ValueError, match="EasyCache, which skips or changes steps"):
        edit((with_wrapper(flux[0]), *flux[1:]))
    with pytest.raises(ValueError, match="clip gives 4096 numbers a token, and model reads 8"):
        edit((flux[0], trio("sd3")[1], flux[2]))
    with pytest.raises(ValueError, match="vae gives latents of 4 channels, and model reads 16"):
        edit((*flux[:2], tiny_edit.vae()))
    for models, said in (((None, *flux[1:]), "model must be a MODEL"), ((flux[0], None, flux[2]), "clip must be"),
                         ((*flux[:2], None), "vae must be a VAE")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            edit(models)


@pytest.mark.parametrize("family", FAMILIES)
def test_inversion_edit_sends_flow_models_here(family: str) -> None:
    node = comfy.pack("nodes.inversion").Invert
    clip, vae = comfy.tiny_clip("sd15"), tiny_edit.vae()
    with pytest.raises(ValueError, match="LLMGA Flow Edit"):
        node.execute(trio(family)[0], clip, vae, SOURCE, 4, "llmga", 4, image=picture())


def test_a_model_that_gives_nan_is_an_error() -> None:
    models = trio("flux")
    broken = models[0].clone()
    broken.set_model_unet_function_wrapper(lambda apply, given: given["input"] * torch.nan)
    with pytest.raises(ValueError, match="model, at sigma .*, gives NaN or infinite numbers"):
        edit((broken, *models[1:]))


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda latent: latent[:, :, None].expand(-1, -1, 2, -1, -1), "vae gives latents of video, of shape"),
        (
            lambda latent: latent * torch.nan,
            "vae gives NaN or infinite numbers; start ComfyUI with --fp32-vae",
        ),
        (lambda latent: latent.reshape(7), "vae cannot encode the picture .*connect the VAE that 'model'"),
    ],
)
def test_a_vae_that_does_not_fit_a_flow_model_is_named(encode: Any, message: str) -> None:
    model, clip, vae = trio("flux")

    class Other:
        decode = vae.decode

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return encode(vae.encode(image))

    with pytest.raises(ValueError, match=message):
        edit((model, clip, Other()))


def test_a_picture_that_is_not_of_numbers_is_not_shown_as_black() -> None:
    model, clip, vae = trio("flux")

    class Black:
        encode = vae.encode

        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            return vae.decode(samples) * torch.nan

    with pytest.raises(ValueError, match="vae gives NaN or infinite numbers; start ComfyUI with --fp32-vae"):
        edit((model, clip, Black()))


def test_a_cancel_stops_at_the_next_step_and_the_next_run_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    models = trio("flux")
    before = edit(models)[0]
    host = comfy.pack("nodes.host")
    stopped = importlib.import_module("comfy.model_management").InterruptProcessingException
    calls: list[int] = []

    def cancelled() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise stopped

    monkeypatch.setattr(host, "raise_if_cancelled", cancelled)
    with pytest.raises(stopped):
        edit(models)
    assert len(calls) == 3
    monkeypatch.undo()
    assert torch.equal(edit(models)[0], before)


def test_prompts_are_encoded_as_clip_text_encode_does() -> None:
    clip = trio("flux")[1]
    ours = comfy.pack("nodes.flow_inputs").encoded(clip, "target_prompt", "a (red:1.3) star")
    (expected,) = comfy.core_node("CLIPTextEncode")().encode(clip, "a (red:1.3) star")
    assert torch.equal(ours[0][0], expected[0][0])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_may_name_an_embedding(family: str) -> None:
    """The tokenizers of language models fail where they are told to switch weights off."""
    assert edit(trio(family), target=f"{TARGET} embedding:gone", strength=0.25)[0].shape == (1, 64, 96, 3)
