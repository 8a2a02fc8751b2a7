"""The closed-form correction of colours, and the report on a seam."""

from __future__ import annotations

import pytest
import torch

from llmga.restore.colour import match_colour
from llmga.restore.seam import seam

pytestmark = pytest.mark.usefixtures("one_thread")


def smooth(seed: int = 0, size: int = 64) -> torch.Tensor:
    """A picture that is nowhere clipped."""
    coarse = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1) * 0.5 + 0.25


def hole(size: int = 64, margin: int = 16) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size)
    mask[..., margin:-margin, margin:-margin] = 1
    return mask


def outside(mask: torch.Tensor) -> torch.Tensor:
    return (mask == 0).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("ring", [0, 4, 32])
@pytest.mark.parametrize("channels", ["each", "together"])
def test_a_gain_and_a_bias_are_undone(channels: str, ring: int) -> None:
    truth, mask = smooth(), hole()
    made = match_colour(truth * 1.07 - 0.04, truth, mask, ring, channels=channels)  # type: ignore[arg-type]
    torch.testing.assert_close(made.image, truth, atol=2e-6, rtol=0.0)
    assert torch.equal(made.image[outside(mask)], truth[outside(mask)])
    torch.testing.assert_close(made.gain, torch.full((1, 3), 1 / 1.07))
    torch.testing.assert_close(made.bias, torch.full((1, 3), 0.04 / 1.07))


def test_a_cast_is_undone_only_channel_by_channel() -> None:
    truth, mask = smooth(), hole()
    cast = torch.tensor([0.05, 0.0, -0.05])[:, None, None]
    assert (match_colour(truth + cast, truth, mask).image - truth).abs().max() < 1e-5
    assert (match_colour(truth + cast, truth, mask, channels="together").image - truth).abs().max() > 0.02


def test_only_the_ring_decides() -> None:
    """What lies far away may have been lit otherwise, and what lies in the hole is unknown."""
    truth, mask = smooth(size=96), hole(96, 32)
    reference = torch.where(mask > 0, torch.rand(1, 3, 96, 96), truth)
    reference[..., :8, :] = 0.3
    made = match_colour(truth * 0.9 + 0.02, reference, mask, 8)
    torch.testing.assert_close(made.image[~outside(mask)], truth[~outside(mask)], atol=2e-6, rtol=0.0)
    assert made.pixels.item() == 48**2 - 32**2
    assert (match_colour(truth * 0.9 + 0.02, reference, mask, 0).gain - 1 / 0.9).abs().max() > 0.01


def test_clipped_pixels_do_not_bend_the_line() -> None:
    truth, mask = smooth(), hole()
    truth = (truth - 0.25) * 2
    made = match_colour((truth * 1.2).clamp(0, 1), truth, mask)
    torch.testing.assert_close(made.gain, torch.full((1, 3), 1 / 1.2), atol=1e-5, rtol=0.0)


def test_where_nothing_can_be_known_nothing_is_invented() -> None:
    truth = smooth()
    full = match_colour(truth * 0.9, truth, torch.ones(1, 1, 64, 64))
    assert torch.equal(full.image, truth * 0.9) and full.pixels.item() == 0
    assert full.gain.tolist() == [[1.0] * 3] and full.bias.tolist() == [[0.0] * 3]
    empty = match_colour(truth * 0.9, truth, torch.zeros(1, 1, 64, 64))
    assert torch.equal(empty.image, truth)
    flat = torch.full((1, 3, 64, 64), 0.5)  # no contrast: the bias alone
    made = match_colour(flat + 0.1, flat, hole())
    assert made.gain.tolist() == [[1.0] * 3]
    torch.testing.assert_close(made.image, flat)
    torch.testing.assert_close(match_colour(truth * 0.1, truth, hole()).gain, torch.ones(1, 3))


def test_a_batch_is_the_loop_and_other_sizes_fit() -> None:
    images = torch.cat([smooth(i) for i in range(3)])
    made = match_colour(images * 0.9, images, hole())
    loop = [match_colour(images[i : i + 1] * 0.9, images[i : i + 1], hole()).image for i in range(3)]
    assert torch.equal(made.image, torch.cat(loop))
    other = match_colour(smooth(size=128) * 0.9, smooth(size=64), hole(32, 8))
    assert other.image.shape == (1, 3, 64, 64)
    tiny = match_colour(torch.rand(1, 4, 1, 1), torch.rand(1, 4, 1, 1), torch.ones(1, 1, 1, 1))
    assert tiny.image.shape == (1, 3, 1, 1)
    with pytest.raises(ValueError, match="ring must be 0"):
        match_colour(images, images, hole(), -1)
    with pytest.raises(ValueError, match="channels must be each or together, got 'all'"):
        match_colour(images, images, hole(), channels="all")  # type: ignore[arg-type]


