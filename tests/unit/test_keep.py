"""Keep the Rest: what was changed on purpose is found and kept, and everything else is the original's, bit for bit."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from support.local_edits import KINDS, make_edit, photographs
from support.real_files import photograph
from support.soft_scenes import shifted, soft_scene, with_square

from llmga.images import channels_last
from llmga.paint.colour_fit import fit_colours
from llmga.paint.keep import keep_rest
from llmga.paint.registration import Registration, apply_registration, estimate_registration

pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def photos() -> dict[str, torch.Tensor]:
    photograph("chelsea.png")  # skips with what to install
    return photographs("skimage")


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_made_edit_of_a_photograph(kind: str, seed: int) -> None:
    edit = make_edit(photos(), seed, kind)
    (found,) = keep_rest(channels_last(edit.original), channels_last(edit.edited))
    mask, result = found.mask[None, None], found.image.movedim(-1, 0)[None]
    region = mask >= 0.5
    assert (region & edit.region).sum() >= 0.8 * (region | edit.region).sum()
    change = (edit.ideal - edit.original).abs().sum(1, keepdim=True)
    assert (change * mask).sum() >= 0.95 * change.sum()
    assert torch.equal(result.where(mask == 0, 0), edit.original.where(mask == 0, 0))
    height, width = edit.original.shape[-2:]
    for side, zoom, shift, true_zoom, true_shift in zip(
        (width, height),
        found.alignment.zoom,
        found.alignment.shift,
        edit.moved.zoom,
        edit.moved.shift,
        strict=True,
    ):
        assert abs(shift - true_shift) + abs(zoom - true_zoom) * side / 2 < 0.5
    assert found.outside_matched > found.outside_before + 3
    assert found.seam_before and found.seam_after
    assert found.seam_after.brightness < found.seam_before.brightness + 0.02


def test_nothing_changed_gives_the_original() -> None:
    image = channels_last(soft_scene())
    (same,) = keep_rest(image, image)
    assert torch.equal(same.image, image[0]) and not same.mask.any() and same.share == 0
    assert same.alignment.is_identity() and same.outside_before == math.inf
    moved = channels_last((shifted(soft_scene(), 2.5, -1.5) * 0.9 + 0.05).clamp(0, 1))
    (kept,) = keep_rest(image, moved)
    assert torch.equal(kept.image, image[0]) and not kept.mask.any()
    assert "no change was found" in kept.report() and "+2.5, -1.5 pixels" in kept.report()


@pytest.mark.parametrize("zoom", [(1.0, 1.0), (1.1, 0.95)])
def test_alignment_leaves_out_what_changed(zoom: tuple[float, float]) -> None:
    image = soft_scene(160, 200)
    moved = apply_registration(
        with_square(image, side=60), Registration((1 / zoom[0], 1 / zoom[1]), (-5 / zoom[0], 3 / zoom[1]))
    )[0]
    found = estimate_registration(image, (moved * 0.8 + 0.15).clamp(0, 1))
    assert found.zoom == pytest.approx(zoom, abs=2e-3) and found.shift == pytest.approx((5, -3), abs=0.2)


def test_unrelated_and_tiny_pictures_are_not_aligned() -> None:
    assert estimate_registration(soft_scene(seed=1), soft_scene(seed=2)).is_identity()
    assert estimate_registration(torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)).is_identity()
    assert estimate_registration(soft_scene(4, 300), soft_scene(4, 300)).is_identity()


def test_colours_are_fitted_to_what_did_not_change() -> None:
    image = soft_scene(128, 128)
    gain, bias = torch.tensor([0.9, 1.05, 1.1]), torch.tensor([0.03, -0.02, 0.01])
    cast = image * gain[:, None, None] + bias[:, None, None]
    fit = fit_colours(image, with_square(cast, side=50), torch.ones(1, 1, 128, 128, dtype=torch.bool))
    assert torch.allclose(fit.matrix, torch.diag(1 / gain), atol=0.02)
    inside = ((cast > 0.02) & (cast < 0.98)).all(1, keepdim=True)
    assert ((fit.apply(cast) - image).abs() * inside).max() < 0.02
    grey = fit_colours(
        image, image.mean(1, keepdim=True).expand(-1, 3, -1, -1), torch.zeros(1, 1, 128, 128) > 1
    )
    assert torch.equal(grey.matrix, torch.eye(3))  # nothing to compare


def on_white(place: int, size: int) -> torch.Tensor:
    """A patch of a photograph on a pure white ground, (1, 128, 128, 3)."""
    picture = torch.ones(1, 3, 128, 128)
    scene = soft_scene()
    picture[..., place : place + size, place : place + size] = scene[..., :size, :size]
    return channels_last(picture)


def recoloured(picture: torch.Tensor) -> torch.Tensor:
    """What is not white, in another colour."""
    ground = (picture == 1).all(-1, keepdim=True)
    return torch.where(ground, picture, (1 - picture.roll(1, -1) * 0.8).clamp(0, 1))


@pytest.mark.parametrize("name", ["added to white", "added to a slope", "added beside", "recoloured"])
def test_a_change_on_an_empty_ground_is_found(name: str) -> None:
    """What is white or smooth has no colours to fit and nothing to align: it must not lead to those of the change."""
    slope = torch.linspace(0.3, 0.9, 128)[None, :, None, None] * torch.ones(1, 128, 128, 3)
    shown = on_white(40, 50)
    original, edited = {
        "added to white": (torch.ones(1, 128, 128, 3), shown),
        "added to a slope": (slope, torch.where(shown == 1, slope, shown)),
        "added beside": (on_white(4, 16), torch.minimum(on_white(4, 16), shown)),
        "recoloured": (shown, recoloured(shown)),
    }[name]
    (found,) = keep_rest(original, edited)
    assert found.alignment.is_identity()
    assert (found.image - edited[0]).abs().mean() < 0.05 * (original - edited).abs().mean()
    assert 0.1 < found.share < 0.25


def test_a_brighter_picture_on_white_is_no_change() -> None:
    """A white ground that stays white does not say that the colours did."""
    original = on_white(20, 80)
    (found,) = keep_rest(original, (original * 1.1).clamp(0, 1))
    assert found.share == 0


def test_a_given_mask_says_where() -> None:
    image, edited = soft_scene(), with_square(shifted(soft_scene(), 3, 2))
    mask = torch.zeros(1, 96, 112)
    mask[:, 20:70, 30:80] = 1
    (found,) = keep_rest(channels_last(image), channels_last(edited), mask, feather=6)
    outside = mask[0] == 0
    assert torch.equal(found.image[outside], channels_last(image)[0][outside])
    assert not found.mask[outside].any() and found.mask.max() == 1 and (found.mask[26:64, 36:74] == 1).all()
    (hard,) = keep_rest(channels_last(image), channels_last(edited), mask, feather=0, grow=9)
    assert torch.equal(hard.mask, mask[0])
    looked_for = keep_rest(channels_last(image), channels_last(edited), torch.zeros(1, 64, 64))[0]
    assert torch.equal(looked_for.mask, keep_rest(channels_last(image), channels_last(edited))[0].mask)
    assert looked_for.mask.any() and looked_for.report().startswith(
        "its mask is empty, so the change was looked for"
    )
    everything = keep_rest(channels_last(image), channels_last(edited), torch.ones(1, 4, 4), feather=0)[0]
    assert everything.share == 1 and "its mask covers more than half" in everything.report()
    side = torch.zeros(1, 96, 112)
    side[..., :9] = 1
    beyond = keep_rest(channels_last(image), channels_last(shifted(soft_scene(), -4, 0)), side, feather=0)[0]
    assert 0.3 < beyond.uncovered < 0.6 and "lies beyond" in beyond.report()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_type_alpha_and_values_beyond_the_range_stay(channels: int, dtype: torch.dtype) -> None:
    original = channels_last(soft_scene().mean(1, keepdim=True).expand(-1, channels, -1, -1)).to(dtype)
    edited = original[..., :3].clone()
    edited[:, 30:56, 40:66] = 0.1
    original[:, :4] = 1.25
    (found,) = keep_rest(original, edited)
    assert found.image.dtype == dtype and found.image.shape == (96, 112, max(3, channels))
    outside = found.mask == 0
    assert outside.any() and found.mask.any()
    assert torch.equal(
        found.image[outside][:, :3], original[0].expand(-1, -1, max(3, channels))[outside][:, :3]
    )
    if channels == 4:
        assert torch.equal(found.image[..., 3], original[0, ..., 3])


def test_a_batch_is_the_loop() -> None:
    original = torch.cat([channels_last(soft_scene(seed=1)), channels_last(soft_scene(seed=2))])
    edited = torch.cat([channels_last(with_square(soft_scene(seed=1))), channels_last(soft_scene(seed=2))])
    masks = torch.zeros(2, 8, 8)
    masks[1, 2:4, 2:4] = 1
    together = keep_rest(original, edited, masks)
    for i, one in enumerate(together):
        (alone,) = keep_rest(original[i : i + 1], edited[i : i + 1], masks[i : i + 1])
        assert torch.equal(one.image, alone.image) and torch.equal(one.mask, alone.mask)
    assert len(keep_rest(original[:1], edited)) == len(keep_rest(original, edited[:1])) == 2


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (67, 53), (48, 1500)])
def test_any_size(size: tuple[int, int]) -> None:
    image = soft_scene(*size)
    edited = with_square(image, 2, 12, 14) if size[0] > 20 else image
    (found,) = keep_rest(channels_last(image), channels_last(edited))
    assert found.image.shape == (*size, 3)
    assert bool(found.mask.any()) == (size[0] > 20)


def test_an_edited_picture_of_another_size() -> None:
    image, square = soft_scene(96, 112), with_square(soft_scene(96, 112))
    larger = torch.nn.functional.interpolate(square, (144, 160), mode="bicubic").clamp(0, 1)
    (found,) = keep_rest(channels_last(image), channels_last(larger), feather=0)
    truth = torch.zeros(96, 112, dtype=torch.bool)
    truth[30:56, 40:66] = True
    region = found.mask >= 0.5
    assert (region & truth).sum() > 0.7 * (region | truth).sum()


def test_growing_and_softening() -> None:
    image, edited = channels_last(soft_scene()), channels_last(with_square(soft_scene()))
    (plain,) = keep_rest(image, edited, feather=0)
    (grown,) = keep_rest(image, edited, feather=0, grow=5)
    (soft,) = keep_rest(image, edited, feather=8)
    assert set(plain.mask.unique().tolist()) == {0.0, 1.0}
    assert (grown.mask >= plain.mask).all() and grown.mask.sum() > plain.mask.sum()
    assert (soft.mask >= plain.mask).all() and ((soft.mask > 0) & (soft.mask < 1)).any()


def test_what_is_wrong_is_said_and_cancel_passes() -> None:
    image = channels_last(soft_scene())
    with pytest.raises(ValueError, match="edited holds 3 pictures and original 2"):
        keep_rest(image.expand(2, -1, -1, -1), image.expand(3, -1, -1, -1))
    with pytest.raises(
        ValueError, match="original is 112×96 and edited is 56×96: they have different shapes"
    ):
        keep_rest(image, image[:, :, ::2])
    with pytest.raises(ValueError, match="edited must be"):
        keep_rest(image, image[0])
    for name in ("grow", "feather"):
        with pytest.raises(ValueError, match=f"{name} must be 0 to 256"):
            keep_rest(image, image, **{name: -1})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask holds 3 masks for 1 edited pictures"):
        keep_rest(image, image, torch.ones(3, 4, 4))

    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep_rest(image, image, on_part=cancel)
