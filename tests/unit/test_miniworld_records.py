import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from llmga.chat.tags import parse
from llmga.chat.tasks import TASKS
from miniworld.world.captions import description, detailed_caption
from miniworld.world.edits import sample_edit
from miniworld.world.facts import Facts, caption_facts, facts, kept
from miniworld.world.phrases import QUESTIONS, REQUESTS
from miniworld.world.questions import sample_existence, sample_question
from miniworld.world.records import (
    MORE_REQUESTS,
    ONE_LINE,
    RECORD_KINDS,
    covered,
    edited_reply,
    outcome_of,
    room_for,
    sample_hole,
    sample_record,
)
from miniworld.world.render import render
from miniworld.world.scene import PLACES, SHAPES, Scene, Thing, is_unseen_pair, sample_scene

_PLACE = "|".join(sorted(PLACES, key=len, reverse=True))
TAGGED = ("refine", "similar", "inpaint", "outpaint", "edit")
PICTURED = (
    *("similar", "describe", "brief", "inpaint", "outpaint"),
    *("question", "exists", "find", "changes", "outcome"),
)


@pytest.mark.parametrize("kind", RECORD_KINDS)
@pytest.mark.parametrize("held_out", [False, True])
def test_replies_have_their_form_and_keep_what_is_given(kind, held_out: bool) -> None:
    for seed in range(40):
        scene = sample_scene(seed, (1, 5))
        record = sample_record(kind, scene, seed, held_out=held_out, size=64)
        assert record.kind == kind and record.instruction.strip() == record.instruction
        assert not re.search(r"[{}]|\.\.|  ", record.instruction)
        assert all(picture.size == (64, 64) for picture in record.pictures)
        assert bool(record.pictures) == (kind in PICTURED) or kind == "edit"
        first = "[^<>]+" if kind in ("edit", "inpaint", "outpaint") else ""  # what it changes, and the whole
        assert re.fullmatch(rf"{first}<gen_image> [^<>]+ </gen_image>", record.reply) or kind not in TAGGED
        assert "<" not in record.reply or kind in TAGGED
        repeated, stated = kept(record.given, caption_facts(parse(record.reply).prompt or record.reply))
        assert repeated == stated and (
            stated > 0 or kind in ("question", "exists", "find", "changes", "reading", "outcome")
        )


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="refine, imagine"):
        sample_record("juggle", sample_scene(0), 0)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", REQUESTS | ONE_LINE)
def test_requests_are_those_of_the_chat_and_held_out_ones_are_not(kind) -> None:
    scene = sample_scene(4, (2, 2), "train")
    shown = {sample_record(kind, scene, seed, size=32).instruction for seed in range(120)}
    for template in TASKS[kind].phrasings if kind in TASKS else ():
        said = re.escape(template.replace("{instruction}", "").strip())
        assert any(re.search(said, text) for text in shown) or "\n" in template
    new = {sample_record(kind, scene, seed, held_out=True, size=32).instruction for seed in range(20)}
    assert not new & shown
    requests = (REQUESTS | ONE_LINE)[kind]
    assert not set(requests[1]) & {
        *requests[0],
        *MORE_REQUESTS.get(kind, ()),
        *(TASKS[kind].phrasings if kind in TASKS else ()),
    }


def test_held_out_wording_needs_no_new_words() -> None:
    shown: set[str] = set()
    held_out: set[str] = set()
    for seed in range(2400):
        kind = RECORD_KINDS[seed % len(RECORD_KINDS)]
        for wording, words in ((False, shown), (True, held_out)):
            record = sample_record(kind, sample_scene(seed, (1, 5)), seed, held_out=wording, size=32)
            words.update(re.findall(r"[a-z]+", f"{record.instruction} {record.reply}".lower()))
    assert held_out <= shown
    assert len(shown) < 300


def test_wishes_are_refined_without_a_picture_and_tags_are_asked_for() -> None:
    scene = sample_scene(3, (2, 2))
    refined, imagined = (sample_record(kind, scene, 1) for kind in ("refine", "imagine"))
    assert refined.given == imagined.given != facts(scene)
    assert parse(refined.reply).prompt == imagined.reply == detailed_caption(scene, 1, order="wish")


def test_edits_begin_with_the_picture_or_with_its_caption() -> None:
    forms = Counter()
    for seed in range(60):
        scene = sample_scene(seed, (2, 4))
        record = sample_record("edit", scene, seed, size=64)
        forms[bool(record.pictures)] += 1
        if record.pictures:
            assert record.pictures[0].tobytes() == render(scene, 64).image.tobytes()
        else:
            caption = record.instruction.split("\n")[0]
            assert caption_facts(caption) == facts(scene)
        assert record.given != facts(scene)
    assert 6 < forms[False] < forms[True]


