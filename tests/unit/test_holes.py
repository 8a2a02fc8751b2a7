"""What a hole is, wherever a mask is nowhere exactly zero: readers and segmenters give such masks."""

from __future__ import annotations

import pytest
import torch

from llmga.images import HOLE_FROM, fit_mask, holes
from llmga.paint.crop import crop, stitch
from llmga.restore.colour import match_colour

FLOORS = {
    "1/256": 1 / 256,
    "1/255": 1 / 255,
    "4/255 less a bit": 0.0155,
    "sigmoid(-6)": torch.sigmoid(torch.tensor(-6.0)).item(),
}


def hole(floor: float, height: int = 96, width: int = 128) -> torch.Tensor:
    """(1, height, width): 1 in a hole of 16×24 pixels, ``floor`` elsewhere."""
    mask = torch.full((1, height, width), floor)
    mask[:, 40:56, 50:74] = 1
    return mask


@pytest.mark.parametrize("floor", FLOORS.values(), ids=FLOORS)
class TestFloor:
    def test_the_box_is_the_holes(self, floor: float) -> None:
        image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))
        exact, given = (crop(image, hole(value), 32, 32)[2] for value in (0.0, floor))
        assert given.boxes == exact.boxes

    def test_stitching_leaves_the_outside_bit_for_bit(self, floor: float) -> None:
        image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0))
        part, _, plan = crop(image, hole(floor), 32, 32)
        result = stitch(plan, torch.zeros_like(part), blend=2)
        outside = hole(0.0) == 0
        assert torch.equal(result[outside], image[outside])
        assert not torch.equal(result, image)

    def test_colour_correction_reads_the_ring_and_leaves_the_outside(self, floor: float) -> None:
        reference = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
        exact, given = (
            match_colour(reference * 0.9, reference, hole(value)[:, None], 16) for value in (0.0, floor)
        )
        assert torch.equal(given.image, exact.image)
        assert given.pixels.item() == exact.pixels.item() > 1000

    def test_resized_masks_too(self, floor: float) -> None:
        image = torch.zeros(2, 48, 64, 3)
        fitted = fit_mask(hole(floor), image)
        assert torch.equal(fitted > 0, fit_mask(hole(0.0), image) > 0)


def test_the_least_hole_and_one_below() -> None:
    below = torch.nextafter(torch.tensor(HOLE_FROM), torch.tensor(0.0))
    given = torch.tensor([0.0, below.item(), HOLE_FROM, 0.4, 1.0, 1.5, -1.0])
    assert holes(given).tolist() == pytest.approx([0, 0, HOLE_FROM, 0.4, 1, 1, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_a_half_or_double_picture_is_cut_and_put_back(dtype: torch.dtype) -> None:
    image = torch.rand(1, 96, 128, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    part, mask, plan = crop(image, hole(0.0).to(dtype), 32, 48)
    assert {part.dtype, mask.dtype, plan.image.dtype} == {torch.float32}
    assert torch.equal(stitch(plan, part.to(dtype), blend=0)[hole(0.0) == 0], image.float()[hole(0.0) == 0])
