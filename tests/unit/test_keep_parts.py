"""The parts of Keep the Rest alone: alignment, colours, the search for changes, and the numbers of the result."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image
from support.soft_scenes import shifted, soft_scene, with_square

from llmga.images import channels_first, channels_last, from_pil, to_pil
from llmga.paint.change import blur_between, changed
from llmga.paint.colour_fit import ColourFit, fit_colours
from llmga.paint.keep import BAND, KeptRest, keep_rest
from llmga.paint.registration import Registration, apply_registration, blur, estimate_registration
from llmga.restore.seam import seam
from llmga.windows import greatest_around

pytestmark = pytest.mark.usefixtures("one_thread")

EVERYWHERE = torch.ones(1, 1, 96, 112, dtype=torch.bool)


def box(top: int, bottom: int, left: int, right: int, size: tuple[int, int] = (96, 112)) -> torch.Tensor:
    """(1, H, W): 1 in the rows and columns given."""
    mask = torch.zeros(1, *size)
    mask[:, top:bottom, left:right] = 1
    return mask


def overlap(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Intersection over union."""
    found, truth = found.flatten() > 0.5, truth.flatten() > 0.5
    return ((found & truth).sum() / (found | truth).sum()).item()


def noise(height: int, width: int, seed: int, channels: int = 3) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(seed))


def kept(
    original: torch.Tensor, edited: torch.Tensor, mask: torch.Tensor | None = None, **options
) -> KeptRest:
    options = {"match_alignment": False, **options}
    return keep_rest(channels_last(original), channels_last(edited), mask, **options)[0]


# Alignment


def test_a_zoom_alone_is_found_and_a_shift_that_nobody_sees_is_left_out() -> None:
    image = soft_scene()
    zoomed = apply_registration(image, Registration((1 / 1.04, 1 / 1.04)))[0]
    found = estimate_registration(image, zoomed)
    assert found.zoom == pytest.approx((1.04, 1.04), abs=3e-3)
    assert estimate_registration(image, shifted(image, 0.02, 0)).is_identity()
    assert estimate_registration(image, shifted(image, 0.1, 0)).shift == pytest.approx((0.1, 0), abs=0.05)
    thin = soft_scene(7, 160)
    assert estimate_registration(thin, shifted(thin, 3, 0)).is_identity()


def test_what_is_ignored_does_not_move_the_picture() -> None:
    image = soft_scene()
    ignore = box(0, 96, 0, 80)[None]
    edited = torch.where(ignore > 0, shifted(image, 5, 3), image)
    assert estimate_registration(image, edited, ignore).is_identity()
    assert estimate_registration(image, edited, 1 - ignore).shift == pytest.approx((5, 3), abs=0.3)


def test_where_the_moved_picture_has_nothing_to_show() -> None:
    edges = (soft_scene() > 0.5).float()
    moved, valid = apply_registration(edges, Registration(shift=(10.5, -4.0)))
    assert 0 <= moved.min() and moved.max() <= 1
    truth = torch.zeros_like(valid)
    truth[..., 4:, :101] = True
    assert torch.equal(valid, truth)
    whole = apply_registration(edges, Registration(shift=(0.0, -4.0)))[0]
    torch.testing.assert_close(whole[..., 4:, :], edges[..., :-4, :], atol=1e-4, rtol=1e-4)


# Colours


def test_colours_stay_in_range_and_what_the_editor_clipped_is_known() -> None:
    halves = ColourFit(torch.eye(3) * 0.5, torch.zeros(3))
    doubles = ColourFit(torch.eye(3) * 2, torch.full((3,), -0.5))
    assert torch.equal(doubles.apply(torch.ones(1, 3, 1, 1)), torch.ones(1, 3, 1, 1))
    assert torch.equal(doubles.apply(torch.zeros(1, 3, 1, 1)), torch.zeros(1, 3, 1, 1))
    grey = torch.tensor([0.2, 0.3, 0.8])[None, :, None, None]
    seen = halves.as_shown(grey)  # the editor doubled: 0.8 became 1.6, which is 1
    assert torch.allclose(seen.flatten(), torch.tensor([0.2, 0.3, 0.5]))


