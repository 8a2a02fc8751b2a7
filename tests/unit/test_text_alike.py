"""Texts that look the same to a person are the same: in phrases of a prompt, in scene plans and in what is encoded."""

from __future__ import annotations

import pytest
from support.tiny_scene import tiny_encoder

from llmga.edit.instruction import kept_share
from llmga.edit.phrases import locate
from llmga.scene.parse import parse_plan
from llmga.scene.plan import SceneBox, SceneObject, ScenePlan
from llmga.scene.prompts import scene_prompt
from llmga.text import clip_tokenizer, plan_prompt
from llmga.text.alike import folded, visible

UNSEEN = ["\u200d", "\u200c", "\u200b", "\u2060", "\ufeff", "\u00ad", "\u200e"]
PAIRS = [
    *((f"a fo{mark}x", "a fox") for mark in UNSEEN),
    ("the caf\u00e9 chair", "the cafe\u0301 chair"),
    ("a\u00a0red\u202ffox", "a red fox"),
    ("the dog\u2019s ball", "the dog's ball"),
    ("a t\u2013rex", "a t-rex"),
    ("an \u0130stanbul cat", "an istanbul cat"),
    ("an ISIK lamp", "an \u0131s\u0131k lamp"),
    ("a STRASSE sign", "a stra\u00dfe sign"),
    ("a \u1e9e sign", "a \u00df sign"),
    ("\u039b\u039f\u0393\u039f\u03a3", "\u03bb\u03cc\u03b3\u03bf\u03c2".replace("\u03cc", "\u03bf")),
    ("a \ufb01sh", "a fish"),
]


def planned(text: str):
    tokenizer = clip_tokenizer()
    tokenize = lambda part: tokenizer(part, add_special_tokens=False, verbose=False).input_ids  # noqa: E731
    return plan_prompt(text, tokenize)


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=ascii)
def test_a_phrase_is_found_however_it_is_spelled(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    for phrase in (one, other):
        for text in (one, other):
            prompt = f"a forest with {text}, running, and a forest"
            assert len(locate(planned(prompt), phrase, "llmga")) == 1, (phrase, text)


def test_what_is_not_seen_joins_a_word_and_no_two_words() -> None:
    (places,) = locate(planned("a fo\u00adx runs"), "fox", "llmga")
    assert len(places) == 2, "its letters, and not the soft hyphen"
    assert locate(planned("a fo\u00adx runs"), "fo", "llmga") == []
    assert locate(planned("a fo \u00ad- x runs"), "fox", "llmga") == []
    assert locate(planned("caf\u00e9"), "cafe", "llmga") == [], (
        "letters with and without an accent are others"
    )


@pytest.mark.parametrize("mark", UNSEEN, ids=ascii)
def test_names_of_a_plan_are_read_and_encoded_as_they_are_seen(mark: str) -> None:
    reply = f'{{"objects": [{{"name": "a fo{mark}x", "box": [0, 0, 0.5, 0.5], "descriptions": ["A fox that {mark}runs"]}}]}}'
    (one,) = parse_plan(reply).plan.objects
    assert (one.name, one.descriptions) == ("a fox", ("that runs",))
    by_hand = SceneObject(f"a fo{mark}x", SceneBox(0, 0, 0.5, 0.5), ("that runs",))
    assert scene_prompt(tiny_encoder(), ScenePlan((by_hand,))) == scene_prompt(
        tiny_encoder(), ScenePlan((one,))
    )
    with pytest.raises(ValueError, match="name must not be empty"):
        SceneObject(f" {mark}", SceneBox(0, 0, 0.5, 0.5))


def test_descriptions_are_put_to_the_names_that_look_the_same() -> None:
    lines = (
        'Objects: [("the dog\u2019s ball", [0, 0, 200, 200]), ("a caf\u00e9", [256, 205, 205, 205])]\n'
        'Descriptions: [("The dog\'s ball", "red"), ("a\u00a0cafe\u0301", "old")]\n'
    )
    objects = parse_plan(lines).plan.objects
    assert [one.descriptions for one in objects] == [("red",), ("old",)]


def test_a_rewrite_in_another_spelling_keeps_its_words() -> None:
    assert kept_share("a caf\u00e9 in the Stra\u00dfe", "a cafe\u0301 in the STRASSE") == 1.0


def test_what_is_seen_stays() -> None:
    text = "\u72d0\u72f8 \u201cA\u201d \U0001f98a \u0939\u093f\u0928\u094d\u0926\u0940\tz"
    assert visible(text) == text