@pytest.mark.parametrize("kind", ["inpaint", "outpaint"])
def test_holes_are_black_and_what_they_hide_is_given_only_in_words(kind) -> None:
    missing = wishes = 0
    for seed in range(120):
        scene = sample_scene(seed, (3, 6))
        record = sample_record(kind, scene, seed)
        hole = sample_hole(kind, seed)
        rendering = render(scene)
        picture, whole = np.asarray(record.pictures[0]), np.asarray(rendering.image)
        assert not picture[hole].any() and (picture[~hole] == whole[~hole]).all()
        given = {mention.place for mention in record.given.objects}
        told = caption_facts(record.wish)
        assert record.instruction.endswith(record.wish) and kept(told, record.given)[0] >= len(told.objects)
        wishes += bool(record.wish)
        for thing, visible in zip(scene.objects, rendering.visible, strict=True):
            if not (visible & hole).any():
                assert thing.place in given or scene.behind
            if (visible & hole).sum() > 0.5 * visible.sum():
                assert thing.place not in given - {mention.place for mention in told.objects}
        missing += len(scene.objects) - len(given)
    assert missing > 30
    assert 60 < wishes < 110


def test_outpainting_cuts_sides_and_inpainting_boxes() -> None:
    for seed in range(100):
        border, boxes = sample_hole("outpaint", seed), sample_hole("inpaint", seed)
        assert 0.2 < border.mean() < 0.9 and not border[64, 64]
        assert 0.03 < boxes.mean() < 0.45
        sides = [border[0].all(), border[-1].all(), border[:, 0].all(), border[:, -1].all()]
        assert 1 <= sum(sides) <= 3
    sides = [sum(sample_hole("outpaint", seed)[:, 0].all() for seed in range(100))]
    assert 30 < sides[0] < 80
    assert sample_hole("outpaint", 5, 64).shape == (64, 64)


@pytest.mark.parametrize("kind", ["inpaint", "outpaint"])
def test_the_reply_to_a_hole_says_what_is_there_then_where_it_is_then_what_comes_then_the_whole(kind) -> None:
    settled = 0
    for seed in range(120):
        scene = sample_scene(seed, (3, 6))
        record = sample_record(kind, scene, seed)
        first, _, prompt = record.reply.partition(" <gen_image> ")
        seen, area, *comes, then = first.split(". ")
        middles = covered(sample_hole(kind, seed))
        assert seen.startswith("The picture shows ") and then.startswith("The new picture will show ")
        shown, told = caption_facts(seen), caption_facts(prompt)
        assert shown.background == scene.background
        assert _without_plain(caption_facts(then)) == _without_plain(told)
        places = [mention.place for mention in told.objects]
        assert len({*places}) == len(scene.objects)
        in_order = re.findall(rf"\b(?:at|in) the ({_PLACE})\b", then)
        assert in_order == re.findall(rf"\b(?:at|in) the ({_PLACE})\b", _objects(prompt).lower())
        assert in_order == sorted(places, key=[*PLACES].index)
        # Each object is there already or comes, in the order of the wish; what shows stays, and so does what has a place.
        coming = [caption_facts(sentence).objects[0] for sentence in comes]
        assert _without_plain(Facts((*shown.objects, *coming), shown.background)) == _without_plain(told)
        wished = iter(re.findall("|".join(SHAPES), record.wish))
        assert all(mention.shape in wished for mention in coming) or not record.wish
        assert kept(record.given, told)[0] == kept(record.given, record.given)[0]
        assert area.startswith("The missing area is ")
        named = re.findall(rf"\b(?:at|in) the ({_PLACE})\b", area)
        assert named == sorted({*named}, key=[*PLACES].index)
        assert {*named} - {*middles} <= {one.place for one in coming} <= {*named} >= {*middles}
        moved = {*places} - {thing.place for thing in scene.objects}
        assert moved <= {*middles}
        assert not moved or any(one.place is None for one in caption_facts(record.wish).objects)
        settled += bool(moved)
    assert settled > (15 if kind == "outpaint" else 1)


def test_an_outcome_is_all_of_a_reply_but_its_prompt() -> None:
    kinds = Counter()
    for seed in range(60):
        scene = sample_scene(seed, (2, 5))
        of = outcome_of(seed)
        record = sample_record("outcome", scene, seed, size=64)
        assert record.wish in record.instruction and len(record.pictures) == 1
        if of == "edit":
            edit = sample_edit(scene, seed)
            assert edited_reply(edit, seed, order="reading").startswith(f"{record.reply} <gen_image>")
            assert record.wish == edit.instruction
        else:
            whole = sample_record(of, scene, seed, size=64)
            assert whole.reply.startswith(f"{record.reply} <gen_image>")
            assert (whole.wish, whole.pictures[0].tobytes()) == (record.wish, record.pictures[0].tobytes())
        kinds[of] += 1
    assert min(kinds.values()) > 10 and len(kinds) == 3