@pytest.mark.parametrize("change", ["clipped", "less saturated", "noisy"])
def test_a_cast_of_any_kind_is_taken_back(change: str) -> None:
    image = soft_scene()
    if change == "clipped":
        cast = (image * 1.9 - 0.9).clamp(0, 1)
        assert (cast == 0).float().mean() > 0.2
    elif change == "less saturated":
        cast = torch.lerp(image, image.mean(1, keepdim=True), 0.4) + 0.03
    else:
        cast = (image * 0.8 + 0.1 + 0.1 * noise(96, 112, 1)).clamp(0, 1)
    fit = fit_colours(image, cast, EVERYWHERE)
    if change == "noisy":
        assert fit.matrix.diagonal().tolist() == pytest.approx([1.25] * 3, rel=0.03)
        return
    shown = ((cast > 0.02) & (cast < 0.98)).all(1, keepdim=True)
    assert ((fit.apply(cast) - image).abs() * shown).sum() < 0.02 * 3 * shown.sum()


def test_a_picture_without_contrast_says_nothing_about_a_gain() -> None:
    flat = torch.full((1, 3, 96, 112), 0.5)
    fit = fit_colours(flat, flat + 0.1, EVERYWHERE)
    assert torch.allclose(fit.matrix, torch.eye(3)) and torch.allclose(fit.bias, torch.tensor(-0.1))


def test_only_allowed_pixels_are_compared_also_in_a_large_picture() -> None:
    image = soft_scene(40, 1100)
    where = torch.zeros(1, 1, 40, 1100, dtype=torch.bool)
    where[..., :450] = True
    cast = torch.where(where, image * 0.8, 1 - image)
    fit = fit_colours(image, cast, where)
    assert torch.allclose(fit.matrix, torch.eye(3) / 0.8, atol=0.03)
    small, few = soft_scene(), box(10, 17, 10, 19)[None] > 0  # 63 pixels
    assert torch.equal(fit_colours(small, small * 0.8, few).matrix, torch.eye(3))
    few[..., 17, 10] = True
    assert not torch.equal(fit_colours(small, small * 0.8, few).matrix, torch.eye(3))


# Changes


def test_the_editors_blur_is_measured_in_both_directions() -> None:
    sharp = soft_scene() * 0.6 + 0.1 * noise(96, 112, 2)
    assert blur_between(sharp, blur(sharp, 1.3), EVERYWHERE) == 1.3
    assert blur_between(blur(sharp, 1.5), sharp, EVERYWHERE) == -1.5
    assert blur_between(sharp, sharp, EVERYWHERE) == 0.0


def test_noise_is_no_change_and_a_speck_is_none() -> None:
    image = soft_scene()
    grainy = image + 0.03 * noise(96, 112, 3)
    assert not changed(image, grainy, EVERYWHERE).any()
    data = io.BytesIO()
    to_pil(channels_last(image))[0].save(data, "JPEG", quality=10)
    with Image.open(data) as blocks:
        assert not changed(image, channels_first(from_pil([blocks])), EVERYWHERE).any()
    speck = image.clone()
    speck[..., 50, 60] = 1 - image[..., 50, 60].round()
    assert not changed(image, speck, EVERYWHERE).any()
    speck[..., 48:53, 58:63] = 1 - image[..., 48:53, 58:63].round()
    assert changed(image, speck, EVERYWHERE)[..., 50, 60]


def test_a_change_of_colour_alone_and_one_of_texture_alone() -> None:
    truth = box(30, 70, 40, 80)[None]
    image = soft_scene() * 0.6 + 0.2
    red = torch.tensor([0.12, -0.12 * 0.299 / 0.587, 0.0])[None, :, None, None]  # of the same luma
    assert overlap(changed(image, image + red * truth, EVERYWHERE), truth) > 0.9
    woven, other = (0.5 + 0.1 * noise(96, 112, seed, 1).expand(-1, 3, -1, -1) for seed in (4, 5))
    assert overlap(changed(woven, torch.where(truth > 0, other, woven), EVERYWHERE), truth) > 0.8


