"""Scene plans out of replies: well written, badly written, cut off, and hostile."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import Any

import pytest
from support.work import grows_linearly

from llmga.files.lenient_json import read_lenient
from llmga.scene.parse import ScenePlanError, parse_plan
from llmga.scene.plan import MAX_OBJECTS, SceneBox, ScenePlan

GOOD = {
    "objects": [
        {
            "name": "a snail",
            "box": [0.5, 0.4, 0.4, 0.4],
            "descriptions": ["fast, it's far ahead", "old", "calm"],
        },
        {"name": "a racing car", "box": [0.05, 0.5, 0.4, 0.3], "descriptions": ["slow", "smoking", "beaten"]},
    ],
    "background": "a race track",
    "negative": "rain",
}
RFNET = """Objects: [('a snail', [256, 205, 205, 205]), ('a racing car', [26, 256, 205, 154])]
Descriptions: [('a snail', 'fast, it's far ahead'), ('A racing car', 'slow')]
More Description: [[('a snail', 'old'), ('a racing car', 'smoking')], [('a snail', 'calm'), ('a racing car', 'beaten')]]
Background prompt: a race track
Negative prompt: rain
"""


def with_boxes(*boxes: Any, key: str = "box") -> str:
    objects = [
        {"name": name, key: box} for name, box in zip(("a snail", "a car", "a tree"), boxes, strict=False)
    ]
    return json.dumps({"objects": objects, "background": "", "negative": ""})


def good_in_other_forms() -> dict[str, str]:
    text = json.dumps(GOOD)
    return {
        "json": text,
        "indented": json.dumps(GOOD, indent=2),
        "fenced": f"Here is the plan you asked for:\n```json\n{text}\n```\nShall I change anything?",
        "python": str(GOOD),
        "thought": f'<think>{{"objects": []}} Let me see [1, 2].</think>{text}',
        "prose with brackets": f"The snail [fast!] wins. {{ok}} {text}",
        "wrapped": json.dumps({"scene": GOOD}),
        "trailing commas": text.replace("]", ",]").replace("}", ",}"),
        "comments": text.replace('"background"', '// the place\n "background"'),
        "curly quotes": text.replace('"', "”").replace("{”", "{“").replace(" ”", " “").replace("[”", "[“"),
        "upper keys": text.replace('"objects"', '"Objects"').replace('"box"', '"BOX"'),
        "Chinese commas and colons": text.replace('": ', '"：')
        .replace('], "', ']，"')
        .replace("0.4, ", "0.4，"),
        "cut at the end": text[:-2],
        "names as keys": json.dumps({**GOOD, "objects": {o["name"]: o for o in GOOD["objects"]}}),
        "one description": text,
        "rfnet": RFNET,
        "rfnet with markdown": RFNET.replace("Objects:", "**Objects:**").replace(
            "Background", "- Background"
        ),
    }


@pytest.mark.parametrize("form", good_in_other_forms())
def test_the_same_plan_in_any_form(form: str) -> None:
    plan = parse_plan(good_in_other_forms()[form], "a snail overtakes a car").plan
    assert [one.name for one in plan.objects] == ["a snail", "a racing car"]
    assert plan.objects[0].box.x == pytest.approx(0.5, abs=2e-3)
    assert plan.objects[1].box.bottom == pytest.approx(0.8, abs=2e-3)
    assert plan.objects[0].descriptions == ("fast, it's far ahead", "old", "calm")
    assert plan.prompt == "a snail overtakes a car"
    assert plan.background == "a race track"
    assert plan.negative.rstrip("”") in ("rain", 'rain"')


@pytest.mark.parametrize("form", good_in_other_forms())
def test_only_a_reply_that_is_not_closed_is_said_to_be_cut_off(form: str) -> None:
    notes = parse_plan(good_in_other_forms()[form]).notes
    assert any("cut off" in note for note in notes) == (form == "cut at the end")


def test_what_a_cut_off_plan_is_without_is_noted() -> None:
    text = json.dumps(GOOD)
    cases = {
        text[: text.index("a racing car") + 4]: "no background and no negative prompt",
        text[: text.index('"background"')]: "no background and no negative prompt",
        "```json\n" + text[: text.index('"negative"')] + "\n```": "no negative prompt",
        json.dumps(GOOD["objects"])[:-60]: "no background and no negative prompt",
        RFNET[: RFNET.index("('a racing car'")]: "no background and no negative prompt",
        RFNET[: RFNET.index("'beaten'")]: "no background and no negative prompt",
    }
    for reply, words in cases.items():
        parsed = parse_plan(reply)
        (note,) = [note for note in parsed.notes if "the reply was cut off" in note]
        assert f"and it has {words}; raise max_new_tokens" in note, reply
    assert ", and it has" not in parse_plan(text[:-2]).notes[0]
    assert parse_plan(RFNET.replace("154])]", "154])")).notes == parse_plan(RFNET).notes, (
        "a bracket lost within"
    )


@pytest.mark.parametrize(
    ("boxes", "note"),
    [
        ([[0.5, 0.25, 0.25, 0.5], [0.0, 0.0, 0.2, 0.2]], ""),
        ([[50, 25, 25, 50], [0, 0, 20, 20]], "grid of 100"),
        ([[256, 128, 128, 256], [0, 0, 102, 102]], "grid of 512"),
        ([[500, 250, 250, 500], [0, 0, 200, 200]], "grid of 1000"),
        ([["50%", "25%", "25%", "50%"], [0, 0, 20, 20]], "grid of 100"),
        ([{"x": 0.5, "y": 0.25, "width": 0.25, "height": 0.5}, {"x": 0, "y": 0, "w": 0.2, "h": 0.2}], ""),
        ([{"x1": 0.5, "y1": 0.25, "x2": 0.75, "y2": 0.75}, [0, 0, 0.2, 0.2]], ""),
        ([[0.5, 0.25, 0.75, 0.75], [0, 0, 0.2, 0.2]], "left, top, right, bottom"),
        ([[[0.5, 0.25], [0.25, 0.5]], [0, 0, 0.2, 0.2]], ""),
    ],
)
def test_boxes_on_any_grid_and_in_any_order(boxes: list, note: str) -> None:
    parsed = parse_plan(with_boxes(*boxes))
    first, second = (one.box for one in parsed.plan.objects)
    assert first == SceneBox(0.5, 0.25, 0.25, 0.5)
    assert (second.x, second.y) == (0, 0) and second.width == pytest.approx(0.2, abs=1e-3)
    assert note in " ".join(parsed.notes) and bool(note) == bool(parsed.notes)


def test_the_boxes_of_other_formats() -> None:
    element = parse_plan(with_boxes([250, 500, 750, 750], key="bbox")).plan
    qwen = parse_plan(with_boxes([500, 250, 750, 750], key="bbox_2d")).plan
    assert element.objects[0].box == SceneBox(0.5, 0.25, 0.25, 0.5) == qwen.objects[0].box
    gemini = parse_plan(json.dumps([{"box_2d": [250, 500, 750, 750], "label": "a snail"}])).plan
    assert gemini.objects == element.objects


@pytest.mark.parametrize("most", [80, 400, 900])
def test_an_element_is_on_its_grid_wherever_it_is(most: int) -> None:
    parsed = parse_plan(with_boxes([0, most // 2, most, most], key="bbox"))
    box = parsed.plan.objects[0].box
    assert (box.x, box.right, box.bottom) == pytest.approx((most / 2000, most / 1000, most / 1000))
    assert parsed.notes == ("the boxes were read as top, left, bottom, right on a grid of 1000",)


@pytest.mark.parametrize("odd", [[0.5, 0.2, 30, 0.4], [512, 200, 300, 400], ["50%", "20%", "30%", "40%"]])
def test_a_box_that_is_counted_otherwise_leaves_the_others_as_they_are(odd: list) -> None:
    for boxes in ([[0.1, 0.1, 0.3, 0.3], odd], [odd, [0.1, 0.1, 0.3, 0.3]]):
        parsed = parse_plan(with_boxes(*boxes))
        assert SceneBox(0.1, 0.1, 0.3, 0.3) in [one.box for one in parsed.plan.objects]
        name = ("a snail", "a car")[boxes.index(odd)]
        assert any(note.startswith(f"the box of {name} was read as on a grid of") for note in parsed.notes)


def test_a_box_of_parts_that_reaches_far_out_is_clamped() -> None:
    plan = parse_plan(with_boxes([0.9, 0.9, 0.8, 0.8], [0.1, 0.1, 0.3, 0.3])).plan
    first, second = (one.box for one in plan.objects)
    assert (first.x, first.y, first.right, first.bottom) == pytest.approx((0.9, 0.9, 1, 1))
    assert second == SceneBox(0.1, 0.1, 0.3, 0.3)


def test_what_is_left_out_of_a_reply_is_noted() -> None:
    objects = [{"name": "a snail", "box": [0, 0, 0.5, 0.5]}, "a racing car"]
    assert parse_plan(json.dumps({"objects": objects})).notes == (
        "objects without a box were left out: 'a racing car'",
    )
    text = json.dumps(GOOD)
    assert parse_plan(f"{text} Or better: {text}").notes == (
        "the reply holds 2 plans, of which the first was taken",
    )


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ("0.1, 0.1, 0.2, 0.2", "its \"box\" is '0.1, 0.1, 0.2, 0.2' instead of four numbers"),
        ({"cx": 0.5, "cy": 0.5, "w": 0.1, "h": 0.1}, 'its "box" holds cx, cy, w, h instead of x, y, width'),
    ],
)
def test_a_box_in_another_form_is_named(box: Any, words: str) -> None:
    with pytest.raises(ScenePlanError, match=words):
        parse_plan(with_boxes(box))


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ("NaN", "is 'NaN' instead of four numbers"),
        ([0, 0, 1], "3 numbers instead of four"),
        ([0, 0, float("nan"), 1], "not finite"),
        ([0, 0, float("inf"), 1], "not finite"),
        ([0, 0, 10**9, 10**9], "beyond any picture"),
        ([0, 0, 10**400, 1], "not finite|not a number|beyond"),
        ([0.2, 0.2, 0, 0.5], "no width"),
        ([0.2, 0.2, -0.1, 0.5], "no width"),
        ([-0.5, 0, 0.3, 0.5], "outside"),
        ([True, 0, 1, 1], "not a number"),
        ([0, 0, "wide", 1], "'wide', which is not a number"),
        (None, "is 'None' instead of four numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_named_and_the_others_stay(box: Any, words: str) -> None:
    with pytest.raises(ScenePlanError, match=rf"object 1 \(a snail\): .*({words})"):
        parse_plan(with_boxes(box))
    parsed = parse_plan(with_boxes(box, [0.5, 0.5, 0.3, 0.3]))
    assert [one.name for one in parsed.plan.objects] == ["a car"]
    assert any("a snail" in note and "left out" in note for note in parsed.notes)


def test_a_box_that_leaves_the_picture_is_clamped_and_that_is_said() -> None:
    parsed = parse_plan(with_boxes([-0.2, 0.5, 0.5, 0.7], [0, 0, 0.2, 0.2]))
    assert parsed.plan.objects[0].box == SceneBox(0, 0.5, 0.3, 0.5)
    assert parsed.notes == ("a snail: its box was clamped into the picture",)


def test_more_objects_than_a_plan_holds_are_counted() -> None:
    many = [{"name": f"thing {i}", "box": [0, 0, 0.5, 0.5]} for i in range(400)]
    parsed = parse_plan(json.dumps({"objects": many}))
    assert len(parsed.plan.objects) == MAX_OBJECTS
    assert "12 of 400 objects" in parsed.notes[0] and "thing 12" in parsed.notes[0]
    long = {"name": "x" * 500, "box": [0, 0, 1, 0.5], "descriptions": ["y" * 5000, "a", "b", "c", "d"]}
    notes = parse_plan(json.dumps({"objects": [long]})).notes
    assert [" was cut from " in note or "first 3 of 5" in note for note in notes] == [True] * 3


@pytest.mark.parametrize(
    "reply",
    ["", "I cannot help with that.", "{}", "[]", "[1, 2]", '{"objects": []}', '{"objects": [{}]}', "{" * 5000, '{"a' * 3000,
     "[" * 90_000, "'" * 90_000, '"\\', '{"objects": [{"name": "\ud800", "box": 1}]}', "Objects: [", "Objects:", "\0" * 100]
)  # fmt: skip
def test_a_reply_without_a_plan_says_so(reply: str) -> None:
    with pytest.raises(ScenePlanError):
        parse_plan(reply)


@pytest.mark.parametrize("filler", ["[", "{", "'", "a ", "{'a': ", "# ", "/*", "-", "1", "\\"])
def test_reading_takes_time_in_proportion(filler: str) -> None:
    assert grows_linearly(_tries, lambda n: (filler * n)[:n], 40_000)


def _tries(text: str) -> None:
    with suppress(ScenePlanError):
        parse_plan(text)


def scrambled(seed: int) -> str:
    """A reply as a small model may write it: a plan in some form, with words lost, doubled, cut, and numbers changed."""
    draw = random.Random(seed)
    text = draw.choice(list(good_in_other_forms().values()))
    numbers = [
        "NaN",
        "-1",
        "1e9",
        "1000000000",
        "-0.0",
        "Infinity",
        "0",
        "1e400",
        "٣",
        "0x10",
        "1_0",
        "5.",
        ".5",
        "--3",
        "null",
    ]
    marks = [
        "{",
        "}",
        "[",
        "]",
        "(",
        ")",
        '"',
        "'",
        ",",
        ":",
        "\\",
        "\n",
        "\0",
        "\ud83d",
        "😀",
        "```",
        "<think>",
        "objects",
        "</think>",
    ]
    for _ in range(draw.randrange(8)):
        at, length = draw.randrange(len(text) + 1), draw.randrange(1, 30)
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:at] + text[at + length :]
        elif kind == 1:
            text = text[:at] + text[at : at + length] * draw.randrange(2, 50) + text[at + length :]
        elif kind == 2:
            text = text[:at] + draw.choice(marks) * draw.choice([1, 1, 2, 500]) + text[at:]
        elif kind == 3:
            text = text[:at]
        else:
            digits = [i for i, c in enumerate(text) if c.isdigit()]
            if digits:
                i = draw.choice(digits)
                text = text[:i] + draw.choice(numbers) + text[i + 1 :]
    return text


def test_characters_written_as_escapes_are_read_as_strict_json_reads_them() -> None:
    name = "🦊 a red fox, Füchsin"
    written = json.dumps({"objects": [{"name": name, "box": [0.1, 0.1, 0.5, 0.5]}]})
    assert "\\ud83e\\udd8a" in written
    assert parse_plan(written).plan.objects[0].name == name
    for text in ("🦊", "é🦊🦉", "\ud83e alone", "\udd8a\ud83e", "\ufeff🦊"):
        assert read_lenient(json.dumps(text)) == (text, len(json.dumps(text)))


def test_two_thousand_scrambled_replies_raise_nothing_but_their_own_error() -> None:
    read = 0
    for seed in range(2000):
        try:
            plan = parse_plan(scrambled(seed), "a snail").plan
        except ScenePlanError:
            continue
        read += 1
        assert ScenePlan.from_json(plan.to_json()) == plan  # every number is finite, every text can be saved
        plan.to_json().encode("utf-8")
        assert 1 <= len(plan.objects) <= MAX_OBJECTS
    assert 1000 < read < 2000
