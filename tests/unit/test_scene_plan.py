"""The scene plan as a value: saved, separated, drawn, and in ComfyUI's own types."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llmga.scene.draw import draw_plan, object_colour
from llmga.scene.elements import from_bounding_boxes, to_bounding_boxes, to_elements
from llmga.scene.parse import ScenePlanError
from llmga.scene.plan import MAX_OBJECTS, SMALLEST_SIDE, SceneBox, SceneObject, ScenePlan, separated

PLAN = ScenePlan(
    (
        SceneObject("a red fox", SceneBox(0.1, 0.5, 0.4, 0.4), ("running, its tail up", "alert", "old")),
        SceneObject("an owl", SceneBox(0.55, 0.1, 0.3, 0.3), ("asleep",)),
    ),
    "a snowy forest at dawn",
    "snow fox",
    "a fox runs below a sleeping owl",
)


def random_plan(seed: int, objects: int) -> ScenePlan:
    draw = random.Random(seed)
    boxes = []
    for _ in range(objects):
        width, height = draw.uniform(0.05, 0.7), draw.uniform(0.05, 0.7)
        boxes.append(SceneBox(draw.uniform(0, 1 - width), draw.uniform(0, 1 - height), width, height))
    return ScenePlan(tuple(SceneObject(f"thing {i}", box) for i, box in enumerate(boxes)))


def test_a_plan_survives_json_and_a_file(tmp_path: Path) -> None:
    assert ScenePlan.from_json(PLAN.to_json()) == PLAN
    for seed in range(50):
        plan = random_plan(seed, seed % MAX_OBJECTS)
        assert ScenePlan.from_json(plan.to_json()) == plan
    PLAN.save(tmp_path / "scenes" / "fox.json")
    assert ScenePlan.load(tmp_path / "scenes" / "fox.json") == PLAN
    (tmp_path / "other.json").write_text('{"format": "llmga-conversation", "version": 1}')
    with pytest.raises(ValueError, match=r"other.json: it is not a scene plan"):
        ScenePlan.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"objects": {}}, "must be a list"),
        ({"objects": [7]}, "object 1 of a scene plan must be a JSON object"),
        (
            {"objects": [{"name": "a", "box": [0, 0, 1]}]},
            r"the box of object 1 must be \[x, y, width, height\]",
        ),
        ({"objects": [{"name": "a", "box": [0, 0, 1, math.inf]}]}, "four finite numbers"),
        ({"objects": [{"name": "a", "box": [0, 0, 1, True]}]}, "four finite numbers"),
        ({"objects": [{"name": "a", "box": [0.5, 0, 0.6, 1]}]}, "must lie in the picture"),
        ({"objects": [{"name": "a", "box": [0.5, 0, 0, 1]}]}, "must be at least"),
        ({"objects": [{"name": " ", "box": [0, 0, 1, 1]}]}, "name must not be empty"),
        (
            {"objects": [{"name": "a", "box": [0, 0, 1, 1], "descriptions": ["x"] * 4}]},
            "at most 3 descriptions",
        ),
        ({"objects": [{"name": "a", "box": [0, 0, 1, 1], "descriptions": "x"}]}, "must be a list of texts"),
        ({"objects": [{"name": "a", "box": [0, 0, 1, 1]}] * (MAX_OBJECTS + 1)}, "at most 12 objects"),
        ({"background": None}, "the background must be text"),
        ({"negative": "x" * 5000}, "the negative holds 5000 characters"),
    ],
)
def test_a_plan_that_somebody_broke_is_refused_with_a_reason(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ScenePlan.from_dict({**PLAN.to_dict(), **change})
    for text in ("", "{", "[" * 100_000):
        with pytest.raises(ValueError, match="is not valid JSON"):
            ScenePlan.from_json(text)


@pytest.mark.parametrize("objects", [2, 4, 8, 12])
def test_boxes_are_moved_apart(objects: int) -> None:
    for seed in range(40):
        plan = random_plan(seed, objects)
        apart, notes = separated(plan)
        boxes = [one.box for one in apart.objects]
        for i, a in enumerate(boxes):
            for b in boxes[:i]:
                assert (
                    min(a.overlap(b)) <= 1e-5
                    or min(a.width, a.height, b.width, b.height) < 2.1 * SMALLEST_SIDE
                )
        assert [one.name for one in apart.objects] == [one.name for one in plan.objects]
        smaller = [
            one.name
            for one, old in zip(apart.objects, plan.objects, strict=True)
            if one.box.width * one.box.height < old.box.width * old.box.height * 0.995
        ]
        assert [note.partition(":")[0] for note in notes] == smaller
        assert separated(apart)[0] == apart, "what does not overlap is left alone"


def test_boxes_without_any_room_are_named() -> None:
    box = SceneBox(0.5, 0.5, SMALLEST_SIDE, SMALLEST_SIDE)
    apart, notes = separated(ScenePlan(tuple(SceneObject(f"star {i}", box) for i in range(12))))
    left = [
        one.name
        for i, one in enumerate(apart.objects)
        if any(min(one.box.overlap(other.box)) > 1e-5 for other in apart.objects[:i])
    ]
    assert left, "nothing overlaps: this test would see nothing"
    assert [note.partition(":")[0] for note in notes if "still overlaps that of star" in note] == left


def test_boxes_with_room_keep_their_size() -> None:
    plan = ScenePlan(
        (
            SceneObject("left", SceneBox(0.2, 0.3, 0.35, 0.4)),
            SceneObject("right", SceneBox(0.45, 0.3, 0.35, 0.4)),
        )
    )
    apart, notes = separated(plan)
    assert notes == ()
    assert [one.box.width for one in apart.objects] == [0.35, 0.35]
    assert apart.objects[0].box.right <= apart.objects[1].box.x + 1e-6


def test_comfyui_boxes_and_elements_bring_the_plan_back() -> None:
    boxes = to_bounding_boxes(PLAN, 512, 768)
    assert {type(boxes[0][key]) for key in ("x", "y", "width", "height")} == {int}
    assert boxes[0] == {
        "x": 51,
        "y": 384,
        "width": 205,
        "height": 307,
        "metadata": {"type": "obj", "text": "", "desc": "a red fox, running, its tail up", "palette": []},
    }
    elements = to_elements(PLAN)
    assert elements[1] == {"type": "obj", "bbox": [100, 550, 400, 850], "desc": "an owl, asleep"}
    forms = [boxes, [boxes], json.dumps(boxes), elements, json.dumps(elements)]
    for given in forms:
        back = from_bounding_boxes(given, 512, 768, PLAN.background, PLAN.negative).plan
        assert [one.name for one in back.objects] == ["a red fox", "an owl"]
        assert back.objects[0].descriptions == ("running, its tail up",)
        assert (back.background, back.negative) == (PLAN.background, PLAN.negative)
        for one, old in zip(back.objects, PLAN.objects, strict=True):
            assert one.box.x == pytest.approx(old.box.x, abs=2e-3)
            assert one.box.bottom == pytest.approx(old.box.bottom, abs=2e-3)
    assert len(from_bounding_boxes(boxes[0], 512, 768).plan.objects) == 1


@pytest.mark.parametrize(
    "boxes",
    [
        *([], "[", "7", [7], None),
        [{"x": 1, "y": 1, "metadata": {"desc": "a"}}],
        [{"x": 0, "y": 0, "width": 9, "height": 9}],
    ],
)
def test_boxes_that_are_none_are_refused(boxes: object) -> None:
    with pytest.raises(ScenePlanError):
        from_bounding_boxes(boxes, 512, 512)


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ({"x": 1, "label": "a car"}, "object 2 (a car): its \"box\" holds 'None', which is not a number"),
        ({"x": None, "y": 0, "width": 9, "height": 9, "label": "a car"}, "'None', which is not a number"),
        ("a car", "1 of 2 boxes are not a BOUNDING_BOX, and were left out"),
    ],
)
def test_one_bad_box_does_not_lose_the_others(bad: object, note: str) -> None:
    for boxes in ([named_box(0, 0, 256, 256), bad], (named_box(0, 0, 256, 256), bad)):
        parsed = from_bounding_boxes(boxes, 512, 512)
        assert [one.name for one in parsed.plan.objects] == ["a fox"] and note in parsed.notes[0]


def test_a_name_ends_at_a_chinese_comma_too() -> None:
    one = from_bounding_boxes([named_box(0, 0, 9, 9, "红狐，跳跃, 橙色")], 512, 512).plan.objects[0]
    assert (one.name, one.descriptions) == ("红狐", ("跳跃, 橙色",))


def named_box(x: float, y: float, width: float, height: float, desc: str = "a fox") -> dict:
    return {"x": x, "y": y, "width": width, "height": height, "metadata": {"desc": desc}}


def test_boxes_of_a_larger_canvas_are_refused_and_no_grid_is_guessed() -> None:
    drawn = [named_box(100, 100, 300, 300), named_box(600, 500, 400, 400, "an owl")]
    words = r"the boxes reach to 1000×900, and width and height are 512×512; set these to the size"
    with pytest.raises(ScenePlanError, match=words):
        from_bounding_boxes(drawn, 512, 512)
    with pytest.raises(ScenePlanError, match=r"reach to 1e\+300×300"):
        from_bounding_boxes([named_box(0, 0, 1e300, 300)], 512, 512)
    assert from_bounding_boxes(drawn, 1024, 1024).notes == ()
    over = from_bounding_boxes([named_box(100, 100, 500, 300)], 512, 512)
    assert over.plan.objects[0].box.right == 1
    assert over.notes == ("a fox: its box was clamped into the picture",)
    partly = from_bounding_boxes(
        [named_box(0, 0, math.nan, 9), named_box(0, 0, 256, 256, "an owl")], 512, 512
    )
    assert partly.plan.objects[0].box == SceneBox(0, 0, 0.5, 0.5) and "not finite" in partly.notes[0]


def test_elements_of_one_corner_are_on_their_own_grid() -> None:
    """Elements count to 1000, also where no number is beyond 100 or 512."""
    for side in (90, 500, 1000):
        plan = ScenePlan((SceneObject("a fox", SceneBox(0, 0, side / 1000, side / 1000)),))
        back = from_bounding_boxes(to_elements(plan), 512, 512)
        assert back.plan.objects == plan.objects and back.notes == ()


def test_boxes_of_a_detector_are_named_by_their_label() -> None:
    found = [{"x": 10.5, "y": 20, "width": 100, "height": 200, "label": "dog", "score": 0.9}]
    dog = from_bounding_boxes([found], 512, 512)
    assert [one.name for one in dog.plan.objects] == ["dog"] and dog.notes == ()
    several = from_bounding_boxes([found, found, []], 512, 512)
    assert several.plan == dog.plan
    assert several.notes == ("the boxes of the first of 3 pictures were taken",)
    bare = {"x": 0, "y": 0, "width": 9, "height": 9}
    for unnamed in (bare, {**bare, "metadata": {"desc": " ", "text": ""}}, {**bare, "label": ", old"}):
        with pytest.raises(ScenePlanError, match='box 1 does not name .* its "desc", "text" or "label"'):
            from_bounding_boxes([[unnamed]], 512, 512)
        some = from_bounding_boxes([*found, unnamed], 512, 512)
        assert some.plan == dog.plan and len(some.notes) == 1
        assert some.notes[0].startswith("box 2 does not name its object") and "left out" in some.notes[0]


def test_a_plan_is_drawn_where_its_boxes_are() -> None:
    drawn = draw_plan(PLAN, 200, 100)
    assert drawn.shape == (1, 100, 200, 3) and drawn.dtype == torch.float32
    for number, one in enumerate(PLAN.objects):
        colour = torch.tensor(object_colour(number)) / 255
        bottom = round(one.box.bottom * 100) - 1
        line = drawn[0, bottom - 1, round((one.box.x + 0.1) * 200) : round((one.box.right - 0.1) * 200)]
        assert (line - colour).abs().max() < 0.02
    picture = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 8, 12)
    masks[1] = 1
    bare = replace(PLAN, objects=())
    assert torch.allclose(draw_plan(bare, 96, 64, picture), picture * 0.45, atol=0.01)
    tinted = draw_plan(PLAN, 96, 64, picture, masks)
    assert tinted.shape == (1, 64, 96, 3) and (tinted - draw_plan(PLAN, 96, 64, picture)).abs().max() > 0.1