def test_a_change_of_all_that_has_detail_is_seen() -> None:
    """A textured square on a flat wall, its texture replaced: at that detail there is nothing else to learn noise from."""
    truth = box(28, 68, 40, 80)[None]
    original, edited = (
        0.5 + 0.01 * noise(96, 112, seed) + truth * 0.1 * noise(96, 112, seed + 1, 1) for seed in (6, 8)
    )
    assert overlap(changed(original, edited, EVERYWHERE), truth) > 0.8


def test_a_change_ends_where_it_ends() -> None:
    truth = box(30, 70, 40, 80)[None]
    image = soft_scene()
    found = changed(image, torch.where(truth > 0, 1 - image, image), EVERYWHERE).float()
    assert (found <= greatest_around(truth, 4)).all() and found[..., 32:68, 42:78].all()


def test_a_change_at_the_edge_of_the_picture_reaches_it() -> None:
    truth = box(0, 40, 0, 50)[None]
    image = soft_scene()
    found = changed(image, torch.where(truth > 0, 1 - image, image), EVERYWHERE)
    assert found[..., :36, 0].all() and found[..., 0, :46].all()


def test_what_the_edited_picture_does_not_show_has_not_changed() -> None:
    truth, valid = box(30, 70, 60, 100)[None], EVERYWHERE.clone()
    valid[..., 80:] = False
    image = soft_scene()
    found = changed(image, torch.where(truth > 0, 1 - image, image), valid)
    assert found[..., 32:68, 64:78].all() and not (found & ~valid).any()
    assert not changed(image, torch.where(valid, image, 1 - image), valid).any()


def test_holes_and_gaps_of_a_change_belong_to_it_and_bays_do_not() -> None:
    """Walls around a room (filled), and around one with a door, whose far end is behind a second wall (not filled)."""
    size = (150, 190)
    image = soft_scene(*size)
    outer, inner = box(10, 140, 10, 180, size), box(20, 130, 20, 170, size)
    walls = (outer - inner)[None]
    filled = changed(image, torch.where(walls > 0, 1 - image, image), torch.ones(1, 1, *size) > 0)
    assert filled[..., 30:120, 30:160].all()
    door, wall = box(95, 125, 5, 25, size), box(50, 135, 90, 100, size)
    walls = ((walls[0] - door).clamp_min(0) + wall).clamp_max(1)[None]
    found = changed(image, torch.where(walls > 0, 1 - image, image), torch.ones(1, 1, *size) > 0)
    assert not found[..., 30:120, 110:160].any() and not found[..., 30:120, 30:80].any()
    gap = (box(30, 70, 20, 60) + box(30, 70, 68, 100))[None]
    small = soft_scene()
    assert changed(small, torch.where(gap > 0, 1 - small, small), EVERYWHERE)[..., 34:66, 58:70].all()


def test_a_bay_that_opens_to_the_side_of_the_picture_is_not_filled() -> None:
    bars = (box(10, 22, 0, 80) + box(74, 86, 0, 80) + box(22, 74, 68, 80))[None]
    image = soft_scene()
    found = changed(image, torch.where(bars > 0, 1 - image, image), EVERYWHERE)
    assert found[..., 12:20, 4:76].all() and not found[..., 34:62, 4:56].any()


def test_changes_of_a_large_picture_have_its_size() -> None:
    image, truth = soft_scene(64, 1100), box(20, 44, 500, 560, (64, 1100))[None]
    found = changed(image, torch.where(truth > 0, 1 - image, image), torch.ones_like(truth) > 0)
    assert found.shape == truth.shape and overlap(found, truth) > 0.65


# The result


def test_alignment_and_colours_can_be_left_out() -> None:
    image = soft_scene()
    edited = shifted(image, 4, 2) * 0.8
    plain = kept(image, edited, box(30, 60, 30, 60), match_colours=False)
    assert plain.alignment.is_identity() and torch.equal(plain.colours.matrix, torch.eye(3))
    assert torch.equal(plain.matched, channels_last(edited)[0])
    both = kept(image, edited, box(30, 60, 30, 60), match_alignment=True)
    assert both.alignment.shift == pytest.approx((4, 2), abs=0.2)
    assert both.colours.matrix.diagonal().tolist() == pytest.approx([1.25] * 3, abs=0.03)


