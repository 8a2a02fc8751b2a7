"""Prepare Mask, Crop for Painting and Stitch Painting as ComfyUI calls them. What they compute is in test_paint.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


def nodes() -> Any:
    comfy_inprocess.start()
    return comfy_inprocess.pack("nodes.paint")


def prepare(
    image: torch.Tensor, mask: Any = None, source: Any = "given", grow: Any = 0, seed: Any = 0
) -> Any:
    return nodes().PrepareMask.execute(image, source, grow, seed, mask).result


def picture(height: int, width: int, batch: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, height, width, channels, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 513), (64, 48)])
@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 64, 64),
        torch.full((1, 9, 9), 0.7),
        torch.ones(5, 3, 3),
        torch.ones(4, 4),
        torch.ones(5, 1, 4, 4),
    ],
    ids=["another size", "soft", "batched", "HW", "B1HW"],
)
def test_a_mask_becomes_zero_or_one_in_the_pictures_size(height: int, width: int, mask: torch.Tensor) -> None:
    prepared, said = prepare(picture(height, width, 5, 4), mask, grow=3)
    assert prepared.shape == (5, height, width) and (prepared == 1).all()
    assert said.count("100.0% to be painted") == 5


def test_given_masks_are_cut_at_one_half_and_grow() -> None:
    mask = torch.zeros(1, 9, 9)
    mask[0, 4, 4], mask[0, 0, 0] = 0.5, 0.4
    assert prepare(picture(9, 9), mask)[0].sum() == 1
    assert prepare(picture(9, 9), mask, grow=2)[0].sum() == 25


@pytest.mark.parametrize("source", ["narrow", "wide", "sides", "training"])
def test_drawn_masks(source: str) -> None:
    image = picture(64, 96, 3)
    prepared, _ = prepare(image, None, source, seed=5)
    assert prepared.shape == (3, 64, 96) and all(one.any() for one in prepared)
    assert torch.equal(prepared, prepare(image, torch.ones(1, 2, 2), source, seed=5)[0])
    assert not torch.equal(prepared, prepare(image, None, source, seed=9)[0])
    assert not torch.equal(prepared[0], prepared[1])


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="mask is not connected; connect one, or set source"):
        prepare(picture(8, 8))
    with pytest.raises(ValueError, match="mask 0 is empty: there is nothing to paint"):
        prepare(picture(8, 8), torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="mask holds 2 masks for 5 pictures in image"):
        prepare(picture(8, 8, 5), torch.ones(2, 8, 8))
    for name, value in {"source": "best", "grow": -1, "seed": None}.items():
        with pytest.raises(ValueError, match=name):
            prepare(picture(8, 8), torch.ones(1, 8, 8), **{name: value})


@pytest.mark.parametrize("value", [0.4, 0.49, 0.02])
def test_a_soft_mask_below_one_half_is_said_to_be_that(value: float) -> None:
    with pytest.raises(
        ValueError, match=rf"mask 0 is below one half everywhere, {value} at most: there is nothing"
    ):
        prepare(picture(8, 8), torch.full((1, 8, 8), value))


@pytest.mark.parametrize("value", [0.0, 0.4, 1 / 256])
def test_one_empty_mask_of_a_batch_is_named_and_the_others_are_prepared(value: float) -> None:
    mask = torch.ones(3, 8, 8)
    mask[1] = value
    prepared, said = prepare(picture(8, 8, 3), mask)
    assert prepared.mean((1, 2)).tolist() == [1, 0, 1]
    why = "is below one half everywhere, 0.4 at most" if value == 0.4 else "is empty"
    assert said.split("\n")[1] == f"picture 1: nothing to be painted, the mask {why}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_an_empty_mask_of_a_batch_goes_through_crop_and_stitch(dtype: torch.dtype) -> None:
    image, mask = picture(40, 60, 3).to(dtype), torch.zeros(3, 40, 60)
    mask[:, 10:20, 10:30] = 1
    mask[1] = 1 / 256
    output = nodes().CropForPainting.execute(image, mask, 32, 32, 1.5, False)
    part, part_mask, plan = output.result
    (said,) = output.ui["text"]
    assert "mask is empty" in said.split("\n")[1] and "mask is empty" not in said.split("\n")[0]
    assert part_mask.flatten(1).any(1).tolist() == [True, False, True]
    assert torch.equal(stitch(plan, torch.zeros_like(part))[1], image[1].float())


@pytest.mark.parametrize("opaque", [False, True])
def test_the_mask_that_load_image_gives_of_a_grey_picture_with_alpha(opaque: bool) -> None:
    """ComfyUI 0.26 gives such a mask a floor of 1/256."""
    comfy_inprocess.start()
    folder = Path(importlib.import_module("folder_paths").get_input_directory())
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 2), dtype=np.uint8)
    pixels[..., 1] = 255
    if not opaque:
        pixels[40:56, 50:74, 1] = 0
    Image.fromarray(pixels, "LA").save(folder / "grey_alpha.png")
    image, mask = comfy_inprocess.core_node("LoadImage")().load_image("grey_alpha.png")
    if opaque:
        with pytest.raises(ValueError, match="mask 0 is empty"):
            crop(image, mask)
        return
    part, part_mask, plan = crop(image, mask)
    assert (plan.boxes[0].height, plan.boxes[0].width) == (36, 36)  # 1.5 times the hole's 24 pixels
    assert 0.2 < part_mask.mean() < 0.4
    outside = mask[0] < 0.5
    assert torch.equal(stitch(plan, 1 - part, blend=8)[0][outside], image[0][outside])


def crop(image: Any, mask: Any, **widgets: Any) -> Any:
    values = {"width": 32, "height": 32, "context": 1.5, "enlarge": False, **widgets}
    return nodes().CropForPainting.execute(image, mask, **values).result


def stitch(plan: Any, painted: Any, blend: Any = 0) -> Any:
    return nodes().StitchPainting.execute(plan, painted, blend)[0]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 513), (300, 200)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_there_and_back(height: int, width: int, channels: int) -> None:
    image = picture(height, width, 5, channels)
    mask = torch.zeros(1, height, width)
    mask[:, : height // 3 + 1, : width // 4 + 1] = 1
    part, part_mask, plan = crop(image, mask)
    assert part.shape == (5, 32, 32, 3) and part_mask.shape == (5, 32, 32)
    whole = stitch(plan, torch.zeros_like(part))
    kept = (mask == 0)[0]
    rgb = image[..., :3].expand(-1, -1, -1, 3)
    assert torch.equal(whole[:, kept], rgb[:, kept]) and not whole[:, ~kept].any()


def test_wrong_values_are_named() -> None:
    image, mask = picture(40, 40), torch.ones(1, 40, 40)
    with pytest.raises(ValueError, match="mask 0 is empty"):
        crop(image, torch.zeros(1, 64, 64))
    wrong = {"width": 0, "height": 512.5, "context": float("nan"), "enlarge": 1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            crop(image, mask, **{name: value})
    part, _, plan = crop(image, mask)
    with pytest.raises(ValueError, match="crop must come from Crop for Painting"):
        stitch("text", part)
    with pytest.raises(ValueError, match="painted must be an IMAGE"):
        stitch(plan, torch.zeros(3, 3))
    with pytest.raises(ValueError, match="blend"):
        stitch(plan, part, -1)
