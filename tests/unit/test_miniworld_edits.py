from collections import Counter
from dataclasses import replace
from difflib import SequenceMatcher

import numpy as np
import pytest

from miniworld.world.captions import description, detailed_caption, short_caption
from miniworld.world.edits import KINDS, concerned, instructions, sample_edit
from miniworld.world.facts import caption_facts, facts
from miniworld.world.instructions import MORE_INSTRUCTIONS
from miniworld.world.phrases import INSTRUCTIONS, ON, WHERE
from miniworld.world.render import render
from miniworld.world.scene import sample_scene, split_of

EDITS = [sample_edit(sample_scene(seed, (2, 5), "train"), seed, KINDS[seed % 8]) for seed in range(320)]
ATTRIBUTE = {
    "recolour": "colour",
    "reshape": "shape",
    "resize": "size",
    "retexture": "texture",
    "move": "place",
}


def changed_words(pair: tuple[str, str]) -> int:
    before, after = (text.split() for text in pair)
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for step, a, b, c, d in steps if step != "equal")


def test_one_thing_changes_and_it_is_the_one_named() -> None:
    for edit in EDITS:
        before, after = edit.source.objects, edit.target.objects
        same = replace(edit.target, objects=before, background=edit.source.background) == edit.source
        assert same
        said = edit.instruction.lower()
        if edit.kind in ATTRIBUTE:
            [(old, new)] = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            name = ATTRIBUTE[edit.kind]
            assert replace(new, **{name: getattr(old, name)}) == old
            assert getattr(new, name) in said and old.shape in said
        elif edit.kind == "add":
            assert after[:-1] == before and after[-1].place in said and after[-1].shape in said
        elif edit.kind == "remove":
            [gone] = set(before) - set(after)
            assert len(after) == len(before) - 1 and gone.shape in said
        else:
            assert before == after and edit.source.background != edit.target.background
            assert edit.target.background in said


def test_captions_are_those_of_the_scenes() -> None:
    for edit in EDITS:
        for source, target in (edit.short, edit.detailed):
            for text, scene in ((source, edit.source), (target, edit.target)):
                assert {(m.shape, m.colour, m.place) for m in caption_facts(text).objects} == {
                    (thing.shape, thing.colour, thing.place) for thing in scene.objects
                }
                assert caption_facts(text).background == scene.background
        assert caption_facts(edit.detailed[1]) == facts(edit.target)


def test_captions_differ_in_the_words_of_the_edit() -> None:
    for edit in EDITS:
        short, detailed = changed_words(edit.short), changed_words(edit.detailed)
        if edit.kind in ("recolour", "reshape", "resize", "retexture"):
            assert short == 1  # "plain" comes and goes, or one word becomes another
            # Its colour or shape may also be what the sentence about the relation names it by.
            assert detailed == 1 or edit.kind in ("recolour", "reshape") and detailed <= 12
        elif edit.kind == "move":
            assert short <= 4 and detailed <= 12
        else:
            assert short <= 14 and detailed <= 36


def test_pictures_differ_inside_the_mask_alone() -> None:
    for edit in EDITS[:96]:
        before, after = (np.asarray(render(scene).image) for scene in (edit.source, edit.target))
        differ, mask = (before != after).any(-1), edit.mask()
        assert not (differ & ~mask).any()
        assert differ.sum() > 0.1 * mask.sum() > 0
        assert edit.kind == "background" or mask.mean() < 0.3


def test_an_edit_of_a_training_scene_stays_in_training() -> None:
    assert {split_of(edit.target) for edit in EDITS} == {"train"}
    others = (sample_edit(sample_scene(seed, (2, 3), "unseen_pair"), seed) for seed in range(60))
    assert {split_of(edit.target) for edit in others} > {"unseen_pair"}


def test_a_nearly_full_training_scene_can_still_grow() -> None:
    for seed in range(60):
        edit = sample_edit(sample_scene(seed, (7, 7), "train"), seed, "add")
        assert len(edit.target.objects) == 8 and split_of(edit.target) == "train"


def test_overlap_changes_only_with_the_objects_that_overlap() -> None:
    behind = [scene for scene in (sample_scene(seed, (2, 6)) for seed in range(500)) if scene.behind]
    for seed, scene in enumerate(behind):
        for kind in ("resize", "move", "add", "recolour"):
            edit = (
                sample_edit(scene, seed, kind) if len(scene.objects) > 2 else sample_edit(scene, seed, "add")
            )
            assert len(edit.target.behind) == 1
    for edit in EDITS:
        assert len(edit.target.behind) <= len(edit.source.behind)


def test_held_out_instructions_are_new() -> None:
    assert INSTRUCTIONS.keys() == MORE_INSTRUCTIONS.keys() == set(KINDS)
    words: dict[str, set[str]] = {}
    for kind in KINDS:
        shown, held_out = instructions(kind, False), instructions(kind, True)
        assert held_out and not set(shown) & set(held_out) and len(set(shown)) == len(shown) >= 15
        words[kind] = set(" ".join(held_out).split())
    known = {word for kind in KINDS for text in instructions(kind, False) for word in text.split()}
    assert set().union(*words.values()) <= known  # new sentences of known words
    scene = sample_scene(11, (3, 3), "train")
    for kind in KINDS:
        shown = {sample_edit(scene, seed, kind).instruction for seed in range(200)}
        assert not shown & {sample_edit(scene, seed, kind, held_out=True).instruction for seed in range(20)}
    edit = sample_edit(scene, 0, "recolour", held_out=True)
    assert edit.short[0] == short_caption(scene, 0, held_out=True)
    assert edit.detailed[0] == detailed_caption(scene, 0, held_out=True)


def test_without_a_kind_every_kind_comes() -> None:
    counts = Counter(sample_edit(sample_scene(seed, (2, 7)), seed).kind for seed in range(200))
    assert set(counts) == set(KINDS)
    assert sample_edit(sample_scene(1), 1) == sample_edit(sample_scene(1), 1)


@pytest.mark.parametrize(("objects", "kind"), [(1, "remove"), (8, "add"), (3, "explode")])
def test_impossible_edits(objects: int, kind) -> None:
    with pytest.raises(ValueError, match=kind):
        sample_edit(sample_scene(0, (objects, objects)), 0, kind)


def test_what_an_edit_concerns_is_said_as_it_stands_before_and_after() -> None:
    for edit in EDITS[:300]:
        said = concerned(edit)
        if edit.kind == "background":
            assert said == f"The background will be {ON[edit.target.background].split(' ', 1)[1]}."
            continue
        assert {*caption_facts(said).objects} <= {
            *facts(edit.target).objects
        }  # read with the reply, it adds nothing wrong
        gone, come = (
            set(a.objects) - set(b.objects)
            for a, b in ((edit.source, edit.target), (edit.target, edit.source))
        )
        before, *after = said.split(". ")
        for old in gone:
            assert before.startswith("The") and before.split()[1:5] == [
                old.size,
                old.texture,
                old.colour,
                old.shape,
            ]
            assert before.endswith(f"stands {WHERE[old.place]}")
        expected = {WHERE[old.place]: "nothing" for old in gone} | {
            WHERE[new.place]: description(new) for new in come
        }
        assert {sentence.rstrip(".").lower() for sentence in after} == {
            f"{where} there will be {what}" for where, what in expected.items()
        }
        assert gone or before == f"Nothing stands {WHERE[next(iter(come)).place]}"
