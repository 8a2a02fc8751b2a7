"""LLMGA Caption Folder as ComfyUI calls it: it writes beside the pictures of its own folders, and nowhere else."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import comfy_inprocess

pytestmark = pytest.mark.skipif(
    comfy_inprocess.skip_reason() is not None, reason=str(comfy_inprocess.skip_reason())
)


class Seer:
    name = "seer"
    supports_pictures = True

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        on_text("A square")
        said = comfy_inprocess.pack("llmga.chat").Said
        return said.of(f"A square, seed {sampling.seed}.")


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    comfy_inprocess.start()
    folder_paths: Any = importlib.import_module("folder_paths")
    for place in ("input", "output"):
        (tmp_path / place / "set").mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / place / "set" / "one.png")
        monkeypatch.setattr(folder_paths, f"{place}_directory", str(tmp_path / place))
    Image.new("RGB", (8, 8), "red").save(tmp_path / "outside.png")
    return tmp_path


def node() -> Any:
    return comfy_inprocess.pack("nodes.caption_folder").CaptionFolder


def caption(folder: Any = "set", place: Any = "input", **more: Any) -> Any:
    values = {
        "engine": Seer(), "trigger_word": "zxq", "exclude": "a fox, snow", "instruction": "", "seed": 3,
        "overwrite": False, "task": "describe", "style": "default", "temperature": 0.2, "max_new_tokens": 64,
        "language": "en", **more,
    }  # fmt: skip
    return node().execute(folder=folder, place=place, **values).result


@pytest.mark.parametrize("place", ["input", "output"])
def test_a_caption_is_beside_its_picture(places: Path, place: str) -> None:
    before = node().fingerprint_inputs(folder="set", place=place)
    captions, failures, said = caption(place=place)
    assert captions == ["zxq, A square, seed 3."] and failures == ""
    assert said == "1 captions written, 0 pictures had one, 0 failed"
    assert (places / place / "set" / "one.txt").read_text("utf-8") == "zxq, A square, seed 3.\n"
    assert len(list(places.rglob("*.txt"))) == 1
    assert node().fingerprint_inputs(folder="set", place=place) != before
    assert caption(place=place)[0] == [""] and "1 pictures had one" in caption(place=place)[2]


@pytest.mark.parametrize("folder", ["..", "../..", "set/../..", "/tmp", "C:\\x", "\\\\host\\x"])
def test_no_other_folder_is_read_or_written(places: Path, folder: str) -> None:
    with pytest.raises(ValueError, match="lies outside of ComfyUI's input folder"):
        caption(folder)
    assert not list(places.rglob("*.txt"))
    assert isinstance(node().fingerprint_inputs(folder=folder), str)


def test_what_is_wrong_is_said(places: Path) -> None:
    with pytest.raises(FileNotFoundError, match="'none' is not in ComfyUI's output folder"):
        caption("none", "output")
    with pytest.raises(FileNotFoundError, match="'x{200}' is not in ComfyUI's output folder"):
        caption("x" * 300, "output")
    wrong = {"place": "user", "seed": -1, "overwrite": 1, "task": "story", "style": "x", "language": "fr",
             "trigger_word": "x" * 201, "exclude": 5, "folder": 7, "engine": object(), "thinking": "x"}  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            caption(**{name: value})
    assert not list(places.rglob("*.txt"))


def test_cancel_is_asked_for_at_each_picture(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    management: Any = importlib.import_module("comfy.model_management")
    Image.new("RGB", (8, 8), "red").save(places / "input" / "set" / "two.png")

    def cancelled() -> None:
        if (places / "input" / "set" / "one.txt").exists():
            raise management.InterruptProcessingException

    monkeypatch.setattr(management, "throw_exception_if_processing_interrupted", cancelled)
    with pytest.raises(management.InterruptProcessingException):
        caption()
    assert [path.name for path in places.rglob("*.txt")] == ["one.txt"]
    monkeypatch.undo()
