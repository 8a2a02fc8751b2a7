"""Masks as in training, and crop and stitch: exact outside the hole, whatever the sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llmga.images import channels_first, channels_last, fit_mask
from llmga.paint.crop import MAX_SPREAD, SMALL, crop, stitch
from llmga.paint.prepare import DRAWINGS, draw_masks, harden, inner_ramp

pytestmark = pytest.mark.usefixtures("one_thread")


def picture(height: int, width: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(height * width))


def hole(height: int, width: int, *box: int) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    top, left, bottom, right = box
    mask[:, top:bottom, left:right] = 1
    return mask


@pytest.mark.parametrize("drawing", DRAWINGS)
def test_drawn_masks_are_holes_and_repeat(drawing: str) -> None:
    masks = draw_masks(drawing, 3, 96, 128, seed=4)  # type: ignore[arg-type]
    assert masks.shape == (3, 96, 128) and set(masks.unique().tolist()) <= {0.0, 1.0}
    assert all(mask.any() for mask in masks)
    assert torch.equal(masks[1:], draw_masks(drawing, 2, 96, 128, seed=5))  # type: ignore[arg-type]
    assert not torch.equal(masks[0], masks[1])


def test_sides_are_sides() -> None:
    for mask in draw_masks("sides", 8, 100, 200, seed=0):
        kept = torch.nonzero(mask == 0)
        (top, left), (bottom, right) = kept.min(0).values.tolist(), kept.max(0).values.tolist()
        assert not mask[top : bottom + 1, left : right + 1].any()  # what is kept is a box
        for lost, size in ((top, 100), (99 - bottom, 100), (left, 200), (199 - right, 200)):
            assert lost == 0 or 0.24 <= lost / size <= 0.41


def test_an_unknown_drawing_and_a_picture_too_small_are_errors() -> None:
    with pytest.raises(ValueError, match="drawing must be one of narrow, wide"):
        draw_masks("thin", 1, 8, 8, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use larger pictures"):
        draw_masks("wide", 1, 1, 1, 0)


def test_hard_masks() -> None:
    soft = torch.tensor([[[0.0, 0.4, 0.5, 0.9, 1.0, 0.0, 0.0]]])
    assert harden(soft).tolist() == [[[0, 0, 1, 1, 1, 0, 0]]]
    assert harden(soft, 1).tolist() == [[[0, 1, 1, 1, 1, 1, 0]]]
    assert not harden(torch.zeros(1, 5, 5), 3).any() and harden(torch.ones(2, 5, 5), 3).all()


def test_a_ramp_goes_inwards_only() -> None:
    mask = hole(40, 40, 10, 10, 40, 30)  # down to the picture's edge
    ramp = inner_ramp(mask, 3)
    assert not ramp[mask == 0].any() and ramp.max() == 1
    assert (ramp[0, 20, 10:16].diff() > 0).all() and ramp[0, 20, 10] < 0.3
    assert ramp[0, 39, 20] == 1  # no border there
    assert inner_ramp(mask, 0) is mask
    assert inner_ramp(torch.ones(1, 9, 9), 3).eq(1).all() and not inner_ramp(torch.zeros(1, 9, 9), 3).any()


@pytest.mark.parametrize("reach", [1, 3, 8])
def test_the_middle_of_a_narrow_hole_is_painted_whole(reach: int) -> None:
    for width in range(1, 4 * reach + 3):
        ramp = inner_ramp(hole(90, 90, 20, 30, 70, 30 + width), reach)
        middle = ramp[0, 45, 30 : 30 + width]
        assert middle.max() == 1 and torch.equal(middle, middle.flip(0)), width
        assert (middle[: (width + 1) // 2].diff() >= 0).all() and not ramp[0, 45, :30].any()
    image, mask = picture(120, 120), hole(120, 120, 20, 50, 100, 50 + reach)
    part, _, plan = crop(image, mask, 128, 128)
    assert (stitch(plan, torch.ones_like(part), blend=reach)[:, 30:90, 50 + reach // 2] == 1).all()


def test_a_wire_at_a_wide_hole_is_painted_and_the_wide_part_is_softened_as_ever() -> None:
    body = hole(200, 300, 50, 20, 150, 120)
    wire = hole(200, 300, 96, 120, 105, 280)
    ramp, alone = (inner_ramp(mask, 8) for mask in (body + wire, body))
    assert (ramp[0, 100, 40:275] > 0.9).all() and (ramp[0, 100, 160:270] == 1).all()
    assert torch.equal(ramp[..., :80], alone[..., :80])
    steps = ramp[0, 100].diff().abs()  # along the wire, from one part into the other
    assert steps[20:270].max() < 0.1


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 1.0])
def test_a_ramp_is_nowhere_more_than_its_mask(value: float) -> None:
    """Not by a rounding error either: the mean over a plateau of a soft mask can come out above it."""
    for reach in (1, 8, 20):
        mask = torch.full((1, 90, 90), value)
        mask[:, :20] = 0
        assert (inner_ramp(mask, reach) <= mask).all()


def test_masks_fit_pictures() -> None:
    image = picture(8, 12, batch=5)
    assert fit_mask(torch.ones(1, 3, 3), image).shape == (5, 8, 12)
    assert fit_mask(torch.rand(5, 8, 12), image).shape == (5, 8, 12)
    with pytest.raises(ValueError, match="mask holds 2 masks for 5 pictures in image"):
        fit_mask(torch.ones(2, 8, 12), image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(channels: int) -> None:
    image = picture(4, 6, channels) * 2 - 0.5
    first = channels_first(image)
    assert first.shape == (1, 3, 4, 6) and 0 <= first.min() and first.max() <= 1
    assert torch.equal(channels_last(first)[..., :1], image[..., :1].clamp(0, 1))


def test_a_part_at_the_pictures_own_scale_is_the_picture() -> None:
    image, mask = picture(300, 500), hole(300, 500, 100, 200, 140, 260)
    part, masks, plan = crop(image, mask, 128, 96)
    (box,) = plan.boxes
    assert (box.height, box.width) == (96, 128)
    window = (slice(None), slice(box.top, box.top + 96), slice(box.left, box.left + 128))
    assert torch.equal(part, image[window]) and torch.equal(masks, mask[window])
    assert masks.sum() == mask.sum()  # the whole hole
    painted = torch.zeros_like(part)
    whole = stitch(plan, painted, blend=0)
    assert torch.equal(whole, image * (1 - mask[..., None]))
    assert torch.equal(stitch(plan, part, blend=4), image)


@pytest.mark.parametrize("blend", [0, 8])
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((64, 64), (0, 0, 64, 64)),
        ((1, 1), (0, 0, 1, 1)),
        ((7, 513), (0, 0, 7, 513)),
        ((7, 513), (3, 500, 4, 513)),
        ((513, 7), (0, 0, 3, 7)),
        ((200, 300), (0, 0, 10, 10)),
        ((200, 300), (190, 290, 200, 300)),
        ((200, 300), (0, 0, 200, 20)),
        ((90, 90), (44, 44, 45, 45)),
    ],
)
@pytest.mark.parametrize("enlarge", [False, True])
def test_any_hole_in_any_picture_goes_there_and_back(
    size: tuple[int, int], box: tuple[int, int, int, int], enlarge: bool, blend: int
) -> None:
    image, mask = picture(*size), hole(*size, *box)
    part, masks, plan = crop(image, mask, 64, 48, 1.5, enlarge)
    assert part.shape == (1, 48, 64, 3) and masks.shape == (1, 48, 64) and masks.max() > 0
    assert 0 <= part.min() and part.max() <= 1
    found = plan.boxes[0]
    assert found.top <= box[0] and found.left <= box[1]
    assert found.top + found.height >= box[2] and found.left + found.width >= box[3]
    whole = stitch(plan, torch.zeros_like(part), blend)
    assert whole.shape == image.shape
    assert torch.equal(whole[mask == 0], image[mask == 0])
    if blend == 0:
        assert not whole[mask == 1].any()


@pytest.mark.parametrize("side", [60, 100, 256, 600, 1000])
def test_a_line_and_a_single_pixel_are_painted_however_small_the_part_is(side: int) -> None:
    """At a scale of 1 : 8 and below, the mean over a part's pixel was below 1/64, and nothing was painted there."""
    mask = hole(side, side, 2, 2, side // 4, side // 4)
    mask[:, side - 4, side - 3] = 1
    mask[:, side // 2, side // 3 : side // 2] = 1
    _, masks, plan = crop(torch.zeros(1, side, side, 3), mask, 64, 64, 1.2)
    share = stitch(plan, masks[..., None].expand(-1, -1, -1, 3), 0)  # how much is painted, where it is taken
    assert share[mask > 0].min() > 0.5 and not share[mask == 0].any()


def test_beyond_the_picture_nothing_is_to_be_painted() -> None:
    part, masks, _ = crop(picture(20, 24), torch.ones(1, 20, 24), 40, 40, 1.0)
    assert masks.sum() == 20 * 24 and masks[0, 10:30, 8:32].all()
    assert torch.equal(part[0, :10, 20], part[0, 10, 20].expand(10, 3))  # the edge, repeated


@pytest.mark.parametrize("corner", [(0, 0), (0, 90), (60, 0), (60, 90)])
def test_a_part_that_fits_stays_inside_the_picture(corner: tuple[int, int]) -> None:
    top, left = corner
    _, masks, plan = crop(picture(70, 100), hole(70, 100, top, left, top + 10, left + 10), 48, 32)
    (box,) = plan.boxes
    assert 0 <= box.top <= 70 - 32 and 0 <= box.left <= 100 - 48 and masks.sum() == 100


def test_aspect_and_context() -> None:
    _, _, plan = crop(picture(2000, 1000), hole(2000, 1000, 400, 400, 600, 600), 64, 32, 2.0)
    (box,) = plan.boxes
    assert (box.height, box.width) == (400, 800)  # twice the hole, at the part's shape
    _, _, plan = crop(picture(100, 100), hole(100, 100, 40, 40, 50, 50), 64, 64, 2.0, enlarge=True)
    assert plan.boxes[0].height == 20


def test_a_soft_mask_blends() -> None:
    image, mask = picture(32, 32), torch.full((1, 32, 32), 0.25)
    part, masks, plan = crop(image, mask, 32, 32, 1.0)
    assert torch.allclose(masks, mask)
    assert torch.allclose(stitch(plan, torch.zeros_like(part), 0), 0.75 * image)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha_become_rgb(channels: int) -> None:
    image = picture(20, 20, channels)
    part, _, plan = crop(image, torch.ones(1, 5, 5), 16, 16)
    assert part.shape[-1] == 3
    whole = stitch(plan, torch.zeros(1, 16, 16, channels), 0)
    assert whole.shape == (1, 20, 20, 3) and not whole.any()


def test_a_batch_is_the_loop() -> None:
    image = picture(60, 80, batch=5)
    masks = torch.cat([hole(60, 80, 4 * i, 8 * i, 4 * i + 9, 8 * i + 5) for i in range(5)])
    painted = picture(32, 40, batch=5)
    parts, holes, plan = crop(image, masks, 40, 32)
    whole = stitch(plan, painted, 2)
    for i in range(5):
        one = slice(i, i + 1)
        part, single, alone = crop(image[one], masks[one], 40, 32)
        assert torch.equal(part, parts[one]) and torch.equal(single, holes[one])
        assert torch.equal(stitch(alone, painted[one], 2), whole[one])


def test_several_paintings_of_one_picture() -> None:
    image, mask = picture(50, 50), hole(50, 50, 20, 20, 30, 30)
    _, _, plan = crop(image, mask, 32, 32)
    whole = stitch(plan, torch.stack([torch.full((32, 32, 3), value) for value in (0.0, 0.5, 1.0)]), 0)
    assert whole.shape == (3, 50, 50, 3)
    assert torch.allclose(whole[:, 25, 25, 0], torch.tensor([0.0, 0.5, 1.0]))


def test_what_cannot_be_done_is_said() -> None:
    image = picture(20, 20, batch=2)
    masks = torch.stack([torch.ones(20, 20), torch.zeros(20, 20)])
    with pytest.raises(ValueError, match="mask 0 is empty: there is nothing to paint"):
        crop(image, masks[1:], 16, 16)
    with pytest.raises(ValueError, match="mask holds 3 masks for 2 pictures"):
        crop(image, torch.ones(3, 20, 20), 16, 16)
    _, _, plan = crop(image, torch.ones(1, 20, 20), 16, 16)
    with pytest.raises(ValueError, match="painted holds 3 pictures, crop holds 2"):
        stitch(plan, torch.zeros(3, 16, 16, 3))
    with pytest.raises(ValueError, match="blend must be 0 or more"):
        stitch(plan, torch.zeros(2, 16, 16, 3), -1)


@pytest.mark.parametrize("empty", [(0,), (1,), (2,), (0, 2)], ids=str)
@pytest.mark.parametrize("size", [(16, 16), (64, 8), (8, 200)], ids=str)
@pytest.mark.parametrize("enlarge", [False, True])
def test_an_empty_mask_of_a_batch_costs_the_others_nothing(
    empty: tuple[int, ...], size: tuple[int, int], enlarge: bool
) -> None:
    image = picture(30, 40, batch=3)
    masks = torch.cat([hole(30, 40, 4, 6, 20, 18), hole(30, 40, 9, 1, 12, 30), hole(30, 40, 0, 0, 30, 40)])
    full = crop(image, masks, *size, enlarge=enlarge)
    given = masks.clone()
    given[list(empty)] = 0
    part, part_mask, plan = crop(image, given, *size, enlarge=enlarge)
    others = [i for i in range(3) if i not in empty]
    assert torch.equal(part[others], full[0][others]) and torch.equal(part_mask[others], full[1][others])
    assert plan.empty == empty and not part_mask[list(empty)].any()
    whole = stitch(plan, torch.zeros_like(part), blend=0)
    assert torch.equal(whole[list(empty)], image[list(empty)])  # passes through
    assert all((whole[i] == 0).all(-1).eq(given[i] > 0).all() for i in others)


class Largest(TorchDispatchMode):
    """Records the number of values of the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.values = max(self.values, each.numel())
        return result


@pytest.mark.parametrize("side", [128, 256, 1024])
@pytest.mark.parametrize("size", [(8192, 8), (8, 8192)], ids=str)
def test_a_part_many_times_larger_than_the_picture_is_refused(side: int, size: tuple[int, int]) -> None:
    width, height = size
    with Largest() as made, pytest.raises(ValueError, match="choose a width and height nearer to the hole"):
        crop(torch.zeros(1, side, side, 3), torch.ones(1, side, side), width, height)
    assert made.values <= 3 * side * side  # nothing but copies of the picture


@pytest.mark.parametrize(
    ("side", "width", "height"), [(64, 8192, 8), (64, 1024, 1024), (512, 2048, 256), (700, 300, 40)]
)
def test_what_a_part_holds_is_bounded_by_picture_and_output(side: int, width: int, height: int) -> None:
    with Largest() as made:
        part, _, plan = crop(torch.rand(1, side, side, 3), torch.ones(1, side, side), width, height)
        stitch(plan, part)
    bound = max(MAX_SPREAD * side * side, width * height, SMALL)
    assert 3 * side * side <= made.values <= 3 * bound
