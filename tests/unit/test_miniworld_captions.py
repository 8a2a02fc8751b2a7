import re
from dataclasses import replace
from functools import lru_cache

import pytest

from llmga.text.tokenizer import clip_tokenizer
from miniworld.world.captions import (
    counted,
    detailed_caption,
    enumerated,
    reference,
    relation,
    short_caption,
    vague_caption,
)
from miniworld.world.facts import Facts, Mention, caption_facts, facts
from miniworld.world.scene import PLACES, SHAPES, Scene, Thing, sample_scene

SCENES = [sample_scene(seed, (seed % 8 + 1, seed % 8 + 1)) for seed in range(800)]
BOTH = pytest.mark.parametrize("held_out", [False, True])


@lru_cache(maxsize=1)
def tokenizer():
    return clip_tokenizer()


def token_ids(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False, verbose=False).input_ids


def said_in_short(scene: Scene) -> Facts:
    objects = (
        replace(mention, texture=None if mention.texture == "plain" else mention.texture)
        for mention in facts(scene).objects
    )
    return Facts(tuple(objects), scene.background)


@BOTH
def test_captions_say_the_facts_and_nothing_else(held_out: bool) -> None:
    for seed, scene in enumerate(SCENES):
        assert caption_facts(short_caption(scene, seed, held_out=held_out)) == said_in_short(scene)
        assert caption_facts(detailed_caption(scene, seed, held_out=held_out)) == facts(scene)


@BOTH
def test_detailed_captions_have_80_to_200_tokens_and_end_late(held_out: bool) -> None:
    for seed, scene in enumerate(SCENES):
        ids = token_ids(detailed_caption(scene, seed, held_out=held_out))
        assert 80 <= len(ids) <= 200
        if len(scene.objects) > 1:
            # The 77 positions of one CLIP window hold 75 tokens of text.
            read = caption_facts(tokenizer().decode(ids[:75]))
            assert not set(facts(scene).objects) <= set(read.objects)


def test_the_first_object_is_named_early_as_often_as_late() -> None:
    early = 0
    for seed in range(300):
        scene = sample_scene(seed, (1, 1))
        early += bool(caption_facts(detailed_caption(scene, seed)[:150]).objects)
    assert 100 < early < 200


def test_objects_come_row_by_row_or_as_the_wish_names_them() -> None:
    where = rf"\b(?:at|in) the ({'|'.join(sorted(PLACES, key=len, reverse=True))})\b"

    def named(text: str) -> list[str]:
        """The places of objects that are introduced; a relation begins with "The star"."""
        sentences = [
            said for said in text.split(". ") if not re.match(rf"The [a-z ]*({'|'.join(SHAPES)})", said)
        ]
        return re.findall(where, ". ".join(sentences).lower())

    late = 0
    for seed, scene in enumerate(SCENES[:200]):
        rows = [place for place in PLACES if any(thing.place == place for thing in scene.objects)]
        assert named(short_caption(scene, seed, order="reading")) == rows
        text = detailed_caption(scene, seed, order="reading")
        assert named(text) == rows and caption_facts(text) == facts(scene)
        assert named(detailed_caption(scene, seed, order="wish")) == named(short_caption(scene, seed))
        wished = named(vague_caption(scene, seed))
        assert wished == [place for place in named(short_caption(scene, seed)) if place in wished]
        late += len(caption_facts(text[:150]).objects) < len(scene.objects)
    assert late > 150


def test_few_words_and_held_out_captions_need_no_others() -> None:
    shown: set[int] = set()
    held_out: set[int] = set()
    for seed, scene in enumerate(SCENES):
        texts = (short_caption(scene, seed), detailed_caption(scene, seed), vague_caption(scene, seed))
        shown.update(*(token_ids(text) for text in texts))
        texts = (short_caption(scene, seed, held_out=True), detailed_caption(scene, seed, held_out=True))
        held_out.update(*(token_ids(text) for text in texts))
    assert held_out <= shown
    assert len(shown) < 200


