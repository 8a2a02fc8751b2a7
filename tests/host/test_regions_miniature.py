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
from tools.miniature_base import LEFT_THIRD, TOP_RIGHT
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
    for mask, hole in zip(masks, (LEFT_THIRD, TOP_RIGHT), strict=True):
        left, top, right, bottom = (round(edge * side) for edge in hole)
        mask[top:bottom, left:right] = True
    return list(masks)


def run(runner: ComfyRunner, prompt: dict[str, Any]) -> tuple[np.ndarray, dict[str, list[str]]]:
    """The picture, and what every node and its copies showed, by title and in the order of the regions."""
    entry = runner.server.run(prompt)
    texts: dict[str, list[str]] = {}
    for one in sorted(entry["outputs"], key=len):  # a copy's id begins with that of the node that added it
        title = prompt[entry["meta"][one]["display_node"]]["_meta"]["title"]
        texts.setdefault(title, []).extend(entry["outputs"][one].get("text", []))
    (picture,) = entry["outputs"][titled(prompt, "Save Image")]["images"]
    path = runner.server.base / "output" / picture["subfolder"] / picture["filename"]
    return np.array(Image.open(path).convert("RGB")).astype(int), texts


def test_two_holes_with_a_prompt_each_and_nothing_else_changed(runner: ComfyRunner) -> None:
    side = miniature.picture_size()
    both, texts = run(runner, workflow())
    left, right = places(side)
    original = np.array(Image.open(runner.server.base / "input" / TWO_HOLES).convert("RGB")).astype(int)
    outside = ~(left | right)
    assert np.array_equal(both[outside], original[outside])
    for hole in (left, right):
        assert np.abs(both - original)[hole].mean() > 8
    first, second = texts["Prompt"]
    assert "star" in first and "circle" in second and first != second
    first_alone = workflow()
    first_alone[titled(first_alone, "Stitch Regions")]["inputs"]["repeat"] = False
    once, texts = run(runner, first_alone)
    assert texts["Prompt"] == [first]
    assert np.array_equal(once[~left], original[~left]) and np.array_equal(once[left], both[left])


def test_the_second_prompt_and_picture_follow_from_the_first(runner: ComfyRunner) -> None:
    """With another first region the chat sees another picture at the second one, and so does the painter."""
    prompts, pictures = [], []
    for first in ("a yellow star at the left", "a large purple ring at the left"):
        prompt = workflow()
        crop = prompt[titled(prompt, "Crop Each Region")]["inputs"]
        crop["instructions"] = f"{first}\na green circle at the top right"
        picture, texts = run(runner, prompt)
        prompts.append(texts["Prompt"][1])
        pictures.append(picture)
    assert "star" in prompts[0] and "ring" in prompts[1] and "star" not in prompts[1]
    right = places(miniature.picture_size())[1]
    assert not np.array_equal(pictures[0][right], pictures[1][right])
