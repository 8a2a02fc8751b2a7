"""Several regions of one picture, painted in turn and stitched at once."""

from __future__ import annotations

import pytest
import torch

from llmga.paint.areas import separate_areas
from llmga.paint.regions import MAX_REGIONS, Regions, add_painted, crop_region, start_regions


def picture(height: int = 48, width: int = 80, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(height + width))


def boxes(*places: tuple[int, int, int, int], height: int = 48, width: int = 80) -> torch.Tensor:
    """A mask for each (top, bottom, left, right)."""
    masks = torch.zeros(len(places), height, width)
    for mask, (top, bottom, left, right) in zip(masks, places, strict=True):
        mask[top:bottom, left:right] = 1
    return masks


def painted_in(
    regions: Regions, *values: float, blend: int = 0, stitch: torch.Tensor | None = None
) -> Regions:
    """Every further region in one grey."""
    for value in values:
        part, _, regions = crop_region(regions, 32, 32)
        regions = add_painted(regions, torch.full_like(part, value), blend, stitch)
    return regions


APART = ((5, 20, 4, 18), (25, 44, 50, 76))


@pytest.mark.parametrize("blend", [0, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_each_region_is_painted_and_the_rest_is_the_original_bit_for_bit(blend: int, channels: int) -> None:
    image, masks = picture(channels=channels), boxes(*APART)
    done = painted_in(start_regions(image, masks), 0.0, 1.0, blend=blend)
    assert done.done and done.picture.shape == (48, 80, 3)
    outside = (masks == 0).all(0)
    original = image[0, ..., :3].expand(-1, -1, 3)
    assert torch.equal(done.picture[outside], original[outside])
    assert (done.picture[11:14, 10:12] == 0).all() and (done.picture[32:38, 58:68] > 0.999).all()


def test_each_region_sees_those_before_it() -> None:
    regions = start_regions(picture(), boxes((10, 30, 10, 30), (10, 30, 32, 52)))
    part, part_mask, cropped = crop_region(regions, 32, 32)
    regions = add_painted(cropped, torch.zeros_like(part), 0)
    part, part_mask, _ = crop_region(regions, 64, 32, context=4)
    assert part_mask.shape == (1, 32, 64) and part_mask.any()
    assert (part < 0.01).all(-1).sum() > 80
    before, _, _ = crop_region(start_regions(picture(), boxes((10, 30, 32, 52))), 64, 32, context=4)
    assert not (before < 0.01).all(-1).any()


def test_a_border_that_two_regions_share_is_not_softened() -> None:
    """Else the original would shine through between them."""
    image = torch.ones(1, 48, 80, 3)
    done = painted_in(start_regions(image, boxes((8, 40, 8, 40), (8, 40, 40, 72))), 0.0, 0.0, blend=4)
    assert (done.picture[18:30, 18:62] == 0).all()
    assert 0 < done.picture[24, 9, 0] < 1


def test_overlapping_masks_are_painted_in_their_order_softly_over_each_other() -> None:
    masks = boxes((8, 40, 8, 50), (8, 40, 30, 72))
    done = painted_in(start_regions(torch.full((1, 48, 80, 3), 0.5), masks), 0.0, 1.0, blend=4)
    row = done.picture[24, :, 0]
    assert row[20] == 0 and row[60] > 0.999 and (row[29:42].diff() >= -1e-6).all() and 0 < row[34] < 1


def test_regions_at_the_border_of_the_picture() -> None:
    image, masks = picture(), boxes((0, 12, 0, 9), (30, 48, 60, 80), (0, 48, 79, 80))
    regions = start_regions(image, masks)
    done = painted_in(regions, 0.0, 1.0, 0.0, blend=2)
    outside = (masks == 0).all(0)
    assert torch.equal(done.picture[outside], image[0][outside])
    assert (done.picture[:8, :5] == 0).all() and (done.picture[36:, 66:76] > 0.999).all()


def test_an_empty_mask_among_several_is_said_and_the_others_are_painted() -> None:
    masks = boxes(*APART, (0, 0, 0, 0), (30, 40, 4, 14))[[2, 0, 2, 1, 2]]
    masks[4, 0, 0] = 1 / 256
    regions = start_regions(picture(), masks, "\n".join("abcde"))
    assert (regions.index, regions.instruction) == (1, "b")
    regions = painted_in(regions, 0.0)
    assert (regions.index, regions.instruction) == (3, "d")
    regions = painted_in(regions, 1.0)
    assert regions.done and regions.index == 5
    lines = regions.report().split("\n")
    assert [("mask is empty" in line) for line in lines] == [True, False, True, False, True]
    assert lines[1] == "region 1: 14×15 pixels at left 4, top 5: b"


def test_when_all_are_painted_there_is_nothing_more_to_paint() -> None:
    done = painted_in(start_regions(picture(), boxes(*APART)), 0.0, 1.0)
    part, part_mask, cropped = crop_region(done, 32, 16)
    assert part.shape == (1, 16, 32, 3) and not part_mask.any() and cropped.instruction == ""
    assert torch.equal(add_painted(cropped, torch.zeros_like(part)).picture, done.picture)


@pytest.mark.parametrize("split", ["auto", "areas"])
def test_the_areas_of_one_mask_are_regions_from_left_to_right(split: str) -> None:
    masks = boxes((2, 12, 50, 60), (30, 45, 5, 15), (20, 44, 62, 78))
    mask = masks.amax(0, keepdim=True) * 0.75
    mask[0, 10, 61] = mask[0, 3, 4] = 1 / 256  # what counts as nothing
    regions = start_regions(picture(), mask, "left\nmiddle\nright", split)  # type: ignore[arg-type]
    assert torch.equal(regions.masks, masks[[1, 0, 2]] * 0.75)
    assert start_regions(picture(), mask, split="masks").masks.shape == (1, 48, 80)


def test_a_ring_a_spiral_and_a_diagonal_are_one_area_each() -> None:
    ring = boxes((5, 40, 5, 40))[0] - boxes((10, 35, 10, 35))[0]
    inner = boxes((20, 25, 20, 25))[0]
    assert [area.sum() for area in separate_areas(ring + inner, 9)] == [25, 600]
    diagonal = torch.eye(30)
    assert len(separate_areas(diagonal, 9)) == 1
    spiral = torch.zeros(41, 41)
    turn = [
        (4, slice(4, 37)),
        (slice(4, 37), 36),
        (36, slice(10, 37)),
        (slice(10, 37), 10),
        (10, slice(10, 31)),
    ]
    for rows, columns in turn:
        spiral[rows, columns] = 1
    assert len(separate_areas(spiral, 9)) == 1
    assert separate_areas(torch.zeros(7, 9), 9).shape == (0, 7, 9)


def test_a_wider_stitch_mask_brings_what_was_painted_beyond_the_hole() -> None:
    image, masks = picture(), boxes((20, 30, 10, 20), (20, 30, 50, 60))
    stitch = boxes((16, 34, 6, 24), (16, 34, 46, 64)).amax(0, keepdim=True)
    done = painted_in(start_regions(image, masks), 0.0, 1.0, stitch=stitch)
    assert (done.picture[16:34, 6:24] == 0).all() and (done.picture[16:34, 46:64] > 0.999).all()
    outside = stitch[0] == 0
    assert torch.equal(done.picture[outside], image[0][outside])
    assert "stitch mask" not in done.report()


def test_a_narrower_stitch_mask_leaves_the_rest_of_the_hole_as_it_was() -> None:
    image, masks = picture(), boxes((20, 30, 10, 20), (20, 30, 50, 60))
    narrow = boxes((23, 27, 13, 17), (23, 27, 53, 57))
    done = painted_in(start_regions(image, masks), 0.0, 1.0, stitch=narrow)
    assert (done.picture[23:27, 13:17] == 0).all()
    outside = (narrow == 0).all(0)
    assert torch.equal(done.picture[outside], image[0][outside])


def test_of_one_stitch_mask_each_pixel_belongs_to_the_nearest_region() -> None:
    masks = boxes((20, 28, 20, 28), (20, 28, 40, 48))
    stitch = boxes((16, 32, 16, 52))
    done = painted_in(start_regions(torch.full((1, 48, 80, 3), 0.5), masks), 0.0, 1.0, stitch=stitch)
    wanted = torch.tensor([0.5] * 16 + [0.0] * 18 + [1.0] * 18 + [0.5] * 28)
    assert torch.allclose(done.picture[24, :, 0], wanted, atol=1e-5)


def test_what_a_stitch_mask_leaves_out_is_said() -> None:
    masks = boxes((20, 28, 4, 12), (20, 28, 60, 68))
    far = painted_in(start_regions(picture(), masks), 0.0, 1.0, stitch=torch.ones(1, 9, 9))
    assert far.report().count("lies beyond what was painted") == 2
    one = painted_in(start_regions(picture(), masks), 0.0, 1.0, stitch=boxes((20, 28, 4, 12)))
    assert "nothing of it is stitched" in one.report().split("\n")[1]
    empty = painted_in(start_regions(picture(), masks), 0.0, 1.0, stitch=torch.zeros(1, 64, 64))
    assert torch.equal(empty.picture, painted_in(start_regions(picture(), masks), 0.0, 1.0).picture)
    assert empty.report().count("its stitch mask is empty, so its own mask is taken") == 2
    third = painted_in(
        start_regions(picture(), masks), 0.0, 1.0, stitch=masks * torch.tensor([0, 1])[:, None, None]
    )
    assert torch.equal(third.picture, empty.picture)
    assert third.report().count("its stitch mask is empty") == 1


@pytest.mark.parametrize(
    ("instructions", "each"),
    [("", ("", "")), ("one", ("one", "one")), ("one\n", ("one", "one")), ("a\n b ", ("a", "b")), ("\nb", ("", "b")),
     ("a\nb\n\n", ("a", "b")), ("a\n\n\n", ("a", ""))],
)  # fmt: skip
def test_a_line_for_each_region_or_one_for_all(instructions: str, each: tuple[str, ...]) -> None:
    assert start_regions(picture(), boxes(*APART), instructions).instructions == each


def test_wrong_input_is_named() -> None:
    masks, image = boxes(*APART), picture()
    for text, lines in (("a\nb\nc", 3), ("a\n\nb", 3)):
        with pytest.raises(ValueError, match=f"instructions holds {lines} lines for 2 regions"):
            start_regions(image, masks, text)
    with pytest.raises(ValueError, match="instructions holds 2 lines for 3 regions"):
        start_regions(image, masks[[0, 1, 0]], "a\nb")
    with pytest.raises(ValueError, match="mask is empty: there is nothing to paint"):
        start_regions(image, torch.zeros(3, 64, 64))
    with pytest.raises(ValueError, match="image holds 2 pictures"):
        start_regions(image.expand(2, -1, -1, -1), masks)
    with pytest.raises(ValueError, match=f"mask holds 65 masks, at most {MAX_REGIONS}"):
        start_regions(image, torch.ones(65, 4, 4))
    specks = torch.zeros(1, 48, 80)
    specks[:, ::5, ::5] = 1
    with pytest.raises(ValueError, match="mask has 160 separate areas, at most 64"):
        start_regions(image, specks)
    with pytest.raises(ValueError, match="split must be one of auto, masks, areas"):
        start_regions(image, masks, split="some")  # type: ignore[arg-type]
    part, _, cropped = crop_region(start_regions(image, masks), 32, 32)
    with pytest.raises(ValueError, match="painted holds 2 pictures"):
        add_painted(cropped, part.expand(2, -1, -1, -1))
    with pytest.raises(ValueError, match="stitch_mask holds 3 masks for 2 regions"):
        add_painted(cropped, part, 0, torch.ones(3, 4, 4))
    with pytest.raises(ValueError, match="blend"):
        add_painted(cropped, part, -1)
    with pytest.raises(ValueError, match="regions must come from crop_region"):
        add_painted(start_regions(image, masks), part)