def test_each_disparity_sees_its_own_fault() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 1, 96, 96, generator=generator).expand(-1, 3, -1, -1)
    stripes = (torch.arange(96) % 16 < 8).float().expand(1, 3, 96, 96)
    mask = hole(96, 32)
    calm = 0.4 + 0.02 * noise + 0.1 * stripes

    def figures(inside: torch.Tensor) -> tuple[float, float, float]:
        found = seam(torch.where(mask > 0, inside, calm), mask)[0].disparity
        assert found is not None
        return found.texture, found.brightness, found.contrast

    none = figures(calm)
    brighter = figures(calm + 0.1)
    smoother = figures(0.4 + 0.1 * stripes)
    duller = figures(0.45 + 0.02 * noise)
    assert none[0] < 0.01 and none[1] < 0.06 and none[2] < 0.02
    assert brighter[1] > none[1] + 0.05 and brighter[0] < none[0] + 0.02
    assert smoother[0] > 2 * none[0]
    assert duller[2] > 2 * none[2]


def test_the_picture_shows_where_and_the_baseline_what_was_there_before() -> None:
    calm, mask = torch.full((1, 3, 96, 96), 0.4), hole(96, 32)
    made = seam(torch.where(mask > 0, calm + 0.05, calm), mask)[0]
    assert made.disparity is not None and made.baseline is not None
    assert made.disparity.brightness == pytest.approx(0.05, abs=1e-6)
    assert made.baseline.brightness == pytest.approx(0.0, abs=1e-6)
    green = made.picture[1] - made.picture[0]
    assert green[32, 48] == pytest.approx(0.5, abs=1e-3) and green[31, 48] > 0.4
    assert green[10, 10] == 0 and green[48, 48] == 0 and made.picture[0, 10, 10] == pytest.approx(0.2)


def test_where_there_is_no_border_there_is_no_figure() -> None:
    for mask in (torch.zeros(1, 1, 32, 32), torch.ones(1, 1, 32, 32)):
        made = seam(torch.rand(1, 3, 32, 32), mask)[0]
        assert made.disparity is None and made.baseline is None and made.picture.shape == (3, 32, 32)
    mask = torch.ones(1, 1, 32, 32)
    mask[..., :3] = 0
    made = seam(torch.rand(1, 3, 32, 32), mask)[0]  # too little is left around it
    assert made.disparity is not None and made.baseline is None
    for size in ((1, 1), (7, 513), (1, 9)):
        mask = (torch.rand(1, 1, *size) > 0.5).float()
        assert seam(torch.rand(1, 4, *size), mask)[0].picture.shape == (3, *size)


def test_seams_of_a_batch_and_wrong_shapes() -> None:
    images = torch.rand(3, 3, 40, 40)
    made = seam(images, hole(40, 10))
    alone = [seam(images[i : i + 1], hole(40, 10))[0] for i in range(3)]
    assert [a.disparity for a in made] == [b.disparity for b in alone] and len(made) == 3
    with pytest.raises(ValueError, match=r"mask must be \(1 or 3, 1, 40, 40\), the size of image"):
        seam(images, hole(32, 8))
    with pytest.raises(ValueError, match=r"image must be \(B, 3 or 4, height, width\)"):
        seam(images[:, :1], hole(40, 10))
    with pytest.raises(ValueError, match="band must be at least 1 pixel, got 0"):
        seam(images, hole(40, 10), 0)


def test_both_can_be_stopped_within_a_batch() -> None:
    images, calls = torch.cat([smooth(i) for i in range(3)]), []
    match_colour(images, images, hole(), on_picture=lambda: calls.append("colour"))
    assert calls == ["colour"] * 3
    seam(images, hole(), on_part=lambda: calls.append("seam"))
    assert calls.count("seam") >= 3 * 10  # each picture in many parts: a large one takes seconds

    def stop() -> None:
        raise KeyError("stop here")

    with pytest.raises(KeyError, match="stop here"):
        match_colour(images, images, hole(), on_picture=stop)
    with pytest.raises(KeyError, match="stop here"):
        seam(images, hole(), on_part=stop)
