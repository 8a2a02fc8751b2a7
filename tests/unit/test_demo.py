"""The demo: what it asks of the miniature, what it knows to be right, and what it leaves for a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from miniworld.models.painter import write_half, write_single_file
from miniworld.models.random_diffusion import random_pipeline
from miniworld.models.random_language import write_tiny_llava
from miniworld.world.captions import detailed_caption
from miniworld.world.facts import facts
from miniworld.world.scene import sample_scene
from tools import ROOT, demo, miniature
from tools.report import Chapter, contact_sheet, report, transcript


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature that has learned nothing."""
    folder = tmp_path_factory.mktemp("miniature")
    pipeline = random_pipeline(1)
    nets = pipeline.unet, pipeline.text_encoder, pipeline.vae
    write_single_file(folder / "checkpoints" / miniature.CHECKPOINT, *(net.state_dict() for net in nets))
    unet = folder / "diffusion_models" / miniature.STAGE2
    random_unet = random_pipeline(2).unet
    random_unet.save_config(unet.parent)
    write_half(random_unet.state_dict(), unet)
    write_tiny_llava(folder / "LLM" / miniature.LANGUAGE_MODEL)
    return folder


def test_what_is_missing_of_a_miniature_is_named(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGA_MINIATURE", str(stand_in))
    assert miniature.find() == stand_in
    monkeypatch.setenv("LLMGA_MINIATURE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=miniature.CHECKPOINT):
        miniature.find()


def test_every_chapter_is_painted_twice_from_one_prompt() -> None:
    assert demo.STORY.keys() == miniature.REQUESTS.keys()
    for name in demo.STORY:
        prompt = miniature.load_prompt(ROOT / "workflows" / "api" / f"{name}.json")
        chats = [node for node in prompt.values() if node["class_type"] == "LLMGA_Chat"]
        assert {node["_meta"]["title"] for node in chats} == miniature.REQUESTS[name].keys()
        first, second = (node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
        assert {key for key in first if first[key] != second[key]} == {"model"}
        for node in prompt.values():
            links = [value for value in node["inputs"].values() if isinstance(value, list)]
            assert all(link[0] in prompt for link in links)


def test_a_prompt_in_the_worlds_words_is_drawn_as_it_says() -> None:
    for seed in range(60):
        scene = sample_scene(seed)
        drawn = miniature.scene_of(detailed_caption(scene, seed))
        assert drawn is not None and facts(drawn) == facts(scene)
    for open_ended in ("", "a fox in a forest", "a red star on grass", "a red star in the centre"):
        assert miniature.scene_of(open_ended) is None


def test_the_story_runs_without_comfyui(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All four chapters on the embedded engine, with the language model behind its server."""
    monkeypatch.setenv("LLMGA_MINIATURE", str(stand_in))
    monkeypatch.setenv("COMFYUI_PATH", "none")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    for key, value in (("steps", 1), ("max_new_tokens", 8)):
        class_type = "KSampler" if key == "steps" else "LLMGA_Chat"
        monkeypatch.setitem(miniature.SUBSTITUTES, (class_type, key), value)
    assert demo.main([]) == 0
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    painted = {f"{name}{kind}_00.png" for name in demo.STORY for kind in ("", "_stage2")}
    assert painted | {"similar_image_shown.png", "contact_sheet.png", "report.html", "transcript.md"} <= names
    transcript = (tmp_path / "demo" / "transcript.md").read_text(encoding="utf-8")
    for requests in miniature.REQUESTS.values():
        assert all(instruction in transcript for instruction, _ in requests.values())


def test_the_sheet_shows_every_picture_and_the_page_escapes_every_text(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (128, 128), "#ff0000").save(path)
    hostile = "<script>alert(1)</script>"
    chapter = Chapter("name", "about", 1.0, [("you", hostile)], hostile, [], [(hostile, path), ("b", path)])
    sheet: Any = contact_sheet([chapter, replace(chapter, pictures=[("only", path)])])
    red = sum(count for count, colour in sheet.getcolors(2**20) if colour == (255, 0, 0))
    assert red == 3 * 256 * 256
    page = report("intro", [chapter])
    assert hostile not in page and page.count("data:image/png") == 2
    assert hostile in transcript("intro", [chapter])