def test_held_out_captions_are_made_of_held_out_sentences() -> None:
    for number, scene in enumerate(SCENES[:24]):
        shown = {detailed_caption(scene, seed) for seed in range(60)}
        shown_sentences = {sentence for text in shown for sentence in _sentences(text)}
        short = {short_caption(scene, seed) for seed in range(60)}
        assert len(shown) > 55 and len(short) > 3
        for seed in range(20):
            assert not _sentences(detailed_caption(scene, seed, held_out=True)) & shown_sentences, number
            assert short_caption(scene, seed, held_out=True) not in short


def _sentences(text: str) -> set[str]:
    return set(re.split(r"(?<=\.) ", text))


def test_prose_is_well_formed() -> None:
    for seed, scene in enumerate(SCENES):
        for held_out in (False, True):
            text = detailed_caption(scene, seed, held_out=held_out)
            assert all(part[0].isupper() and part.endswith(".") for part in _sentences(text))
            assert not re.search(r"  | [.,]|[{}]|\ba [aeiou]", text)


def test_the_same_seed_says_the_same_and_another_something_else() -> None:
    scene = SCENES[3]
    for write in (short_caption, detailed_caption, vague_caption):
        assert write(scene, 1) == write(scene, 1)
        assert len({write(scene, seed) for seed in range(40)}) > 5


def test_vague_captions_say_some_of_it_and_only_what_is_true() -> None:
    for seed, scene in enumerate(SCENES[:200]):
        said = caption_facts(vague_caption(scene, seed))
        whole = facts(scene)
        assert sorted(mention.shape for mention in said.objects) == sorted(
            thing.shape for thing in scene.objects
        )
        for mention in said.objects:
            assert any(_agrees(mention, other) for other in whole.objects)
        assert said.background in (None, whole.background) and said.tone is said.light is None
    lengths = {len(vague_caption(SCENES[0], seed).split()) for seed in range(40)}
    assert min(lengths) == 2 and max(lengths) >= 5


def _agrees(mention: Mention, other: Mention) -> bool:
    return all(value in (None, getattr(other, name)) for name, value in vars(mention).items())


def test_names_are_as_short_as_they_can_be() -> None:
    red_star = Thing("star", "red", "large", "plain", "top left")
    blue_star = Thing("star", "blue", "large", "plain", "top")
    twin = replace(red_star, place="bottom")
    scene = Scene((red_star,), "sand", "warm", "left", 0)
    assert reference(scene, red_star) == "the star"
    assert reference(replace(scene, objects=(red_star, blue_star)), red_star) == "the red star"
    three = replace(scene, objects=(red_star, blue_star, twin))
    assert [reference(three, thing) for thing in three.objects] == [
        "the red star at the top left",
        "the blue star",
        "the red star at the bottom",
    ]


def test_relations_follow_from_places() -> None:
    a, b, c = (
        Thing("star", "red", "small", "plain", place) for place in ("top left", "left", "bottom right")
    )
    assert (relation(a, b), relation(b, a)) == ("above", "below")
    assert (relation(a, c), relation(c, a)) == ("to the left of", "to the right of")


def test_what_stands_behind_is_said() -> None:
    scenes = [scene for scene in (sample_scene(seed, (2, 8)) for seed in range(400)) if scene.behind]
    assert len(scenes) > 15
    for scene in scenes:
        back, front = (reference(scene, thing) for thing in scene.behind[0])
        said = re.search(
            r"(the [^.]*?) (?:is|stands|can be seen) partly behind (the [^.]*)\.",
            detailed_caption(scene, 0),
            re.I,
        )
        assert said and (said[1].lower(), said[2]) == (back, front)


@BOTH
def test_shadows_fall_away_from_the_light(held_out: bool) -> None:
    for seed, scene in enumerate(SCENES[:60]):
        said = re.search(r"fall to the (\w+)", detailed_caption(scene, seed, held_out=held_out))
        assert said and {said[1], scene.light} == {"left", "right"}


def test_counting_and_listing() -> None:
    assert [counted(number, "cross") for number in (0, 1, 2)] == ["no crosses", "one cross", "two crosses"]
    assert counted(8) == "eight objects"
    assert [enumerated(list("abc")[:number]) for number in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
