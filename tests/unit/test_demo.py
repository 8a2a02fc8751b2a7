"""The demo: what it asks of the miniature, what it knows to be right, and what it leaves for a person."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from llmga.gill import (
    DecisionModel,
    GILLParts,
    GILLSizes,
    load_language,
    load_vision,
    save_decision,
    save_parts,
)
from miniworld.models.architecture import CONTEXT_DIM
from miniworld.models.painter import write_half, write_single_file
from miniworld.models.random_diffusion import (
    random_pipeline,
    write_controlnet,
    write_inpainting_unet,
    write_restorer,
)
from miniworld.models.random_language import write_tiny_llava
from miniworld.world.captions import detailed_caption
from miniworld.world.facts import facts
from miniworld.world.scene import sample_scene
from tools import demo, embedded_scenes, miniature, miniature_values, props
from tools.report import Chapter, contact_sheet, report, transcript
from tools.template_list import TEMPLATES


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
    write_inpainting_unet(folder / "diffusion_models" / "llmga-mini-inpainting")
    write_controlnet(folder / "controlnet" / miniature_values.CONTROLNET)
    write_restorer(folder / "diffrir" / miniature_values.RESTORER)
    write_tiny_llava(folder / "LLM" / miniature.LANGUAGE_MODEL)
    write_gill(folder)
    return folder


def write_gill(folder: Path) -> None:
    """A GILL that has learned nothing, for the stand-in's own language model and vision tower."""
    language = folder / "LLM" / miniature.LANGUAGE_MODEL
    widths = load_language(language, torch.float32).width, load_vision(language, torch.float32).width
    parts = GILLParts(GILLSizes(*widths, retrieval=16, text=CONTEXT_DIM, head_width=16, head_layers=1))
    save_parts(parts, folder / "gill" / miniature_values.GILL)
    save_decision(DecisionModel(widths[0]), folder / "gill" / miniature_values.GILL_DECISION)


