"""What an evaluation set's files name and a run does not take is counted in the result, and sessions stay whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.tiny_evaluation import (
    base_folder,
    measure,
    picture,
    settings,
    write_coco,
    write_magicbrush,
    write_masked,
)

from llmga.evaluate.sources import (
    evenly,
    left_out,
    read_coco,
    read_magicbrush,
    read_masked,
    read_visdial,
    read_vist,
    whole_sessions,
)


def test_pictures_without_a_mask_are_counted(tmp_path: Path) -> None:
    write_masked(tmp_path / "set", 3)
    assert left_out(read_masked(tmp_path / "set")) == {}
    (tmp_path / "set" / "Places_0001_mask000.png").unlink()
    items = read_masked(tmp_path / "set")
    assert len(items) == 2 and left_out(items) == {"left out": "1 pictures without a mask"}


def test_a_mask_of_two_pictures_of_one_name_is_refused(tmp_path: Path) -> None:
    write_masked(tmp_path / "set", 2)
    picture(5).save(tmp_path / "set" / "Places_0001.jpg")
    with pytest.raises(
        ValueError, match=r"Places_0001_mask000\.png is the mask of Places_0001\.jpg or of Places_0001\.png"
    ):
        read_masked(tmp_path / "set")


def test_coco_pictures_without_a_caption_are_counted(tmp_path: Path) -> None:
    path = write_coco(tmp_path) / "captions.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] != 4]
    document["images"] = [one for one in document["images"] if one["id"] not in (1, 2)]
    path.write_text(json.dumps(document), encoding="utf-8")
    items = read_coco(tmp_path, "captions.json", "val")
    assert [item.key[-1] for item in items] == ["0", "3"]
    assert left_out(items)["left out"] == (
        "1 pictures without a caption; 2 captioned pictures that 'images' does not list"
    )


def test_a_blank_caption_is_none_and_the_next_one_of_its_picture_is_taken(tmp_path: Path) -> None:
    path = write_coco(tmp_path) / "captions.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    for one in document["annotations"]:
        if one["image_id"] in (1, 4):
            one["caption"] = " \n"
    document["annotations"].append({"id": 10**6, "image_id": 4, "caption": "a late one"})
    path.write_text(json.dumps(document), encoding="utf-8")
    items = read_coco(tmp_path, "captions.json", "val")
    assert [item.key[-1] for item in items] == ["0", "2", "3", "4"] and items[-1].caption == "a late one"
    assert left_out(items) == {"left out": "1 pictures without a caption"}


@pytest.mark.parametrize("what", ["instruction", "description"])
def test_sessions_with_a_blank_turn_are_counted_and_stay_so_for_a_count(tmp_path: Path, what: str) -> None:
    folder = write_magicbrush(tmp_path)
    turns, described = folder / "edit_turns.json", folder / "global_descriptions.json"
    if what == "instruction":
        document = json.loads(turns.read_text(encoding="utf-8"))
        (second,) = [one for one in document if one["output"] == "23-output2.png"]
        second["instruction"] = "\t"
        turns.write_text(json.dumps(document), encoding="utf-8")
    else:
        document = json.loads(described.read_text(encoding="utf-8"))
        document["23"]["23-output2.png"] = ""
        described.write_text(json.dumps(document), encoding="utf-8")
    items = read_magicbrush(folder)
    assert [item.key for item in items] == ["7-output1"]
    line = {"left out": "1 sessions with a turn that lacks an instruction or a description"}
    assert left_out(items) == left_out(evenly(items, 1)) == left_out(whole_sessions(items, 1)) == line


def test_dialogues_with_a_blank_round_are_counted(tmp_path: Path) -> None:
    images = tmp_path / "VisualDialog_val2018"
    images.mkdir()
    for number in (42, 43):
        picture(0).save(images / f"VisualDialog_val2018_{number:012d}.jpg")
    rounds = [{"question": 0, "answer": 0}] * 9
    dialogs = [
        {"image_id": 42, "caption": "a square", "dialog": [*rounds, {"question": 0, "answer": 1}]},
        {"image_id": 43, "caption": "a square", "dialog": [*rounds, {"question": 0, "answer": 0}]},
    ]
    data = {"questions": ["is it blue"], "answers": ["yes", ""], "dialogs": dialogs}
    (tmp_path / "visdial_1.0_val.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    items = read_visdial(tmp_path)
    assert [item.key for item in items] == [f"{43:012d}"]
    assert left_out(items) == {"left out": "1 dialogues that lack a question or an answer"}


def test_stories_that_lack_a_picture_are_counted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for i in range(6):
        picture(i).save(tmp_path / "images" / f"{i}.jpg")
    picture(0).save(tmp_path / "images" / "0.png")

    def story(*names: int) -> list[dict[str, str]]:
        return [{"image_id": str(name), "caption": "x"} for name in names]

    untold = story(1, 2, 3, 4, 0)
    untold[2]["caption"] = " "
    stories = {
        "a": story(0, 1, 2, 3, 4),
        "e": untold,
        "b": story(1, 2, 3, 4, 7),
        "c": story(1, 2),
        "d": story(1, 2, 3, 4, 5),
    }
    (tmp_path / "gill.json").write_text(json.dumps({"annotations": stories}), encoding="utf-8")
    items = read_vist(tmp_path, "gill.json", "images")
    assert [item.key for item in items] == ["a-4", "d-5"]
    assert left_out(items)["left out"].split("; ") == [
        "1 stories that lack a picture in images",
        "1 stories of other than five pictures",
        "1 stories that lack a sentence",
        "1 pictures in images beside another of the same name",
    ]
    assert left_out(read_vist(tmp_path, "gill.json", "images", 1)) == left_out(items)


def test_a_count_of_sessions_keeps_all_of_their_turns(tmp_path: Path) -> None:
    items = read_magicbrush(write_magicbrush(tmp_path))
    assert [item.key for item in whole_sessions(items, 1)] == ["23-output1", "23-output2"]
    assert whole_sessions(items, None) == list(items)


@pytest.mark.usefixtures("one_thread")
def test_what_was_left_out_stands_in_the_conditions_and_iterative_counts_take_sessions(
    tmp_path: Path,
) -> None:
    pytest.importorskip("diffusers", reason="the painters are diffusers'")
    base = base_folder(tmp_path / "base")
    picture(9).save(base / "masked" / "Places_0009.png")
    (filled,) = measure("fill", settings("fill", base), tmp_path / "fill")
    assert filled.conditions["left out"] == "1 pictures without a mask"
    data = {"kind": "magicbrush", "folder": str(base / "magicbrush"), "count": 1}
    config = settings("edit", base, data=data, turns="iterative")
    (edited,) = measure("edit", config, tmp_path / "edit")
    assert "left out" not in edited.conditions and edited.conditions["pictures"] == 1
    assert {path.stem for path in (tmp_path / "edit").rglob("*.png")} == {"23-output1", "23-output2"}
