"""LLMGA Keep the Rest as ComfyUI calls it and on a real server. What it computes is in test_keep.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support import comfy_inprocess
from support.graphs import node, preview, text_of

from tools.comfy_client import PromptFailedError
from tools.comfy_server import ComfyServer

inprocess = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


def keep(original: Any, edited: Any, mask: Any = None, **values: Any) -> Any:
    comfy_inprocess.start()
    settings = {"grow": 0, "feather": 4, "align": True, "match_colours": True, **values}
    return (
        comfy_inprocess.pack("nodes.keep").KeepTheRest.execute(original, edited, mask=mask, **settings).result
    )


def picture(batch: int = 1, channels: int = 3) -> torch.Tensor:
    small = torch.rand(batch, channels, 12, 14, generator=torch.Generator().manual_seed(batch))
    return torch.nn.functional.interpolate(small, (72, 84), mode="bicubic").clamp(0, 1).movedim(1, -1)


@inprocess
@pytest.mark.parametrize("channels", [3, 4])
def test_pictures_masks_and_numbers(channels: int) -> None:
    original = picture(2, channels)
    edited = original.clone()
    edited[1, 20:44, 30:60] = 1 - edited[1, 20:44, 30:60]
    image, change, matched, said = keep(original, edited[..., :3])
    assert image.shape == original.shape and change.shape == (2, 72, 84) and matched.shape == (2, 72, 84, 3)
    assert torch.equal(image[0], original[0]) and torch.equal(image[change == 0], original[change == 0])
    assert change[1, 22:42, 32:58].min() == 1
    assert (
        "picture 0: no change was found" in said
        and "% of the picture changed" in said
        and "bit for bit" in said
    )


@inprocess
@pytest.mark.parametrize("mask", [torch.zeros(1, 64, 64), torch.zeros(9, 9), torch.zeros(2, 1, 4, 4)])
def test_an_empty_mask_of_any_kind_counts_as_none(mask: torch.Tensor) -> None:
    original = picture(2)
    edited = original.clone()
    edited[:, 20:44, 30:60] = 0
    assert torch.equal(keep(original, edited, mask)[1], keep(original, edited)[1])


@inprocess
def test_wrong_values_name_the_input() -> None:
    wrong = {
        "grow": -1,
        "feather": 1.5,
        "align": "yes",
        "match_colours": None,
        "original": None,
        "edited": "x",
    }
    for name, value in wrong.items():
        values = {"original": picture(), "edited": picture(), name: value}
        with pytest.raises(ValueError, match=name):
            keep(**values)
    with pytest.raises(ValueError, match="edited holds 2 pictures and original 3"):
        keep(picture(3), picture(2))


def graph(feather: int) -> dict[str, Any]:
    return {
        "1": node("LoadImage", image="example.png"),
        "2": node("ImageInvert", image=["1", 0]),
        "3": node("LLMGA_KeepTheRest", original=["1", 0], edited=["2", 0], feather=feather),
        "4": preview(["3", 3]),
        "5": node("SaveImage", images=["3", 0], filename_prefix="keep"),
    }


def test_on_a_server_it_runs_once_and_is_cached(server: ComfyServer) -> None:
    ran: list[str] = []

    def on_event(kind: str, data: Any) -> None:
        if kind == "executing" and data.get("node"):
            ran.append(data["node"])

    outputs = server.run(graph(6), on_event=on_event)
    assert outputs["outputs"]["5"]["images"] and "picture 0:" in text_of(outputs, "4") and "3" in ran
    ran.clear()
    server.run(graph(6), on_event=on_event)
    assert "3" not in ran
    server.run(graph(7), on_event=on_event)
    assert "3" in ran and "2" not in ran


@pytest.mark.parametrize("kind", ["nan", "object"])
@pytest.mark.parametrize(
    "widget", ["original", "edited", "grow", "feather", "align", "match_colours", "mask"]
)
def test_a_wrong_value_over_a_link_names_the_input(server: ComfyServer, widget: str, kind: str) -> None:
    prompt = graph(4)
    prompt["wrong"] = node("LLMGATest_Value", kind=kind)
    prompt["3"]["inputs"][widget] = ["wrong", 0]
    with pytest.raises(PromptFailedError) as caught:
        server.run(prompt)
    assert caught.value.exception_type == "ValueError" and widget in caught.value.exception_message
