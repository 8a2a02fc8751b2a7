"""Crop Each Region and Stitch Regions on a real server: what runs again, in which order, what is cached and refused.

What they compute is in test_regions.py; the painter is core's Invert Image, so that every pixel is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.graphs import chat, node, preview

from tools.comfy_client import PromptFailedError, PromptInterruptedError
from tools.comfy_server import ComfyServer

Prompt = dict[str, dict[str, Any]]
SIDE = 64
LEFT, RIGHT = (8, 24, 4, 20), (30, 58, 40, 64)
"""Top, bottom, left, right of two holes; the second reaches the picture's border."""


def hole(*places: tuple[int, int, int, int]) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for top, bottom, left, right in places:
        mask[top:bottom, left:right] = True
    return mask


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def save(server: ComfyServer, name: str, rgb: np.ndarray, mask: np.ndarray | None = None) -> str:
    """A picture in the server's input folder; ComfyUI takes what is transparent for the mask."""
    picture = Image.fromarray(rgb)
    if mask is not None:
        picture.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
    folder = server.base / "input"
    folder.mkdir(exist_ok=True)
    picture.save(folder / name)
    return name


def crop(image: list[Any], mask: list[Any], instructions: Any = "", **more: Any) -> dict[str, Any]:
    size = {"width": SIDE, "height": SIDE, "context": 1.0, "enlarge": False, "split": "auto"}
    return node("LLMGA_CropEachRegion", image=image, mask=mask, instructions=instructions, **{**size, **more})


def stitch(regions: list[Any], painted: list[Any], **more: Any) -> dict[str, Any]:
    return node(
        "LLMGA_StitchRegions", regions=regions, painted=painted, **{"blend": 0, "repeat": True, **more}
    )


def inverting(name: str, instructions: Any = "", **more: Any) -> Prompt:
    """Every region of a picture's own mask is inverted."""
    return {
        "load": node("LoadImage", image=name),
        "crop": crop(["load", 0], ["load", 1], instructions),
        "words": preview(["crop", 2]),
        "paint": node("ImageInvert", image=["crop", 0]),
        "stitch": stitch(["crop", 3], ["paint", 0], **more),
        "save": node("SaveImage", images=["stitch", 0], filename_prefix="regions"),
        "readout": preview(["stitch", 3]),
    }


def masks_of(server: ComfyServer, *masks: np.ndarray) -> Prompt:
    """Nodes that give a batch of masks from pictures, at ("masks", 0)."""
    prompt: Prompt = {}
    for i, mask in enumerate(masks):
        white = np.where(mask[..., None], 255, 0).astype(np.uint8).repeat(3, 2)
        prompt[f"white{i}"] = node("LoadImage", image=save(server, f"mask_{mask.sum()}_{i}.png", white))
    last = "white0"
    for i in range(1, len(masks)):
        prompt[f"batch{i}"] = node("ImageBatch", image1=[last, 0], image2=[f"white{i}", 0])
        last = f"batch{i}"
    prompt["masks"] = node("ImageToMask", image=[last, 0], channel="red")
    return prompt


def cached(entry: dict[str, Any]) -> set[str]:
    """The nodes whose results were there already."""
    return {
        node
        for kind, data in entry["status"]["messages"]
        if kind == "execution_cached"
        for node in data["nodes"]
    }


def shown_as(entry: dict[str, Any], display: str) -> list[str]:
    """The ids of a node and its copies among those that showed something."""
    return [one for one in entry["outputs"] if entry["meta"][one]["display_node"] == display]


def painted(server: ComfyServer, entry: dict[str, Any]) -> np.ndarray:
    (picture,) = entry["outputs"]["save"]["images"]
    path = server.base / "output" / picture["subfolder"] / picture["filename"]
    return np.array(Image.open(path).convert("RGB"))


def check(found: np.ndarray, wanted: np.ndarray, changed: np.ndarray) -> None:
    """Equal bit for bit where nothing was painted; elsewhere within the level that Save Image cuts off."""
    assert np.array_equal(found[~changed], wanted[~changed])
    assert np.abs(found.astype(int) - wanted).max() <= 1