def test_what_has_no_place_takes_the_first_free_ones_in_its_order() -> None:
    things = (("star", "bottom"), ("ring", "centre"), ("heart", "top"))
    objects = tuple(Thing(shape, "red", "small", "plain", place) for shape, place in things)
    scene = Scene(objects, "snow", "warm", "left", 0)
    hole = np.ones((128, 128), bool)
    hole[:43, :43] = False  # the top left stays
    assert room_for(["bottom", "top"], scene, hole) == {"bottom": "top", "top": "top right"}
    assert room_for([], scene, hole) == {}


def _without_plain(said: Facts) -> tuple[set[tuple[str | None, ...]], str | None]:
    """What an overview tells: no light, and of a plain texture nothing."""
    things = {(m.size, m.colour, m.shape, m.place, m.texture or "plain") for m in said.objects}
    return things, said.background


def _objects(prompt: str) -> str:
    """The sentences that bring an object, each with its place."""
    return " ".join(part for part in prompt.split(".") if caption_facts(part).objects)


def test_whether_something_is_there_is_asked_of_what_is_not_as_often() -> None:
    answers, near = Counter(), 0
    for seed in range(300):
        scene = sample_scene(seed, (1, 6))
        question, answer = sample_existence(scene, seed, held_out=bool(seed % 2))
        (asked,) = caption_facts(question).objects
        there = any(
            all(wanted in (None, getattr(thing, name)) for name, wanted in vars(asked).items())
            for thing in scene.objects
        )
        assert there == (answer == "Yes.")
        answers[answer] += 1
        near += answer == "No." and any(
            (thing.colour == asked.colour) or (thing.shape == asked.shape) for thing in scene.objects
        )
    assert abs(answers["Yes."] - answers["No."]) < 50 and near > 75


STAR = Thing("star", "red", "large", "striped", "top left")
RING = Thing("ring", "blue", "small", "plain", "right")
TWIN = Thing("ring", "blue", "large", "dotted", "bottom")
SCENE = Scene((STAR, RING, TWIN), "night", "cool", "right", 3)


def test_answers_are_right() -> None:
    expected = {
        "What colour is the star?": "It is red.",
        "What colour is the ring at the right?": "It is blue.",
        "How big is the ring at the bottom?": "It is large.",
        "Is the star plain, striped or dotted?": "It is striped.",
        "Where is the star?": "It is at the top left.",
        "What stands at the top left?": "A large striped red star.",
        "What stands in the centre?": "Nothing.",
        "How many objects are there?": "There are three objects.",
        "How many rings are there?": "There are two rings.",
        "How many stars are there?": "There is one star.",
        "How many hearts are there?": "There are no hearts.",
        "How many blue objects are there?": "There are two blue objects.",
        "Is there a red star?": "Yes.",
        "Is there a green star?": "No.",
        "Is the star to the left of the blue ring at the right?": "Yes.",
        "Is the star to the right of the blue ring at the right?": "No.",
        "What is the background?": "It is the night sky.",
        "Where does the light come from?": "It comes from the right.",
        "Is the light warm or cool?": "It is cool.",
    }
    asked = dict(sample_question(SCENE, seed) for seed in range(6000))
    assert {question: asked[question] for question in expected} == expected


def test_questions_do_not_give_their_answers_away() -> None:
    for seed in range(1500):
        scene = sample_scene(seed, (1, 6))
        question, answer = sample_question(scene, seed)
        if answer.startswith("It is") and " or " not in question:
            assert not re.search(rf"\b{answer[6:-1]}\b", question), (question, answer)


def test_yes_and_no_are_balanced_and_no_unseen_pair_is_denied() -> None:
    answers = Counter()
    for seed in range(3000):
        scene = sample_scene(seed, (1, 6), "train")
        question, answer = sample_question(scene, seed)
        answers[answer] += 1
        if pair := re.search(r"(?:there|show) an? (\w+) (\w+)\?", question):
            assert not is_unseen_pair(pair[1], pair[2])
    assert 0.7 < answers["Yes."] / answers["No."] < 1.4


def test_every_kind_of_question_has_held_out_wordings() -> None:
    for shown, held_out in QUESTIONS.values():
        assert held_out and not set(shown) & set(held_out)
    new = {sample_question(SCENE, seed, held_out=True)[0] for seed in range(300)}
    assert not new & {sample_question(SCENE, seed)[0] for seed in range(3000)}


def test_reading_asks_what_the_caption_says() -> None:
    one = replace(SCENE, objects=(STAR,))
    for seed in range(60):
        record = sample_record("reading", one, seed)
        caption, question = record.instruction.split("\n")
        assert caption_facts(caption) == facts(one) and question.endswith("?")
        if question == "What stands at the top left?":
            assert record.reply.lower() == f"{description(STAR)}."
