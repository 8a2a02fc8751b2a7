"""A whole edit in one call of the library, on tiny models: what it is made of, and what holds for every edit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.tiny_clip import WIDTH_G, WIDTH_L, clip_g, clip_l
from support.tiny_unet import SD15, SDXL, noise, tiny_unet

from llmga.diffusion import DiffusersContext, DiffusersDenoiser, Schedule
from llmga.edit import (
    DiffusersCodec,
    EditSession,
    EditSettings,
    PromptToPromptOptions,
    build_control,
    edit,
    invert,
)
from llmga.edit.fit import fit_edit_mask, fit_image, mask_cells
from llmga.text import CLIPPromptEncoder, clip_tokenizer, encode_sd15, encode_sdxl
from miniworld.models.random_diffusion import random_pipeline

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCE, TARGET = "a large red star on snow", "a large blue star on snow"
LONG = "a quiet stone bridge over a river in soft light, " * 12
STEPS = 3
OPTIONS = PromptToPromptOptions(weights=(("star", 3.0),), threshold=0.9)


def sd15_pipeline() -> Any:
    """The parts of a diffusers pipeline that a session takes."""
    return SimpleNamespace(
        unet=tiny_unet(SD15),
        vae=random_pipeline(seed=3).vae,
        tokenizer=clip_tokenizer(),
        text_encoder=clip_l(),
        scheduler=SimpleNamespace(
            alphas_cumprod=Schedule.from_betas().alphas_cumprod,
            config=SimpleNamespace(prediction_type="epsilon"),
        ),
    )


def sdxl_pipeline() -> Any:
    pipeline = sd15_pipeline()
    sizes = {
        "cross_attention_dim": WIDTH_L + WIDTH_G,
        "projection_class_embeddings_input_dim": WIDTH_G + 6 * 4,
    }
    pipeline.unet = tiny_unet({**SDXL, **sizes})
    pipeline.tokenizer_2, pipeline.text_encoder_2 = clip_tokenizer("!"), clip_g()
    return pipeline


@pytest.fixture(scope="module")
def pipelines() -> dict[str, Any]:
    return {"sd15": sd15_pipeline(), "sdxl": sdxl_pipeline()}


@pytest.fixture(scope="module")
def session(pipelines: dict[str, Any]) -> EditSession[Any]:
    return EditSession.from_pipeline(pipelines["sd15"])


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    return noise("latent", 1, 4, 16, 16)


def picture(height: int = 64, width: int = 64, batch: int = 1) -> torch.Tensor:
    coarse = noise("picture", batch, 3, 4, 4).clamp(-1, 1) / 2 + 0.5
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").movedim(1, -1)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize(("source", "target"), [(SOURCE, TARGET), (SOURCE, LONG), (LONG, TARGET)])
@pytest.mark.parametrize("layout", ["llmga", "llmga_lpw"])
def test_a_session_is_its_parts_by_hand(
    pipelines: dict[str, Any], latent: torch.Tensor, kind: str, source: str, target: str, layout: Any
) -> None:
    """Both prompts at one length, one control, DDIM inversion and the edit: bit for bit."""
    pipeline = pipelines[kind]
    session = EditSession.from_pipeline(pipeline, layout)
    plans = [session.encoder.plan(text) for text in (source, target)]
    chunks = max(len(plan["l"].chunks) for plan in plans)
    settings = EditSettings(cfg=3.0, cross_replace=0.5, options=OPTIONS)
    mask = torch.zeros(1, 128, 128)
    mask[:, :, 60:] = 1
    inversion = session.invert(latent, source, STEPS, min_chunks=chunks)
    result = session.edit(inversion, target, settings, negative_prompt="a tree", mask=mask)

    contexts = []
    for text in (source, target, "a tree"):
        if kind == "sd15":
            parts = (pipeline.tokenizer, pipeline.text_encoder)
            states = encode_sd15(*parts, text, layout=layout, min_chunks=chunks)
            contexts.append(DiffusersContext(states))
        else:
            tokenizers = (pipeline.tokenizer, pipeline.tokenizer_2)
            encoders = (pipeline.text_encoder, pipeline.text_encoder_2)
            states, pooled = encode_sdxl(tokenizers, encoders, text, min_chunks=chunks)
            sizes = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
            contexts.append(DiffusersContext(states, pooled, sizes))
    control = build_control(
        OPTIONS,
        plans[0]["l"],
        plans[1]["l"],
        "llmga" if kind == "sdxl" else layout,
        size=(16, 16),
        cross_replace=0.5,
        cfg=3.0,
        mask=mask_cells(mask, (16, 16)),
    )
    denoiser = DiffusersDenoiser(pipeline.unet)
    trajectory = invert(denoiser, latent, contexts[0], STEPS)
    expected = edit(denoiser, trajectory, *contexts, control.control)
    assert torch.equal(inversion.trajectory.latents, trajectory.latents)
    assert torch.equal(result.edited.latent, expected.latent) and result.notes == control.notes
    assert (result.edited.latent[..., 7:] - latent[..., 7:]).abs().max() > 1e-3
    assert torch.equal(result.edited.latent[..., :7], latent[..., :7])  # the mask begins within cell 7


def test_a_picture_is_edited_in_one_call(session: EditSession[Any]) -> None:
    seen: list[tuple[int, int]] = []
    mask = torch.zeros(1, 64, 72)
    mask[:, :, 40:] = 1
    image, result = session.edit_image(
        picture(70, 76),
        SOURCE,
        TARGET,
        EditSettings(local_blend="off"),
        steps=STEPS,
        mask=mask,
        on_step=lambda i, n, preview=None: seen.append((i, n)),
    )
    assert image.shape == (1, 64, 72, 3) and 0 <= image.min() and image.max() <= 1
    assert seen == [(i, 2 * STEPS) for i in range(1, 2 * STEPS + 1)]
    assert "gone: red; new: blue" in result.notes[0]
    codec = session.codec
    assert codec is not None
    pixels, note = fit_image(picture(70, 76))
    assert "cut at its edges to 72×64" in note
    latent = codec.encode(pixels)
    inversion = session.invert(latent, SOURCE, STEPS)
    apart = session.edit(inversion, TARGET, EditSettings(local_blend="off"), mask=mask)
    assert torch.equal(image, codec.decode(apart.edited.latent))
    assert torch.equal(result.edited.latent[..., :5], latent[..., :5])


def test_where_nothing_differs_nothing_runs(session: EditSession[Any], latent: torch.Tensor) -> None:
    inversion = session.invert(latent, SOURCE, STEPS)
    result = session.edit(inversion, SOURCE)
    assert torch.equal(result.edited.latent, latent) and result.edited.rows == 0
    result.edited.latent.zero_()
    assert torch.equal(inversion.trajectory.latents[0], latent), "the inversion is its own"
    assert not result.edited.mask.any() and "the picture is kept" in result.notes[0]
    for wish in ({"negative_prompt": "snow"}, {"settings": EditSettings(options=OPTIONS)}):
        assert not torch.equal(session.edit(inversion, SOURCE, **wish).edited.latent, latent)  # type: ignore[arg-type]


def test_an_empty_negative_prompt_is_zeros_for_sdxl_alone(pipelines: dict[str, Any]) -> None:
    for kind, pipeline in pipelines.items():
        session = EditSession.from_pipeline(pipeline)
        plans = session.encoder.plan(LONG)
        encoded = session.encode_prompts(plans, plans, " ")
        assert encoded["negative"].states.shape == encoded["target"].states.shape
        assert encoded["negative"].states.any() == (kind == "sd15")
        longer = session.encode_prompts(session.encoder.plan(SOURCE), session.encoder.plan(TARGET), LONG)
        assert longer["negative"].states.shape[1] == 77  # cut, so that all rows are equally long


def test_a_control_of_ones_own_is_taken_as_it_is(session: EditSession[Any], latent: torch.Tensor) -> None:
    inversion = session.invert(latent, SOURCE, STEPS)
    plans = [session.encoder.plan(text)["l"] for text in (SOURCE, TARGET)]
    control = build_control(PromptToPromptOptions(), *plans, "llmga", size=(16, 16)).control
    own = session.edit(inversion, TARGET, control=control)
    assert own.notes == ()
    assert torch.equal(own.edited.latent, session.edit(inversion, TARGET).edited.latent)
    with pytest.raises(ValueError, match="mask and control are both given"):
        session.edit(inversion, TARGET, control=control, mask=torch.ones(1, 128, 128))


def test_words_are_shown_and_those_that_do_not_occur_are_named(
    session: EditSession[Any], latent: torch.Tensor
) -> None:
    inversion = session.invert(latent.repeat(2, 1, 1, 1), SOURCE, STEPS)
    maps = session.word_maps(inversion, ["Red star", "zebra", "snow"], 2)
    assert maps.heat.shape == (2, 2, 16, 16) and maps.missing == ("zebra",)
    assert maps.report.splitlines() == [
        "map 1: Red star (2 tokens)",
        "map 2: snow (1 tokens)",
        "'zebra' does not occur in the source prompt",
    ]
    with pytest.raises(ValueError, match="words must name words of the source prompt, got 'zebra'"):
        session.word_maps(inversion, ["zebra"])


def test_what_a_session_cannot_do_is_said(pipelines: dict[str, Any], latent: torch.Tensor) -> None:
    session = EditSession.from_pipeline(pipelines["sd15"])
    other = EditSession.from_pipeline(pipelines["sd15"], "llmga_lpw")
    inversion = session.invert(latent, SOURCE, 1)
    assert inversion.pixels == (128, 128) and "1 steps" in inversion.report
    assert "source_prompt is empty" in session.invert(latent, " ", 1).report
    with pytest.raises(ValueError, match="made in the layout llmga, and this session has llmga_lpw"):
        other.edit(inversion, TARGET)
    latents = EditSession(session.runner, session.encoder)
    with pytest.raises(ValueError, match="has no codec"):
        latents.edit_image(picture(), SOURCE, TARGET)
    with pytest.raises(ValueError, match="31×64 pixels, and an edit needs 32"):
        session.edit_image(picture(64, 31), SOURCE, TARGET)


def test_masks_are_cut_with_their_pictures_and_empty_ones_are_none() -> None:
    assert fit_edit_mask(torch.zeros(1, 64, 64), (64, 64)) is None
    mask = torch.zeros(1, 66, 70)
    mask[:, 1:65, 3:67] = 1
    cut = fit_edit_mask(mask, (64, 64))
    assert cut is not None and cut.shape == (1, 64, 64) and cut.min() == 1
    resized = fit_edit_mask(torch.ones(2, 8, 8) * 2, (64, 64))
    assert resized is not None and resized.shape == (2, 64, 64) and (resized == 1).all()
    touched = torch.zeros(1, 16, 16)
    touched[0, 0, 7] = 0.01
    assert mask_cells(touched, (2, 2)).flatten().tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_one_prompt_alone_is_that_prompt_in_a_batch(pipelines: dict[str, Any], kind: str) -> None:
    """Chunks are encoded once whatever prompts they are in, and pooled vectors are of each prompt's last chunk."""
    pipeline = pipelines[kind]
    encoder = EditSession.from_pipeline(pipeline).encoder
    assert isinstance(encoder, CLIPPromptEncoder)
    plans = [encoder.plan(text) for text in (LONG, SOURCE, LONG + SOURCE, "")]
    together = encoder.encode_all(plans, 4)
    for i, each in enumerate(plans):
        alone = encoder.encode(each, 4)
        torch.testing.assert_close(together.states[i : i + 1], alone.states, rtol=1e-5, atol=1e-5)
        if kind == "sdxl":
            assert together.pooled is not None and alone.pooled is not None
            torch.testing.assert_close(together.pooled[i : i + 1], alone.pooled, rtol=1e-5, atol=1e-5)


def test_a_diffusers_autoencoder_is_a_codec(pipelines: dict[str, Any]) -> None:
    codec = DiffusersCodec(pipelines["sd15"].vae)
    latent = codec.encode(picture())
    assert latent.shape == (1, 4, 8, 8) and latent.dtype == torch.float32
    vae = pipelines["sd15"].vae
    with torch.no_grad():
        expected = vae.encode(picture().movedim(-1, 1) * 2 - 1).latents * vae.config.scaling_factor
    assert torch.equal(latent, expected)
    assert codec.decode(latent).shape == (1, 64, 64, 3)
