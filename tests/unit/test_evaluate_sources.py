"""Evaluation sets are read as they are published, in one order, and what is wrong with them is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_evaluation import picture, write_coco, write_magicbrush, write_masked

from llmga.evaluate.data import DataConfig
from llmga.evaluate.sources import read_coco, read_magicbrush, read_masked, read_visdial, read_vist


def test_coco_gives_the_first_caption_of_each_picture_in_the_order_of_the_ids(tmp_path: Path) -> None:
    items = read_coco(write_coco(tmp_path), "captions.json", "val")
    assert [item.key for item in items] == [f"{i:012d}" for i in range(5)]
    assert [item.caption for item in items][:2] == ["a red square", "a green square"]
    assert [item.key[-1] for item in read_coco(tmp_path, "captions.json", "val", 2)] == ["0", "2"]


def test_masks_find_their_pictures_below_any_folder(tmp_path: Path) -> None:
    write_masked(tmp_path / "thick" / "a", 2)
    write_masked(tmp_path / "thick" / "b", 1)
    items = read_masked(tmp_path)
    assert [item.key for item in items] == [
        f"thick-{name}_mask000" for name in ("a-Places_0000", "a-Places_0001", "b-Places_0000")
    ]
    assert all(item.mask.parent == item.picture.parent for item in items)
    items[0].picture.unlink()
    with pytest.raises(ValueError, match="Places_0000.png is missing"):
        read_masked(tmp_path)


def test_magicbrush_gives_every_turn_with_what_its_target_shows(tmp_path: Path) -> None:
    items = read_magicbrush(write_magicbrush(tmp_path))
    assert [(item.session, item.turn, item.caption) for item in items] == [
        ("23", 1, "a green square"),
        ("23", 2, "a blue square"),
        ("7", 1, "a green square"),
    ]
    assert items[1].source.name == "23-output1.png"
    (tmp_path / "global_descriptions.json").write_text("{}")
    with pytest.raises(ValueError, match="not laid out as MagicBrush"):
        read_magicbrush(tmp_path)


def test_vist_is_read_as_published_and_as_gills_scripts_format_it(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        picture(i).save(tmp_path / "images" / f"{i}.jpg")
    lines = [
        [
            {
                "story_id": "9",
                "photo_flickr_id": str(i),
                "worker_arranged_photo_order": i,
                "original_text": f"part {i}.",
            }
        ]
        for i in (4, 0, 2, 1, 3)
    ]
    lines.append([{**lines[0][0], "story_id": "10"}])  # a story of one picture is none
    formatted = {"annotations": {"9": [{"image_id": str(i), "caption": f"part {i}."} for i in range(5)]}}
    for name, document in (("own.json", {"annotations": lines}), ("gill.json", formatted)):
        (tmp_path / name).write_text(json.dumps(document))
        (story,) = read_vist(tmp_path, name, "images")
        assert story.captions == tuple(f"part {i}." for i in range(5))
        assert [path.stem for path in story.pictures] == list("01234")
    (tmp_path / "images" / "3.jpg").unlink()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        read_vist(tmp_path, "own.json", "images")


def test_visdial_gives_rounds_of_question_and_answer(tmp_path: Path) -> None:
    images = tmp_path / "VisualDialog_val2018"
    images.mkdir()
    picture(0).save(images / "VisualDialog_val2018_000000000042.jpg")
    dialogs = [{"image_id": 42, "caption": "a square", "dialog": [{"question": 1, "answer": 0}] * 10}]
    data = {"questions": ["is it blue", "is it red"], "answers": ["yes"], "dialogs": dialogs}
    (tmp_path / "visdial_1.0_val.json").write_text(json.dumps({"data": data}))
    (item,) = read_visdial(tmp_path)
    assert item.rounds == (("is it red", "yes"),) * 10
    data["answers"] = []
    (tmp_path / "visdial_1.0_val.json").write_text(json.dumps({"data": data}))
    with pytest.raises(ValueError, match="not an annotation file of VisDial"):
        read_visdial(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"captions\.json does not exist"):
        read_coco(tmp_path, "captions.json", "val")
    write_coco(tmp_path)
    (tmp_path / "val" / "COCO_val2014_000000000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"000000000003\.jpg does not exist"):
        read_coco(tmp_path, "captions.json", "val")
    (tmp_path / "captions.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        read_coco(tmp_path, "captions.json", "val")
    (tmp_path / "captions.json").write_text('{"images": [{}], "annotations": []}')
    with pytest.raises(ValueError, match="not an annotation file of COCO"):
        read_coco(tmp_path, "captions.json", "val")


@pytest.mark.parametrize("count", [0, -3])
def test_a_count_below_one_is_refused_for_every_kind(count: int) -> None:
    """A function of somebody's own may take 0 for 'not given', and measure everything."""
    with pytest.raises(ValueError, match=f"'count' must be at least 1, or null for all, got {count}"):
        DataConfig("package.module:function", count=count)


def test_odd_sets_are_named(tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"image_id": 1, "id": 1, "caption": None}],
    }
    (tmp_path / "captions.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ValueError, match="captions.json is not an annotation file of COCO captions"):
        read_coco(tmp_path, "captions.json", ".")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_masked(tmp_path / "nowhere")
    (tmp_path / "a_mask.png").touch()
    (tmp_path / "a.bmp").touch()
    with pytest.raises(ValueError, match=r"a\.png is missing beside it \(or \.jpg, \.jpeg, \.webp\)"):
        read_masked(tmp_path)