def test_colours_are_fitted_outside_of_a_given_mask() -> None:
    image, mask = soft_scene(), box(0, 96, 30, 112)
    edited = torch.where(mask[:, None] > 0, 1 - image, image * 0.8 + 0.1)
    found = kept(image, edited, mask)
    assert found.outside_matched > 40
    assert (found.matched - channels_last(image)[0])[mask[0] == 0].abs().max() < 0.02


def test_a_given_mask_is_left_out_of_the_alignment() -> None:
    image, mask = soft_scene(), box(0, 96, 0, 80)
    edited = torch.where(mask[:, None] > 0, shifted(image, 5, 3), image)
    assert kept(image, edited, mask, match_alignment=True).alignment.is_identity()


def test_highlights_that_the_editor_clipped_have_not_changed() -> None:
    image = soft_scene()
    edited = (image * 1.5).clamp(0, 1)
    assert (edited == 1).float().mean() > 0.1
    assert not kept(image, edited).mask.any()


def test_numbers_of_the_result() -> None:
    """Outside 0.1 brighter, inside 0.4: 20 dB outside, and a seam of brightness."""
    image, mask = soft_scene() * 0.5, box(30, 70, 40, 80)
    edited = image + 0.1 + 0.3 * mask[:, None]
    plain = kept(image, edited, mask, match_colours=False, feather=0)
    assert plain.outside_before == pytest.approx(20, abs=1e-3) == plain.outside_matched
    assert plain.share == pytest.approx(mask.mean().item())
    assert "more than half" not in plain.report() and "outside the change it differed" in plain.report()
    matched = kept(image, edited, mask, feather=6)
    assert matched.outside_before == pytest.approx(20, abs=1e-3) and matched.outside_matched > 40
    assert matched.share == pytest.approx(matched.mask.mean().item())
    measured = seam(channels_first(matched.image[None]), matched.mask[None, None], BAND)[0]
    assert matched.seam_after and matched.seam_usual and matched.seam_before and measured.baseline
    assert vars(matched.seam_after) == pytest.approx(vars(measured.disparity), rel=1e-3)
    assert vars(matched.seam_usual) == pytest.approx(vars(measured.baseline), rel=1e-3)
    assert matched.seam_before.brightness > matched.seam_after.brightness + 0.05
    whole = kept(image, edited, torch.ones(1, 4, 4), match_colours=False, feather=0)
    assert "outside the change" not in whole.report() and "more than half" in whole.report()


def test_beyond_the_edited_picture_nothing_is_taken_or_counted() -> None:
    image = soft_scene()
    edited = with_square(shifted(image, 12, 0), left=76, side=24)
    found = kept(image, edited, match_alignment=True, grow=20)
    _, valid = apply_registration(edited, found.alignment)
    assert found.mask[40, 80] == 1 and not valid[..., 104:].any()
    assert not found.mask[~valid[0, 0]].any() and found.uncovered == 0
    given = kept(image, shifted(image, 12, 0), box(40, 60, 40, 60), match_alignment=True)
    assert given.outside_matched > 35


def test_the_border_is_as_wide_as_it_says_and_has_no_invisible_rest() -> None:
    image, mask = soft_scene(), box(10, 90, 10, 100)
    plain, soft = (kept(image, with_square(image), feather=feather).mask for feather in (0, 8))
    reach = greatest_around(plain[None, None], 8)[0, 0]
    assert not soft[reach == 0].any() and soft[(greatest_around(plain[None, None], 3)[0, 0] > 0)].min() > 0
    given = kept(image, with_square(image), mask, feather=64).mask
    assert given.max() > 0 and not ((given > 0) & (given < 1 / 255)).any()


def test_pictures_of_another_shape_are_refused_in_both_orders() -> None:
    image = channels_last(soft_scene())
    for pair in ((image, image[:, :, ::2]), (image[:, :, ::2], image)):
        with pytest.raises(ValueError, match="they have different shapes"):
            keep_rest(*pair)