def shown(entry: dict[str, Any], display: str) -> list[str]:
    """What a node and its copies showed."""
    return [entry["outputs"][one]["text"][0] for one in shown_as(entry, display)]


def test_each_region_is_painted_in_turn_with_its_own_words(server: ComfyServer) -> None:
    original, mask = pixels(), hole(LEFT, RIGHT)
    prompt = inverting(save(server, "two.png", original, mask), "a cat\na dog")
    entry = server.run(prompt)
    check(painted(server, entry), np.where(mask[..., None], 255 - original, original), mask)
    assert sorted(shown(entry, "words")) == ["a cat", "a dog"]
    (readout,) = shown(entry, "readout")
    assert readout == (
        "region 0: 16×16 pixels at left 4, top 8: a cat\nregion 1: 24×28 pixels at left 40, top 30: a dog"
    )
    assert {"crop", "paint", "stitch"} <= cached(server.run(prompt))
    prompt["stitch"]["inputs"]["blend"] = 2
    again = server.run(prompt)
    # The first region's is still there; the second sees another picture.
    assert {"crop", "paint", "words"} <= cached(again) and "stitch" not in cached(again)
    assert sorted(shown(again, "words")) == ["a cat", "a dog"]


def test_overlapping_masks_each_see_what_was_painted_before(server: ComfyServer) -> None:
    """Inverted twice is the original again."""
    original = pixels(1)
    first, second = hole((8, 40, 8, 40)), hole((20, 56, 20, 56))
    prompt = inverting(save(server, "overlap.png", original))
    prompt |= masks_of(server, first, second)
    prompt["crop"]["inputs"]["mask"] = ["masks", 0]
    result = painted(server, server.run(prompt))
    check(result, np.where((first ^ second)[..., None], 255 - original, original), first | second)


def test_three_regions_an_empty_mask_among_them(server: ComfyServer) -> None:
    original = pixels(2)
    masks = [hole(LEFT), hole(), hole(RIGHT), hole((50, 60, 2, 12))]
    prompt = inverting(save(server, "four.png", original), "a\nb\nc\nd")
    prompt |= masks_of(server, *masks)
    prompt["crop"]["inputs"]["mask"] = ["masks", 0]
    entry = server.run(prompt)
    union = np.logical_or.reduce(masks)
    check(painted(server, entry), np.where(union[..., None], 255 - original, original), union)
    assert sorted(shown(entry, "words")) == ["a", "c", "d"]
    (readout,) = shown(entry, "readout")
    assert "region 1: its mask is empty, so nothing is painted" in readout and readout.count("\n") == 3


def test_without_repeating_each_region_has_nodes_of_its_own(server: ComfyServer) -> None:
    original, mask = pixels(3), hole(LEFT, RIGHT)
    prompt = inverting(save(server, "chain.png", original, mask), repeat=False)
    prompt["crop2"] = crop(["load", 0], ["load", 1], regions=["stitch", 1])
    prompt["stitch2"] = stitch(["crop2", 3], ["crop2", 0], repeat=False)  # left as it is
    prompt["crop3"] = crop(["load", 0], ["load", 1], regions=["stitch2", 1])
    prompt["paint3"] = node("ImageInvert", image=["crop3", 0])
    prompt["stitch3"] = stitch(["crop3", 3], ["paint3", 0])  # a step more than there are regions
    prompt["save"]["inputs"]["images"] = ["stitch3", 0]
    result = painted(server, server.run(prompt))
    left = hole(LEFT)
    check(result, np.where(left[..., None], 255 - original, original), left)


def test_two_ends_of_one_beginning_are_two_repetitions(server: ComfyServer) -> None:
    original, mask = pixels(8), hole(LEFT, RIGHT)
    prompt = inverting(save(server, "ends.png", original, mask))
    prompt["other end"] = stitch(["crop", 3], ["crop", 0])
    prompt["kept"] = node("SaveImage", images=["other end", 0], filename_prefix="kept")
    entry = server.run(prompt)
    check(painted(server, entry), np.where(mask[..., None], 255 - original, original), mask)
    assert shown_as(entry, "save") == ["save"] and shown_as(entry, "kept") == ["kept"]


