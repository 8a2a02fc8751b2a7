"""The paper's evaluation sets in miniature: drawn at a miniature's own size, which its reader's networks take."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

pytest.importorskip("diffusers", reason="the miniature's painter needs diffusers")

from llmga.evaluate.data import DataConfig
from llmga.evaluate.paint_jobs import PainterConfig, PaintJob, SceneParts
from llmga.evaluate.sources import CaptionItem
from llmga.scene import ScenePlan
from miniworld.checks.contexts import (
    CATEGORIES,
    WholeByCategory,
    WholeObjects,
    conversations,
    dialogs,
    impossible,
    scene_painter,
    scene_settings,
    stories,
)
from miniworld.checks.paper import captions, edits, inpainting, outpainting, perceptual, reader
from miniworld.checks.scenes import ScenesConfig, settings_of
from miniworld.files import CHECKPOINT, READER
from miniworld.models.architecture import picture_size
from miniworld.models.painter import load_pipeline
from miniworld.models.random_diffusion import write_checkpoint
from miniworld.models.reader import Reader
from miniworld.world.facts import caption_facts
from tools import ROOT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=[128, 256])
def side(request: pytest.FixtureRequest) -> int:
    """Pixels of a side of what the miniature paints."""
    return request.param


def test_the_sets_follow_the_miniature_and_its_reader_reads_them(tmp_path: Path, side: int) -> None:
    write_checkpoint(tmp_path / CHECKPOINT, picture=side)
    drawn = []
    for draw, names in (
        (captions, ("picture",)),
        (inpainting, ("picture", "mask")),
        (outpainting, ("picture", "mask")),
        (edits, ("source", "target")),
    ):
        for folder, size in ((str(tmp_path), side), ("", 128)):
            (item,) = draw(DataConfig("", folder, count=1), tmp_path / "work")
            for name in names:
                with Image.open(getattr(item, name)) as picture:
                    assert picture.size == (size, size)
                    drawn += [picture.convert("RGB")] if folder and name != "mask" else []
    weights = {name: value.contiguous() for name, value in Reader().state_dict().items()}
    save_file(weights, tmp_path / READER)
    found = reader(tmp_path / READER, torch.device("cpu")).images(drawn)
    assert found["features"].shape == (len(drawn), 96) and found["logits"].shape[1] == 8
    distance = perceptual(tmp_path / READER, torch.device("cpu")).pairs
    assert (distance(drawn[:2], drawn[2:4]) > 0).all() and not distance(drawn, drawn).any()


def test_conversations_stories_and_dialogues_hold_what_their_tasks_need(tmp_path: Path) -> None:
    config = DataConfig("", count=2)
    talk, other = conversations(config, tmp_path)
    assert len(talk.requests) == len(talk.captions) == len(set(talk.pictures)) == 8 and talk != other
    tale, _ = stories(config, tmp_path)
    assert len(tale.captions) == len(tale.pictures) == 5 and tale.captions[0].endswith(".")
    assert len({path.read_bytes() for path in tale.pictures}) == 5
    dialog, _ = dialogs(config, tmp_path)
    assert len(dialog.rounds) == 10 and not any(question.endswith("?") for question, _ in dialog.rounds)
    assert dialog.picture.is_file()


def test_impossible_scenes_have_plans_of_all_their_objects(tmp_path: Path) -> None:
    prompts = impossible(DataConfig("", count=9), tmp_path)
    assert [one.subcategory for one in prompts[:3]] == list(CATEGORIES)
    for one in prompts:
        planned = [thing.name.split() for thing in ScenePlan.from_json(one.plan).objects]
        named = [thing for thing in caption_facts(one.prompt).objects if thing.colour]
        assert len(planned) == len(named)
        for thing in named:
            assert any({thing.colour, thing.shape} <= {*words} for words in planned)
    crowded = [len(ScenePlan.from_json(one.plan).objects) for one in prompts if one.subcategory == "crowded"]
    assert min(crowded) >= 6
    assert impossible(DataConfig("", count=9), tmp_path) == prompts


def test_whole_objects_are_counted_in_drawn_pictures_and_not_in_others(tmp_path: Path) -> None:
    """The committed reader on what the world's renderer draws: nearly all is there, and of other captions little."""
    judge = WholeObjects(ROOT / "miniature" / READER)
    items = captions(DataConfig("", count=12), tmp_path)
    pictures = [item.picture for item in items]
    assert judge(items, pictures)["whole"].value > 0.95
    assert judge(items, pictures[1:] + pictures[:1])["whole"].value < 0.5
    by_category = WholeByCategory(ROOT / "miniature" / READER)
    prompts = [one for one in impossible(DataConfig("", count=3), tmp_path) for _ in range(2)]
    found = by_category(prompts, pictures[:6])
    assert list(found) == [f"whole: {name}" for name in (*sorted(CATEGORIES, key=CATEGORIES.index), "all")]
    assert found["whole: all"].count == sum(
        round(sum(judge.counted(one.prompt, pictures[0])[1:])) for one in prompts
    )
    assert isinstance(items[0], CaptionItem)


def test_the_miniature_paints_a_planned_scene(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / CHECKPOINT)
    plan = impossible(DataConfig("", count=1), tmp_path)[0].plan
    parts = SceneParts(assess=True, guidance=False, suppression=False)
    painter = scene_painter(PainterConfig("x", base=str(tmp_path), steps=2, guidance=2.0, scene=parts))
    (one,) = painter.paint([PaintJob("a", plan, 0, 128, 128)])
    (same,) = painter.paint([PaintJob("a", plan, 0, 128, 128)])
    (other,) = painter.paint([PaintJob("b", plan, 0, 128, 128)])
    assert one.size == (128, 128) and one.tobytes() == same.tobytes() != other.tobytes()
    with pytest.raises(ValueError, match="not valid JSON"):
        painter.paint([PaintJob("a", "a fish", 0, 128, 128)])
    with pytest.raises(ValueError, match="leave 'embedder' out"):
        painter.paint([PaintJob("a", plan, 0, 128, 128, states=torch.zeros(77, 8))])


@pytest.mark.parametrize(
    ("parts", "method"),
    [
        (SceneParts(), "all"),
        (SceneParts(assess=False), "+ suppression"),
        (SceneParts(suppression=False), "guidance"),
        (SceneParts(assess=False, guidance=False, suppression=False), "none"),
    ],
)
def test_the_benchmark_paints_scenes_with_the_settings_of_their_check(parts: SceneParts, method: str) -> None:
    expected = settings_of(method, ScenesConfig(steps=7, cfg=2.0), 16)
    assert scene_settings(16, parts, 7, 2.0) == expected
    assert (expected.phrase, expected.alone_at) == ("sum", "box")


def test_a_scene_is_painted_with_the_settings_that_its_painter_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / CHECKPOINT)
    plan = impossible(DataConfig("", count=1), tmp_path)[0].plan
    parts = SceneParts(assess=True, guidance=False, suppression=False)
    painter = scene_painter(PainterConfig("x", base=str(tmp_path), steps=2, guidance=2.0, scene=parts))
    given = []
    paint = painter.session.paint_image
    monkeypatch.setattr(
        painter.session,
        "paint_image",
        lambda *args, **named: given.append(named["settings"]) or paint(*args, **named),
    )
    painter.paint([PaintJob("a", plan, 0, 128, 128)])
    side = picture_size(load_pipeline(tmp_path / CHECKPOINT).unet)
    assert given == [scene_settings(side // 8, parts, 2, 2.0)]
