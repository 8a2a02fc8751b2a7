"""Pictures as tensors and as PIL, and the hole that LLMGA sees black."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from llmga.images import from_pil, paint_hole_black, to_pil


def test_eight_bit_pictures_come_back_as_they_were() -> None:
    values = torch.arange(256).repeat(3).reshape(1, 16, 16, 3).float() / 255
    (picture,) = to_pil(values)
    assert torch.equal(from_pil([picture]), values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_is_rounded_to_the_nearest_level(dtype: torch.dtype) -> None:
    (picture,) = to_pil(torch.tensor([0.0, 0.25, 1.0], dtype=dtype).reshape(1, 1, 1, 3))
    assert picture.getpixel((0, 0)) == (0, 64, 255)


def test_grey_is_repeated_alpha_dropped_and_values_clamped() -> None:
    (grey,) = to_pil(torch.full((1, 2, 3, 1), 0.5))
    assert grey.mode == "RGB" and grey.size == (3, 2) and grey.getpixel((0, 0)) == (128, 128, 128)
    (clear,) = to_pil(torch.tensor([2.0, -1.0, 1.0, 0.0]).reshape(1, 1, 1, 4))
    assert clear.getpixel((0, 0)) == (255, 0, 255)


def test_a_batch_is_a_list_and_the_input_stays_as_it_was() -> None:
    batch = torch.rand(3, 4, 5, 3)
    before = batch.clone()
    assert len(to_pil(batch)) == 3
    paint_hole_black(batch, torch.ones(1, 4, 5))
    assert torch.equal(batch, before)


def test_a_batch_needs_pictures_of_one_size() -> None:
    with pytest.raises(ValueError, match="one size"):
        from_pil([Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))])
    with pytest.raises(ValueError, match="none"):
        from_pil([])


def test_the_hole_is_black_and_the_rest_untouched() -> None:
    image = torch.rand(2, 6, 8, 3)
    mask = torch.zeros(1, 6, 8)
    mask[:, 2:4, 3:5] = 1
    painted = paint_hole_black(image, mask)
    assert painted[:, 2:4, 3:5].abs().max() == 0
    keep = mask[0] == 0
    assert torch.equal(painted[:, keep], image[:, keep])


def test_a_mask_of_another_size_is_resized() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[:, :, :2] = 1
    painted = paint_hole_black(torch.ones(1, 16, 16, 3), mask)
    assert painted[0, :, :4].max() == 0 and painted[0, :, 12:].min() == 1


def test_one_mask_each_or_one_for_all() -> None:
    image = torch.ones(2, 4, 4, 3)
    each = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    painted = paint_hole_black(image, each)
    assert painted[0].min() == 1 and painted[1].max() == 0
    with pytest.raises(ValueError, match="mask holds 3 masks for 2 pictures"):
        paint_hole_black(image, torch.ones(3, 4, 4))
