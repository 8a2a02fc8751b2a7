import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmga.data.blur import bell_kernel, filter_image, sinc_kernel
from llmga.data.degradations import Degradation, Pass, degrade, shift_colour

OFF = Pass(blur=0, resize_weights=(0, 0, 1), gaussian=1, noise_sigma=(0, 0), jpeg=0)
IDENTITY = Degradation(first=OFF, second=OFF, final_sinc=0, gain=0, bias=0)


def pictures(count: int = 2, height: int = 32, width: int = 40, seed: int = 0) -> torch.Tensor:
    """8-bit pictures with an edge, a ramp and some texture."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, width) * np.ones((count, 3, height, 1))
    texture = rng.random((count, 3, height, width)) * 0.2
    image = torch.from_numpy(np.clip(ramp * 0.6 + texture, 0, 1)).float()
    image[..., : height // 2, : width // 3] = 0.9
    return image.mul(255).round().div(255)


def with_first(**changes) -> Degradation:
    return replace(IDENTITY, first=replace(OFF, **changes))


def test_nothing_switched_on_changes_nothing():
    image = pictures()
    assert torch.equal(degrade(image, np.random.default_rng(0), IDENTITY), image)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 2, 4]))
def test_any_size_gives_an_8_bit_picture_of_the_right_size(seed, height, width, scale):
    image = pictures(1, height * scale, width * scale, seed)
    spoilt = degrade(image, np.random.default_rng(seed), Degradation(scale=scale))
    assert spoilt.shape == (1, 3, height, width) and spoilt.dtype == image.dtype
    assert spoilt.min() >= 0 and spoilt.max() <= 1
    assert torch.equal(spoilt.mul(255).round().div(255), spoilt)


def test_the_same_generator_gives_the_same_picture_and_the_input_stays():
    image = pictures(3)
    before = image.clone()
    first, second = (degrade(image, np.random.default_rng(4)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(image, before)
    assert not torch.equal(first, degrade(image, np.random.default_rng(5)))
    assert torch.random.initial_seed() == torch.random.initial_seed()


def test_the_global_generators_are_left_alone():
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    expected = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    degrade(pictures(), np.random.default_rng(0))
    assert (torch.rand(1), np.random.rand()) == expected  # noqa: NPY002


def test_a_batch_is_a_loop_and_each_picture_draws_for_itself():
    image = pictures(1).expand(4, -1, -1, -1)
    rng = np.random.default_rng(2)
    looped = torch.cat([degrade(image[i : i + 1], rng) for i in range(4)])
    batch = degrade(image, np.random.default_rng(2))
    assert torch.equal(batch, looped)
    assert all(not torch.equal(batch[0], batch[i]) for i in range(1, 4))


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32), (1, 3, 30, 32), (1, 3, 0, 32)]
)
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="sides divisible by 4"):
        degrade(torch.zeros(shape), np.random.default_rng(0), Degradation(scale=4))


def mean_change(config: Degradation, image: torch.Tensor, count: int = 40) -> torch.Tensor:
    rng = np.random.default_rng(0)
    return torch.cat([degrade(image, rng, config) for _ in range(count)]) - image


@pytest.mark.parametrize("grey", [0.0, 1.0])
def test_gaussian_noise_has_the_deviation_asked_for(grey):
    flat = torch.full((1, 3, 64, 64), 128 / 255)
    noise = mean_change(with_first(noise_sigma=(20, 20), grey_noise=grey), flat, 5)
    assert noise.std() * 255 == pytest.approx(20, rel=0.05) and abs(noise.mean()) * 255 < 1
    assert torch.equal(noise[:, 0], noise[:, 1]) == bool(grey)


def test_poisson_noise_grows_with_the_light_and_follows_its_law():
    levels = 64
    image = torch.arange(levels).div(levels).mul(255).round().div(255).repeat(3, 64, 1)[None]
    noise = mean_change(with_first(gaussian=0, poisson_scale=(1, 1), grey_noise=0), image, 20)
    # Var(Poisson(λ·64) / 64) = λ / 64
    for column in (8, 16, 32):
        assert noise[..., column].std() == pytest.approx(math.sqrt(column / levels / levels), rel=0.1)
    grey = mean_change(with_first(gaussian=0, poisson_scale=(1, 1), grey_noise=1), image, 1)
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_jpeg_is_worse_at_lower_quality_and_close_at_high():
    image = pictures(1, 64, 64)
    errors = [
        mean_change(with_first(jpeg=1, jpeg_quality=(q, q)), image, 1).abs().mean().item()
        for q in (10, 50, 95)
    ]
    assert errors[0] > errors[1] > errors[2] > 0 and errors[2] < 0.04  # colour is halved at any quality


def test_going_down_and_up_again_loses_detail():
    image = pictures(1, 64, 64)
    half = mean_change(with_first(resize_weights=(0, 1, 0), resize=(0.5, 0.5)), image, 10).abs().mean()
    tenth = mean_change(with_first(resize_weights=(0, 1, 0), resize=(0.1, 0.1)), image, 10).abs().mean()
    assert 0 < half < tenth


def test_colour_shift_is_contrast_and_brightness_within_the_ranges():
    flat = torch.full((1, 3, 8, 8), 0.5)
    change = mean_change(replace(IDENTITY, gain=0.06, bias=0.05), flat, 300)[:, :, 0, 0]
    assert torch.equal(change[:, 0], change[:, 1])  # one for all channels
    assert change.abs().max() <= 0.5 * 0.06 + 0.05 + 1 / 255
    assert change.max() > 0.055 and change.min() < -0.055
    assert torch.equal(shift_colour(torch.tensor([0.0, 0.5, 1.0]), 1.2, -0.1), torch.tensor([0.0, 0.5, 1.0]))


def test_the_paper_is_the_default():
    paper = Degradation()
    assert (paper.gain, paper.bias, paper.scale, paper.final_sinc) == (0.06, 0.05, 1, 0.8)
    assert (paper.first.resize, paper.second.resize) == ((0.15, 1.5), (0.3, 1.2))
    assert (paper.first.sigma, paper.second.sigma, paper.second.blur) == ((0.2, 3.0), (0.2, 1.5), 0.8)
    assert sum(paper.first.families) == pytest.approx(1) and paper.first.families == paper.second.families


KERNELS = [
    bell_kernel("gaussian", 21, (2.0, 2.0)),
    bell_kernel("gaussian", 21, (3.0, 1.0), 0.5),
    bell_kernel("generalised", 15, (2.0, 1.0), 1.0, 0.5),
    bell_kernel("plateau", 21, (2.0, 2.0), 0.0, 1.5),
    sinc_kernel(7, math.pi / 2),
    sinc_kernel(21, math.pi),
]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_sum_to_one_and_are_symmetric(kernel):
    assert kernel.dtype == np.float32 and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-7)
    flat = torch.full((1, 3, 9, 5), 0.3)
    assert torch.allclose(filter_image(flat, kernel), flat, atol=1e-5)


def test_kernel_shapes_are_those_of_their_formulas():
    round_, turned = bell_kernel("gaussian", 21, (2, 2)), bell_kernel("gaussian", 21, (3, 1), math.pi / 2)
    axis = np.arange(21) - 10
    assert (round_.sum(0) * axis**2).sum() == pytest.approx(4, rel=0.01)  # variance, in pixels
    assert (turned.sum(1) * axis**2).sum() == pytest.approx(
        9, rel=0.05
    )  # turned by 90°: the long axis is upright
    assert (turned.sum(0) * axis**2).sum() == pytest.approx(1, rel=0.05)
    assert np.allclose(bell_kernel("generalised", 21, (2, 2), beta=1.0), round_, atol=1e-7)
    plateau = bell_kernel("plateau", 21, (2, 2), beta=1.0)
    assert plateau[10, 12] / plateau[10, 10] == pytest.approx(1 / 2)
    assert (sinc_kernel(21, math.pi / 3) < 0).any()  # it rings


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 30), (64, 64)])
def test_convolution_mirrors_the_edges_of_pictures_of_any_size(size):
    image = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(0))
    kernel = bell_kernel("gaussian", 21, (3.0, 1.0), 0.5)
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (10, 10), (10, 10)), mode="reflect")
    expected = sum(
        kernel[i, j] * padded[:, :, i : i + size[0], j : j + size[1]] for i in range(21) for j in range(21)
    )
    assert np.allclose(filter_image(image, kernel), expected, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_picture_within_rounding():
    image = pictures(2)
    on_gpu = degrade(image.cuda(), np.random.default_rng(0)).cpu()
    # One step of JPEG rounding can move a block by several levels.
    assert (on_gpu - degrade(image, np.random.default_rng(0))).abs().mean() < 2 / 255