def fails(server: ComfyServer, prompt: Prompt, match: str) -> str:
    with pytest.raises(PromptFailedError, match=match) as caught:
        server.run(prompt)
    assert caught.value.exception_type == "ValueError"
    return caught.value.node_type


def test_what_does_not_fit_is_refused_with_its_name(server: ComfyServer) -> None:
    mask = hole(LEFT, RIGHT)
    name = save(server, "wrong.png", pixels(4), mask)
    assert fails(server, inverting(name, "a\nb\nc"), "instructions holds 3 lines for 2 regions")
    several = inverting(name)
    several["list"] = node("RepeatImageBatch", image=["crop", 0], amount=2)
    several["stitch"]["inputs"]["painted"] = ["list", 0]
    assert fails(server, several, "painted holds 2 pictures; one region takes one") == "LLMGA_StitchRegions"
    between = inverting(name)
    between["other"] = node("LLMGATest_Value", kind="object")
    between["stitch"]["inputs"]["regions"] = ["other", 0]
    assert fails(server, between, "regions must come from Crop Each Region") == "LLMGA_StitchRegions"
    for widget in (
        "image",
        "mask",
        "instructions",
        "split",
        "width",
        "height",
        "context",
        "enlarge",
        "regions",
    ):
        wrong = inverting(name)
        wrong["other"] = node("LLMGATest_Value", kind="object")
        wrong["crop"]["inputs"][widget] = ["other", 0]
        assert fails(server, wrong, widget) == "LLMGA_CropEachRegion"
    for widget in ("painted", "blend", "stitch_mask", "repeat"):
        wrong = inverting(name)
        wrong["other"] = node("LLMGATest_Value", kind="nan")
        wrong["stitch"]["inputs"][widget] = ["other", 0]
        assert fails(server, wrong, widget) == "LLMGA_StitchRegions"


def test_a_list_is_refused_for_it_would_paint_each_region_as_often(server: ComfyServer) -> None:
    prompt = inverting(save(server, "list.png", pixels(5), hole(LEFT, RIGHT)))
    prompt["batch"] = node("RepeatImageBatch", image=["crop", 0], amount=2)
    prompt["list"] = node("RebatchImages", images=["batch", 0], batch_size=1)
    prompt["stitch"]["inputs"]["painted"] = ["list", 0]
    assert fails(server, prompt, "painted is a list of 2: the regions of one picture")


def test_an_edited_reply_is_not_given_to_every_region(server: ComfyServer) -> None:
    prompt = inverting(save(server, "edited.png", pixels(6), hole(LEFT, RIGHT)))
    prompt["engine"] = node("LLMGATest_Engine", behaviour="empty")
    prompt["chat"] = chat("engine", edited_reply="<gen_image> a fox </gen_image>", task="inpaint")
    prompt["chat"]["inputs"] |= {"instruction": ["crop", 2], "image": ["crop", 0], "mask": ["crop", 1]}
    assert fails(server, prompt, "edited reply") == "LLMGA_StitchRegions"


def test_a_cancel_at_the_second_region_keeps_the_first(server: ComfyServer) -> None:
    prompt = inverting(save(server, "cancel.png", pixels(7), hole(LEFT, RIGHT)), "go on\nwait")
    prompt["wait"] = node("LLMGATest_Wait", image=["paint", 0], text=["crop", 2])
    prompt["stitch"]["inputs"]["painted"] = ["wait", 0]
    for waits in (["wait", "stitch.0.0.wait"], ["stitch.0.0.wait"]):
        seen: list[str] = []

        def cancel_the_second(kind: str, data: Any, seen: list[str] = seen) -> None:
            if kind == "executing" and data.get("display_node") == "wait":
                seen.append(data["node"])
                if data["node"] != "wait":
                    server.interrupt()

        with pytest.raises(PromptInterruptedError):
            server.run(prompt, on_event=cancel_the_second)
        assert seen == waits