def test_what_is_missing_of_a_miniature_is_named(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMGA_MINIATURE", str(stand_in))
    assert miniature.find() == stand_in
    monkeypatch.setenv("LLMGA_MINIATURE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=miniature.CHECKPOINT):
        miniature.find()


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_workflow_on_the_miniature_is_whole_and_in_its_words(name: str) -> None:
    prompt = miniature.load_prompt(miniature.API / f"{name}.json")
    assert miniature.REQUESTS[name].keys() <= {node["_meta"]["title"] for node in prompt.values()}
    for node in prompt.values():
        links = [value for value in node["inputs"].values() if isinstance(value, list)]
        assert all(link[0] in prompt for link in links)
        assert node["class_type"] not in ("CLIPLoader", "LLMGA_HostLanguageModel")
        # A flow model has its VAE in a file of its own; the miniature has none yet.
        assert node["class_type"] != "VAELoader" or name == "flow_edit"
        if node["class_type"] == "EmptyLatentImage":
            assert node["inputs"]["width"] == node["inputs"]["height"] == miniature.picture_size()
        if node["class_type"] == "CheckpointLoaderSimple":
            assert node["inputs"]["ckpt_name"] == miniature.CHECKPOINT


def test_loaders_of_todays_bases_become_one_checkpoint() -> None:
    """CLIP and VAE come from its outputs 1 and 2; the UNet stays a file of its own where that is asked for."""
    path = miniature.API / "z_image.json"
    with_unet = miniature.load_prompt(path)
    (checkpoint,) = (k for k, one in with_unet.items() if one["class_type"] == "CheckpointLoaderSimple")
    (unet,) = (k for k, one in with_unet.items() if one["class_type"] == "UNETLoader")
    (sampler,) = (one["inputs"] for one in with_unet.values() if one["class_type"] == "KSampler")
    assert sampler["model"] == [unet, 0]
    encoders = [one["inputs"] for one in with_unet.values() if one["class_type"] == "CLIPTextEncode"]
    assert [one["clip"] for one in encoders] == [[checkpoint, 1]] * 2 and "" in [
        one["text"] for one in encoders
    ]
    assert [checkpoint, 2] in [one["inputs"].get("vae") for one in with_unet.values()]
    alone = props.load_prompt(path)
    (sampler,) = (one["inputs"] for one in alone.values() if one["class_type"] == "KSampler")
    assert alone[sampler["model"][0]]["class_type"] == "CheckpointLoaderSimple"


def test_a_chapter_is_painted_twice_from_one_prompt() -> None:
    assert set(demo.TWICE) <= demo.STORY.keys() <= TEMPLATES.keys()
    for name in demo.TWICE:
        prompt = miniature.with_stage2(miniature.load_prompt(miniature.API / f"{name}.json"))
        first, second = (node["inputs"] for node in prompt.values() if node["class_type"] == "KSampler")
        assert {key for key in first if first[key] != second[key]} == {"model"}


def test_a_report_says_what_a_person_wrote_wherever_it_stands_in_a_graph() -> None:
    """The turns in a panel, captions written by hand, boxes, a picture without words; not what comes from other nodes."""
    said = {
        name: [
            words
            for node in miniature.load_prompt(miniature.API / f"{name}.json").values()
            for words in demo.asked_by(node["inputs"])
        ]
        for name in demo.STORY
    }
    assert [who for who, _ in said["chat_many_turns"]] == ["you", "LLMGA", "you"]
    before, after = (text for _, text in said["edit_with_mask"])
    assert before.startswith("The picture shows: ") and after.startswith("It shall show: ")
    (boxes,) = said["scene_by_hand"]
    assert boxes[1].startswith("Boxes for: ")
    assert said["similar_image"] == [("you", demo.WITHOUT_WORDS["similar"])]


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
    """All chapters on the embedded engine, with the language model behind its server."""
    monkeypatch.setenv("LLMGA_MINIATURE", str(stand_in))
    monkeypatch.setenv("COMFYUI_PATH", "none")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    short = {"steps": ("KSampler", "LLMGA_Invert", "LLMGA_InversionEdit", "LLMGA_SceneSynthesis")}
    short |= {"max_new_tokens": ("LLMGA_Chat", "LLMGA_ChatPerPicture", "LLMGA_EditInstruction")}
    for key, classes in short.items():
        for class_type in classes:
            monkeypatch.setitem(miniature_values.VALUES, (class_type, key), 2 if key == "steps" else 8)
    assert demo.main([]) == 0
    names = {path.name for path in (tmp_path / "demo").iterdir()}
    assert {f"{name}_00.png" for name in demo.STORY} | {
        f"{name}_stage2_00.png" for name in demo.TWICE
    } <= names
    assert {"similar_image_shown.png", "contact_sheet.png", "report.html", "transcript.md"} <= names
    transcript = (tmp_path / "demo" / "transcript.md").read_text(encoding="utf-8")
    for name in demo.STORY:
        for inputs in miniature.REQUESTS[name].values():
            assert inputs.get("instruction", "") in transcript


def test_a_chapter_whose_model_is_missing_is_left_out_and_says_so(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = tmp_path / "miniature"
    lacking.mkdir()
    for entry in stand_in.iterdir():
        if entry.name != "controlnet":
            (lacking / entry.name).symlink_to(entry)
    monkeypatch.setenv("LLMGA_MINIATURE", str(lacking))
    monkeypatch.setenv("COMFYUI_PATH", "none")
    monkeypatch.setattr(demo, "OUTPUT", tmp_path / "demo")
    monkeypatch.setattr(demo, "STORY", {"controlnet": demo.STORY["controlnet"]})
    assert demo.main([]) == 0
    transcript = (tmp_path / "demo" / "transcript.md").read_text(encoding="utf-8")
    assert "the miniature has no llmga-mini-canny.safetensors yet" in transcript


def test_the_sheet_shows_every_picture_and_the_page_escapes_every_text(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (128, 128), "#ff0000").save(path)
    hostile = "<script>alert(1)</script>"
    chapter = Chapter(
        "name", "title", "about", 1.0, [("you", hostile)], hostile, [], [(hostile, path), ("b", path)]
    )
    sheet: Any = contact_sheet([chapter, replace(chapter, pictures=[("only", path)])])
    red = sum(count for count, colour in sheet.getcolors(2**20) if colour == (255, 0, 0))
    assert red == 3 * 256 * 256
    Image.new("RGB", (128, 64), "#ff0000").save(path)  # as a picture is that was continued to one side
    wide: Any = contact_sheet([replace(chapter, pictures=[("wide", path)])])
    left, top, right, bottom = (
        wide.getchannel("R").point(lambda red: 255 * (red == 255)).crop((480, 52, 736, 308)).getbbox()
    )
    assert (left, right) == (0, 256) and (top, bottom) == (64, 192)
    page = report("intro", [chapter])
    assert hostile not in page and page.count("data:image/png") == 2
    assert hostile in transcript("intro", [chapter])


def test_what_the_embedded_engine_cannot_do_with_a_scene_is_said() -> None:
    step: Any = None
    for plan, separate in (("", False), ("{}", True)):
        with pytest.raises(ValueError, match="reads a plan that stands in the node, and separates no boxes"):
            embedded_scenes.scene_plan(step, plan, separate)
    with pytest.raises(ValueError, match="paints scenes without masks of their objects"):
        embedded_scenes.scene_synthesis(step, *[None] * 5, 1, 64, 64, "llmga", masks=torch.ones(1, 8, 8))
