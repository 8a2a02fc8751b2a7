"""The shipped workflow of several holes on the miniature: a real chat writes for each hole, a real painter fills it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tools import miniature
from tools.comfy_runner import ComfyRunner, comfy_runner
from tools.miniature_base import BOTTOM, LEFT_THIRD
from tools.miniature_values import TWO_HOLES


@pytest.fixture(scope="module")
def runner(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyRunner]:
    try:
        models = miniature.find()
    except FileNotFoundError as error:
        pytest.skip(f"THE TRAINED MINIATURE IS MISSING: {error}")
    with comfy_runner(models, "http://127.0.0.1:9/v1", tmp_path_factory.mktemp("pictures")) as running:
        yield running


def workflow() -> dict[str, Any]:
    return miniature.load_prompt(miniature.API / "inpaint_regions.json")


def titled(prompt: dict[str, Any], title: str) -> str:
    (found,) = (key for key, node in prompt.items() if node["_meta"]["title"] == title)
    return found


def places(side: int) -> list[np.ndarray]:
    """The two holes of the example."""
    masks = np.zeros((2, side, side), dtype=bool)
    for mask, hole in zip(masks, (LEFT_THIRD, BOTTOM), strict=True):
        left, top, right, bottom = (round(edge * side) for edge in hole)
        mask[top:bottom, left:right] = True
    return list(masks)


def run(runner: ComfyRunner, prompt: dict[str, Any]) -> tuple[np.ndarray, list[str], list[str]]:
    """The picture, and of every region that was painted now what the chat was asked for, and its prompt.

    The words that a copy of the chat writes are shown on the chat.
    """
    writing: set[str] = set()

    def on_event(kind: str, data: Any) -> None:
        if kind == "llmga.text":
            writing.add(data["node"])

    entry = runner.server.run(prompt, on_event=on_event)
    assert writing <= {titled(prompt, "LLMGA Chat")}
    asked, prompts = [], []
    for one in sorted(entry["outputs"], key=len):  # a copy's id begins with that of the node that added it
        for record in entry["outputs"][one].get("llmga_chat", []):
            asked.append(record["exchange"][0]["instruction"])
            prompts += record["prompts"]
    (picture,) = entry["outputs"][titled(prompt, "Save Image")]["images"]
    path = runner.server.base / "output" / picture["subfolder"] / picture["filename"]
    return np.array(Image.open(path).convert("RGB")).astype(int), asked, prompts


def test_two_holes_with_a_prompt_each_and_nothing_else_changed(runner: ComfyRunner) -> None:
    first, second = places(miniature.picture_size())
    both, asked, prompts = run(runner, workflow())
    original = np.array(Image.open(runner.server.base / "input" / TWO_HOLES).convert("RGB")).astype(int)
    outside = ~(first | second)
    assert np.array_equal(both[outside], original[outside])
    for hole in (first, second):
        assert np.abs(both - original)[hole].mean() > 4
    wanted = workflow()
    assert "\n".join(asked) == wanted[titled(wanted, "Crop Each Region")]["inputs"]["instructions"]
    assert len(prompts) == 2 and prompts[0] != prompts[1]
    wanted[titled(wanted, "Stitch Regions")]["inputs"]["repeat"] = False
    once, _, _ = run(runner, wanted)
    assert np.array_equal(once[~first], original[~first]) and np.array_equal(once[first], both[first])


def test_the_second_region_is_painted_in_the_picture_with_the_first(runner: ComfyRunner) -> None:
    """With another first region the painter sees another picture around the second one."""
    pictures = []
    for words in ("a yellow star at the left", "a large purple ring at the left"):
        prompt = workflow()
        # Without the chat, so that the second prompt is the same.
        prompt[titled(prompt, "Long CLIP Encode")]["inputs"]["text"] = [titled(prompt, "Crop Each Region"), 2]
        crop = prompt[titled(prompt, "Crop Each Region")]["inputs"]
        crop["instructions"] = f"{words}\na red ring at the bottom"
        pictures.append(run(runner, prompt)[0])
    first, second = places(miniature.picture_size())
    assert np.abs(pictures[0] - pictures[1])[first].mean() > 4
    assert not np.array_equal(pictures[0][second], pictures[1][second])
    outside = ~(first | second)
    assert np.array_equal(pictures[0][outside], pictures[1][outside])
