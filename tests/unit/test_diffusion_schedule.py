from __future__ import annotations

import pytest
import torch

from llmga.diffusion import Schedule, ddim_step, predict_x0
from llmga.diffusion.schedule import part_of
from llmga.scene import SceneSettings


def test_the_default_is_stable_diffusions() -> None:
    diffusers = pytest.importorskip("diffusers")
    official = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        set_alpha_to_one=False,
        steps_offset=1,
    )
    schedule = Schedule.from_betas()
    assert torch.equal(schedule.alphas_cumprod.float(), official.alphas_cumprod)
    for steps in (1, 7, 30, 50, 500, 999):
        official.set_timesteps(steps)
        assert schedule.timesteps(steps) == official.timesteps.tolist()
    assert schedule.abar(-19) == schedule.abar(0) == float(official.final_alpha_cumprod)


def test_a_start_of_noise_alone_is_refused_and_not_divided_by() -> None:
    levels = Schedule.from_betas().alphas_cumprod.clone()
    levels[-1] = 0
    schedule = Schedule(levels)
    assert schedule.timesteps(50)[0] == 981
    for steps in (500, 999):
        with pytest.raises(ValueError, match="at timestep 999 this schedule is noise alone"):
            schedule.timesteps(steps)


def test_a_share_of_steps_is_the_whole_number_that_a_person_means() -> None:
    for steps in range(1, 1000):
        assert [part_of(steps, percent / 100) for percent in range(101)] == [
            percent * steps // 100 for percent in range(101)
        ]
    assert SceneSettings(steps=90, replaced=0.7).replaced_steps == 63


@pytest.mark.parametrize("steps", [0, -1, 1000, 2.5, True])
def test_steps_that_the_schedule_has_not_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 999"):
        Schedule.from_betas().timesteps(steps)


def test_a_transfer_is_undone_by_the_one_back_and_finds_the_clean_picture() -> None:
    picture, eps = torch.randn(2, 4, 5, 7), torch.randn(2, 4, 5, 7)
    a, b = 0.9, 0.004
    noisy = b**0.5 * picture + (1 - b) ** 0.5 * eps
    torch.testing.assert_close(predict_x0(noisy, eps, b), picture, atol=1e-4, rtol=0)
    torch.testing.assert_close(ddim_step(ddim_step(noisy, eps, b, a), eps, a, b), noisy, atol=1e-5, rtol=0)


def test_a_schedule_needs_a_row_of_levels() -> None:
    with pytest.raises(ValueError, match=r"\(T,\)"):
        Schedule(torch.ones(3, 3))
