"""LLMGA's second editor against the official code, recorded by fixtures/edit_friendly_official.py (tolerance 1e-4 on
values of order 1), and its properties."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.formula_denoiser import FormulaDenoiser, inputs

from llmga.diffusion.schedule import Schedule
from llmga.edit.diffedit import difference_mask
from llmga.edit.edit_friendly import EditFriendly, denoise, edit_friendly, find_noise_maps

OFFICIAL = load_file(Path(__file__).parent / "fixtures" / "edit_friendly_official.safetensors")
GIVEN = inputs()
SOURCE, TARGET, NEGATIVE = GIVEN["source"], GIVEN["target"], GIVEN["negative"]
ONE, BATCH = GIVEN["latent"][:1], GIVEN["latent"]
STEPS, MASK_RATIO = 20, 2.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def denoiser():
    return FormulaDenoiser(Schedule.from_betas())


@pytest.fixture
def noise(denoiser):
    return find_noise_maps(denoiser, ONE, SOURCE, NEGATIVE, generator=seeded(2), steps=STEPS)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_the_recorded_mask_has_both_values():
    assert 0.1 < OFFICIAL["mask"].mean() < 0.9


def test_mask(denoiser):
    mask = difference_mask(denoiser, ONE, SOURCE, TARGET, generator=seeded(1), ratio=MASK_RATIO)
    assert torch.equal(mask[:, 0], OFFICIAL["mask"]) and denoiser.rows == 20


def test_noise_maps(noise):
    close(noise.start, OFFICIAL["start"])
    close(noise.maps, OFFICIAL["zs"])
    assert (noise.timesteps[0], noise.timesteps[-1]) == (749, 1)


@pytest.mark.parametrize("name", ["whole", "masked"])
def test_edited(denoiser, noise, name):
    mask = OFFICIAL["mask"][:, None] if name == "masked" else None
    made = denoise(denoiser, noise, TARGET, NEGATIVE, mask=mask)
    close(made, OFFICIAL[f"edited.{name}"])
    assert (made - ONE).abs().mean() > 0.01


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("cfg", [1.0, 3.5])
def test_the_same_prompt_and_guidance_give_the_latent_back(denoiser, steps, cfg):
    noise = find_noise_maps(denoiser, BATCH, SOURCE, NEGATIVE, generator=seeded(0), steps=steps, cfg=cfg)
    close(denoise(denoiser, noise, SOURCE, NEGATIVE, cfg=cfg), BATCH)


def test_guidance_of_one_needs_no_negative_rows(denoiser):
    find_noise_maps(denoiser, ONE, SOURCE, NEGATIVE, generator=seeded(0), steps=5, cfg=1.0)
    assert denoiser.rows == 5


def test_a_batch_is_the_loop(denoiser):
    settings = EditFriendly(steps=6, mask_ratio=MASK_RATIO)
    both, masks = edit_friendly(denoiser, BATCH, SOURCE, TARGET, NEGATIVE, settings, seed=3)
    assert masks.shape == (2, 1, 8, 8) and not torch.equal(masks[0], masks[1])
    for i in range(2):
        made, mask = edit_friendly(denoiser, BATCH[i : i + 1], SOURCE, TARGET, NEGATIVE, settings, seed=3)
        assert torch.equal(mask, masks[i : i + 1])
        torch.testing.assert_close(made, both[i : i + 1], atol=1e-5, rtol=0)


def test_the_seed_decides(denoiser):
    settings = EditFriendly(steps=4, mask_maps=1)
    run = lambda seed: edit_friendly(denoiser, ONE, SOURCE, TARGET, NEGATIVE, settings, seed=seed)[0]  # noqa: E731
    assert torch.equal(run(3), run(3)) and not torch.equal(run(3), run(4))


def test_a_given_mask_is_used_and_none_is_looked_for(denoiser):
    given = torch.zeros(1, 1, 8, 8)
    settings = EditFriendly(steps=4)
    made, mask = edit_friendly(denoiser, ONE, SOURCE, TARGET, NEGATIVE, settings, seed=0, mask=given)
    assert mask is given and denoiser.rows == 16
    other, _ = edit_friendly(denoiser, ONE, SOURCE, SOURCE, NEGATIVE, settings, seed=0, mask=given)
    assert torch.equal(made, other)  # without guidance the prompt says nothing


def test_progress_counts_all_parts_and_may_end_them(denoiser):
    seen = []
    settings = EditFriendly(steps=3, mask_maps=2)

    def note(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        seen.append((i, n, preview is not None))

    edit_friendly(denoiser, ONE, SOURCE, TARGET, NEGATIVE, settings, seed=0, on_step=note)
    assert seen == [(i, 8, i > 5) for i in range(1, 9)]

    def stop(i: int, n: int, preview: torch.Tensor | None = None) -> None:
        if i == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        edit_friendly(denoiser, ONE, SOURCE, TARGET, NEGATIVE, settings, seed=0, on_step=stop)


def test_half_precision_latents_are_worked_on_in_full(denoiser):
    half = ONE.half()
    noise = find_noise_maps(denoiser, half, SOURCE, NEGATIVE, generator=seeded(2), steps=3)
    assert noise.start.dtype == noise.maps.dtype == torch.float32
    close(denoise(denoiser, noise, SOURCE, NEGATIVE, cfg=3.5), half.float())


def test_as_much_is_skipped_as_is_asked_for(denoiser):
    found = [
        find_noise_maps(denoiser, ONE, SOURCE, NEGATIVE, generator=seeded(0), steps=steps, skip=0.9)
        for steps in (1, 2)
    ]
    assert [noise.timesteps for noise in found] == [(99,), (99, 1)]


@pytest.mark.parametrize(("steps", "skip"), [(0, 0.25), (750, 0.25), (50, 1.0), (50, -0.1)])
def test_impossible_schedules(denoiser, steps, skip):
    with pytest.raises(ValueError, match=f"got steps {steps} and skip {skip}"):
        find_noise_maps(denoiser, ONE, SOURCE, NEGATIVE, generator=seeded(0), steps=steps, skip=skip)


@pytest.mark.parametrize("wrong", [{"maps": 0}, {"ratio": 0.0}, {"strength": 0.0}, {"strength": 1.5}])
def test_impossible_masks(denoiser, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        difference_mask(denoiser, ONE, SOURCE, TARGET, generator=seeded(0), **wrong)


def test_a_difference_that_is_everywhere_gives_up_its_mask(denoiser):
    find = lambda **more: difference_mask(denoiser, ONE, SOURCE, TARGET, generator=seeded(1), maps=2, **more)  # noqa: E731
    assert 0 < find().mean() < 1 and torch.equal(find(everywhere=0.01), find())
    assert find(everywhere=1.0).mean() == 1
