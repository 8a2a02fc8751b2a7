"""The editing nodes in this process, on tiny models: what comes out, and what becomes of every odd input."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy
from support import tiny_edit as tiny
from support.edit_nodes import LONG, SOURCE, STEPS, edit, execute, invert, p2p, picture

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def round_trip(trio: Any, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return trio[2].decode(trio[2].encode(image[..., :3])).clamp(0, 1)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_invert_and_edit(trios: dict[str, Any], kind: str) -> None:
    trio, image = trios[kind], picture()
    inversion, reconstruction, said = invert(trio, image=image)
    torch.testing.assert_close(reconstruction, round_trip(trio, image), atol=1e-5, rtol=0)
    assert inversion.trajectory.latents.shape == (STEPS + 1, 1, 4, 8, 8)
    assert "1 picture of 64×64 pixels" in said and "4 steps" in said and "6 tokens in 1 chunk" in said
    edited, samples, changed, report = edit(trio, inversion=inversion)
    assert (
        edited.shape == image.shape
        and samples["samples"].shape == (1, 4, 8, 8)
        and changed.shape == (1, 64, 64)
    )
    assert 0 <= edited.min() and edited.max() <= 1
    assert (edited - reconstruction).abs().max() > 1e-3
    assert "gone: red" in report and "new: blue" in report and "rows through the UNet" in report
    with torch.inference_mode():
        torch.testing.assert_close(trio[2].decode(samples["samples"]).clamp(0, 1), edited, atol=1e-5, rtol=0)


def test_the_same_prompt_gives_the_round_trip_of_the_vae(trio: Any) -> None:
    inversion, reconstruction, _ = invert(trio)
    edited, samples, changed, report = edit(trio, SOURCE, inversion=inversion)
    assert changed.max() == 0 and samples["samples"].shape == (1, 4, 8, 8)
    torch.testing.assert_close(edited, round_trip(trio, picture()), atol=1e-5, rtol=0)
    assert torch.equal(edited, reconstruction) and "the picture is kept" in report
    wished = edit(trio, SOURCE, inversion=inversion, negative_prompt="a tree")
    weighted = edit(trio, SOURCE, inversion=inversion, options=p2p(word_weights="red: 3"))
    assert all((other[0] - edited).abs().max() > 1e-4 for other in (wished, weighted))


def test_an_image_is_inverted_on_the_way(trio: Any) -> None:
    inversion = invert(trio)[0]
    apart = edit(trio, inversion=inversion)[0]
    at_once = edit(trio, image=picture(), source_prompt=SOURCE)[0]
    assert torch.equal(apart, at_once)


def test_the_same_inputs_give_the_same_bytes_and_leave_the_models_alone(trio: Any) -> None:
    model = trio[0]
    before = {name: value.clone() for name, value in model.model.diffusion_model.state_dict().items()}
    options, state = dict(model.model_options["transformer_options"]), torch.random.get_rng_state()
    assert torch.equal(*(edit(trio, inversion=invert(trio)[0])[0] for _ in range(2)))
    assert all(torch.equal(before[k], v) for k, v in model.model.diffusion_model.state_dict().items())
    assert model.model_options["transformer_options"] == options
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_latent_is_as_good_as_its_image(trio: Any) -> None:
    with torch.inference_mode():
        latent = {"samples": trio[2].encode(picture())}
    assert torch.equal(invert(trio, latent=latent)[0].trajectory.latents, invert(trio)[0].trajectory.latents)


@pytest.mark.parametrize("local_blend", ["auto", "off"])
def test_a_batch_of_four_is_the_loop(trio: Any, local_blend: str) -> None:
    images = torch.cat([picture(64, 72).roll(8 * i, 2) for i in range(4)])
    mask = torch.ones(4, 64, 72)
    mask[1, :, 32:] = 0
    options = {"source_prompt": SOURCE, "local_blend": local_blend}
    batch = edit(trio, image=images, mask=mask, **options)
    for i in range(4):
        single = edit(trio, image=images[i : i + 1], mask=mask[i : i + 1], **options)
        torch.testing.assert_close(batch[0][i : i + 1], single[0], atol=1e-4, rtol=0)
        assert torch.equal(batch[2][i : i + 1], single[2])
    assert invert(trio, image=images)[0].trajectory.latents.shape[1] == 4


@pytest.mark.parametrize(("height", "width"), [(64, 72), (71, 65), (40, 104), (32, 32)])
def test_odd_sizes_are_cut_at_their_edges_and_told(trio: Any, height: int, width: int) -> None:
    image = picture(height, width)
    rows, columns = height // 8 * 8, width // 8 * 8
    top, left = (height - rows) // 2, (width - columns) // 2
    _, reconstruction, said = invert(trio, image=image)
    cut = image[:, top : top + rows, left : left + columns]
    torch.testing.assert_close(reconstruction, round_trip(trio, cut), atol=1e-5, rtol=0)
    assert (f"cut at its edges to {columns}×{rows}" in said) == ((rows, columns) != (height, width))
    edited, _, changed, _ = edit(trio, image=image, source_prompt=SOURCE)
    assert edited.shape[1:3] == changed.shape[1:] == (rows, columns)


def test_a_mask_is_cut_as_its_image_is(trio: Any) -> None:
    image, mask = picture(64, 72)[:, :, :70], torch.zeros(1, 64, 70)
    mask[:, :, 3:27] = 1  # columns 0 to 23 of the cut picture
    for given in ({"image": image, "source_prompt": SOURCE}, {"inversion": invert(trio, image=image)[0]}):
        changed = edit(trio, **given, mask=mask, local_blend="off")[2]
        assert changed.shape == (1, 64, 64)
        assert (changed[:, :, :24] == 1).all() and not changed[:, :, 24:].any()


def test_alpha_and_grey(trio: Any) -> None:
    image = picture(channels=4)
    _, reconstruction, said = invert(trio, image=image)
    assert "alpha was dropped" in said
    assert torch.equal(reconstruction, invert(trio, image=image[..., :3])[1])
    grey = picture(channels=1)
    assert torch.equal(invert(trio, image=grey)[1], invert(trio, image=grey.expand(-1, -1, -1, 3))[1])


def test_outside_a_mask_nothing_changes_and_an_empty_one_is_none(trio: Any) -> None:
    inversion = invert(trio)[0]
    clean = trio[0].model.process_latent_out(inversion.trajectory.latents[0])
    mask = torch.zeros(1, 16, 16)
    mask[:, :, 8:] = 1
    _, samples, changed, _ = edit(trio, inversion=inversion, mask=mask, local_blend="off")
    assert torch.equal(samples["samples"][..., :4], clean[..., :4])
    assert (samples["samples"][..., 4:] - clean[..., 4:]).abs().max() > 1e-3
    assert (changed[:, :, 32:] == 1).all() and not changed[:, :, :32].any()
    whole = edit(trio, inversion=inversion, local_blend="off")[0]
    assert torch.equal(
        edit(trio, inversion=inversion, mask=torch.zeros(1, 64, 64), local_blend="off")[0], whole
    )


def test_a_local_blend_keeps_the_rest(trio: Any) -> None:
    inversion = invert(trio, image=picture(128, 128))[0]  # at 64, all of a map's 2×2 cells are neighbours
    clean = trio[0].model.process_latent_out(inversion.trajectory.latents[0])
    _, samples, changed, _ = edit(
        trio, inversion=inversion, options=p2p(blend_threshold=0.99, blend_start=0.0)
    )
    cells = changed[:, ::8, ::8] > 0
    assert cells.any() and not cells.all()
    kept = ~cells[:, None].expand_as(clean)
    assert torch.equal(samples["samples"][kept], clean[kept])


def test_the_options_act_and_report_what_does_not_occur(trio: Any) -> None:
    inversion = invert(trio, image=picture(128, 128))[0]
    plain = edit(trio, inversion=inversion)
    assert torch.equal(edit(trio, inversion=inversion, options=p2p())[0], plain[0])
    for options in (
        {"word_weights": "star: 5"},
        {"word_steps": "snow: 0.1 to 0.2"},
        {"blend_words": "snow", "blend_threshold": 0.9},
        {"subtract_words": "Stars,", "blend_threshold": 0.5},
        {"mode": "refine"},
        {"self_max": 0.0},
    ):
        assert not torch.equal(edit(trio, inversion=inversion, options=p2p(**options))[0], plain[0]), options
    nowhere = p2p(word_weights="tiger: 2", word_steps="lion: 0.5", blend_words="zebra", subtract_words="emu")
    report = edit(trio, inversion=inversion, options=nowhere)[3]
    for line in (
        "word_weights: 'tiger' does not occur in the target prompt",
        "word_steps: 'lion' does not occur",
        "blend_words: 'zebra' occurs in neither prompt",
        "subtract_words: 'emu' occurs in neither prompt",
    ):
        assert line in report


def test_prompts_beyond_77_tokens(trios: dict[str, Any]) -> None:
    for trio in trios.values():
        inversion, _, said = invert(trio, LONG)
        assert "3 chunks" in said or "2 chunks" in said
        report = edit(trio, LONG.replace("stone", "wooden"), inversion=inversion)[3]
        assert "new: wooden" in report and "WARNING" not in report
        shorter = edit(trio, SOURCE, inversion=inversion)[3]
        assert "WARNING the prompts share too few words" in shorter
        longer = edit(trio, LONG, image=picture(), source_prompt=SOURCE, negative_prompt="blurry, " * 200)[3]
        assert "WARNING" in longer


def test_empty_prompts(trio: Any) -> None:
    inversion, _, said = invert(trio, " ")
    assert "source_prompt is empty" in said
    assert "WARNING" in edit(trio, inversion=inversion)[3]
    for empty in ("", " \n"):
        with pytest.raises(ValueError, match="target_prompt is empty; write"):
            edit(trio, empty, inversion=inversion)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(trio: Any, dtype: torch.dtype) -> None:
    half = (tiny.host_model("sd15", tiny.diffusers_unet("sd15"), dtype=dtype), *trio[1:])
    edited = edit(half, image=picture(), source_prompt=SOURCE)[0]
    assert edited.dtype == torch.float32 and edited.isfinite().all()
    full = edit(trio, image=picture(), source_prompt=SOURCE)[0]
    assert (edited - full).abs().mean() < 0.1


def test_v_prediction(trio: Any) -> None:
    model = tiny.host_model("sd15", tiny.diffusers_unet("sd15"), v=True)
    assert edit((model, *trio[1:]), image=picture(), source_prompt=SOURCE)[0].isfinite().all()


def test_a_cancel_stops_at_the_next_step_and_the_next_run_is_as_ever(
    trio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    management: Any = importlib.import_module("comfy.model_management")
    before = invert(trio)[0]
    denoiser = comfy.pack("nodes.host_denoiser").HostDenoiser
    passes, eps = [], denoiser.eps

    def counted(self, *values, **options):
        passes.append(1)
        if len(passes) == 3:
            management.interrupt_current_processing()
        return eps(self, *values, **options)

    monkeypatch.setattr(denoiser, "eps", counted)
    for run in (lambda: invert(trio), lambda: edit(trio, inversion=before)):
        passes.clear()
        with pytest.raises(management.InterruptProcessingException):
            run()
        assert len(passes) == 3
    monkeypatch.setattr(denoiser, "eps", eps)
    assert torch.equal(invert(trio)[0].trajectory.latents, before.trajectory.latents)


def test_progress_and_previews_are_shown(trio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inversion = invert(trio)[0]
    utils: Any = importlib.import_module("comfy.utils")
    seen: list[Any] = []
    monkeypatch.setattr(
        utils, "PROGRESS_BAR_HOOK", lambda value, total, preview, **more: seen.append((value, total, preview))
    )
    previews: Any = importlib.import_module("latent_preview")
    monkeypatch.setattr(previews.args, "preview_method", previews.LatentPreviewMethod.Latent2RGB)
    # Of quick steps the host shows some: the first and the last at least.
    for run in (lambda: invert(trio), lambda: edit(trio, inversion=inversion)):
        seen.clear()
        run()
        steps = [each[0] for each in seen]
        assert steps == sorted(steps) and {1, STEPS} <= set(steps) and {each[1] for each in seen} == {STEPS}
    assert all(each[2] is not None for each in seen)


def test_attention_maps(trio: Any) -> None:
    inversion = invert(trio, image=picture(64, 72, batch=2))[0]
    maps, masks, said = execute("inversion", "AttentionMaps", *trio, inversion, "Red star, zebra, snow", 3)
    assert maps.shape == (4, 64, 72, 3) and masks.shape == (4, 64, 72)
    assert 0 <= maps.min() and maps.max() <= 1 and masks.min() >= 0
    assert not torch.equal(masks[0], masks[2])
    assert said.splitlines() == [
        "map 1: Red star (2 tokens)",
        "map 2: snow (1 tokens)",
        "'zebra' does not occur in the source prompt",
    ]
    for words in ("", "zebra", ", ,"):
        with pytest.raises(ValueError, match="words must name words of the source prompt"):
            execute("inversion", "AttentionMaps", *trio, inversion, words, 3)


def test_one_empty_mask_of_a_batch_leaves_its_picture(trio: Any) -> None:
    images = torch.cat([picture(), picture().roll(8, 2)])
    mask = torch.ones(2, 64, 64)
    mask[1] = 1 / 256
    options = {"source_prompt": SOURCE, "local_blend": "off"}
    edited, _, changed, report = edit(trio, image=images, mask=mask, **options)
    assert "mask 1 is empty: picture 1 stays as it is" in report
    assert changed[0].any() and not changed[1].any()
    torch.testing.assert_close(edited[1:], round_trip(trio, images[1:]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("floor", [1 / 256, 4 / 255 - 1e-4, 0.0025])
def test_a_mask_that_is_nowhere_zero_opens_its_own_cells_only(trio: Any, floor: float) -> None:
    mask = torch.zeros(1, 64, 64)
    mask[:, 16:32, 24:40] = 1
    options = {"image": picture(), "source_prompt": SOURCE, "local_blend": "off"}
    exact, given = edit(trio, mask=mask, **options), edit(trio, mask=mask.clamp(min=floor), **options)
    assert torch.equal(given[2], exact[2]) and torch.equal(given[0], exact[0])
    assert torch.equal(edit(trio, mask=mask[..., None], **options)[0], exact[0])  # (B, H, W, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_pictures_of_any_float_type_are_edited(trio: Any, dtype: torch.dtype) -> None:
    image = picture().to(dtype)
    given = edit(trio, image=image, source_prompt=SOURCE)
    assert torch.equal(given[0], edit(trio, image=image.float(), source_prompt=SOURCE)[0])
    assert given[0].dtype == torch.float32
