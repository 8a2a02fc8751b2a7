"""Lessons of the chat on finding an object and on changes of what was just painted, and how they are checked."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from llmga.chat import Conversation, Reply
from llmga.chat.tasks import TASKS
from miniworld.checks import chat
from miniworld.world.captions import reference, standing
from miniworld.world.dataset import Scenes
from miniworld.world.dialogues import DATA_SETS, Talk
from miniworld.world.edits import concerned, sample_edit
from miniworld.world.facts import Mention, caption_facts
from miniworld.world.records import sample_record
from miniworld.world.scene import choose, sample_scene


def test_a_change_is_asked_of_the_picture_of_the_turn_before(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = chat.held_out_scenes(7)[choose(range(chat._SCENES), 7, "change")]
    edit = sample_edit(scene, 7, held_out=True)
    said = {"similar": edit.detailed[0], "change": edit.detailed[1]}

    def ask(folder, temperature, conversation, task, instruction, pictures, seed):
        assert bool(pictures) == (task == "similar") and bool(conversation.turns) == (task == "change")
        assert instruction == (edit.instruction if task == "change" else "")
        raw = f"<gen_image> {said[task]} </gen_image>"
        return Reply(raw, (said[task],), conversation.say("user", instruction).say("assistant", raw))

    monkeypatch.setattr(chat, "ask", ask)
    assert chat._answer(Path(), 0.2, "change", 7).made
    said["change"] = said["similar"]
    assert not chat._answer(Path(), 0.2, "change", 7).made


def test_conversations_go_on_in_the_words_of_the_task_change() -> None:
    scenes, words = Scenes(50), [phrasing.partition("{")[0] for phrasing in TASKS["change"].phrasings]
    heads = Counter()
    for seed in range(300):
        talk = Talk(scenes, seed)
        talk.next("refine")
        exchange = talk.next()
        if exchange.again:
            heads.update(head for head in words if exchange.asked.lower().startswith(head.lower()))
    assert set(heads) == set(words)


def test_a_description_is_followed_by_questions_that_it_answers() -> None:
    scenes, answers = Scenes(50), Counter()
    for seed in range(40):
        first, *others = Talk(scenes, seed).lesson(1, ("describe",))
        assert first.kind == "describe" and 2 <= len(others) <= 6
        said = caption_facts(first.reply)
        for one in others:
            assert one.kind == "exists" and one.again and not one.shown
            (asked,) = caption_facts(one.asked.lower()).objects
            there = any(
                all(
                    getattr(asked, name) in (None, getattr(thing, name))
                    for name in ("size", "colour", "shape", "place")
                )
                for thing in said.objects
            )
            assert one.reply == ("Yes." if there else "No.")
            answers[there] += 1
    assert min(answers.values()) > 40


def test_the_reply_to_an_edit_says_what_is_there_then_what_changes_then_what_there_will_be() -> None:
    ways = Counter()
    for seed in range(120):
        scene = sample_scene(seed, (2, 5))
        edit = sample_edit(scene, seed)
        record = sample_record("edit", scene, seed, size=32)
        before, tag, prompt = record.reply.partition(" <gen_image> ")
        overview, _, rest = before.partition(". ")
        changes, _, then = rest.partition(" The new picture will show ")
        assert overview.startswith("The picture shows ") and changes == concerned(edit)
        assert tag and prompt.endswith(" </gen_image>")
        for text, shown in ((overview, edit.source), (then, edit.target)):
            assert caption_facts(text).background == shown.background
        seen, new, told = ([mention.place for mention in _named(text)] for text in (overview, then, prompt))
        assert {*seen} == {thing.place for thing in edit.source.objects}
        assert {*told} == {thing.place for thing in edit.target.objects} and told == new
        both = {*seen} & {*told}
        assert [place for place in seen if place in both] == [place for place in told if place in both]
        ways[bool(record.pictures), "background" in changes] += 1
        form = chat._scored("edit", "one", Reply(record.reply, (prompt,), _said(record.reply)), record.given)
        assert form.formed and form.kept == form.given
        other = chat._scored(
            "refine", "one", Reply(record.reply, (prompt,), _said(record.reply)), record.given
        )
        assert not other.formed
    assert len(ways) == 4
    assert sum(count for (picture, _), count in ways.items() if picture) > 70


def _named(text: str) -> list[Mention]:
    """The objects of a text in its own order."""
    return [one for part in re.split(r"[.,]| and ", text) for one in caption_facts(part).objects]


def _said(text: str) -> Conversation:
    return Conversation().say("user", "?").say("assistant", text)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_is_cut_to_a_tenth(name: str) -> None:
    scenes, whole, left = Scenes(50), Counter(), Counter()
    for seed in range(250):
        for counts, cut in ((whole, frozenset()), (left, DATA_SETS[name])):
            talk = Talk(scenes, seed, cut=cut)
            counts.update(talk.next().kind for _ in range(4))
    others = [kind for kind in whole if kind not in DATA_SETS[name]]
    assert (
        0 < sum(left[kind] for kind in DATA_SETS[name]) < 0.25 * sum(whole[kind] for kind in DATA_SETS[name])
    )
    assert left.total() == whole.total() == 1000
    assert sum(left[kind] for kind in others) > sum(whole[kind] for kind in others)
    assert set(left) == set(whole)


def test_objects_of_one_picture_are_found_by_names_that_fit_one_each() -> None:
    scenes = Scenes(50)
    for seed in range(40):
        first, *more = Talk(scenes, seed).lesson(1, ("find",))
        assert first.shown and 2 <= len(more) <= 6 and all(one.again and not one.shown for one in more)
        scene = scenes[first.shown.scene]
        for exchange in (first, *more):
            (thing,) = [thing for thing in scene.objects if standing(thing) == exchange.reply]
            assert reference(scene, thing).lower() in exchange.asked.lower()


def test_what_edits_of_one_picture_change_is_said_alone() -> None:
    scenes, moved = Scenes(50), 0
    for seed in range(40):
        first, *more = Talk(scenes, seed).lesson(1, ("changes",))
        assert first.shown and 2 <= len(more) <= 6 and all(one.again and not one.shown for one in more)
        scene = scenes[first.shown.scene]
        for exchange in (first, *more):
            begun = [standing(thing) for thing in scene.objects if exchange.reply.startswith(standing(thing))]
            assert len(begun) == 1 or exchange.reply.startswith(
                ("Nothing stands ", "The background will be ")
            )
            assert " will be " in exchange.reply and "<" not in exchange.reply
            moved += exchange.reply.count("there will be") == 2
    assert moved > 10


def test_a_lesson_of_what_is_cut_is_cut_too() -> None:
    scenes = Scenes(50)
    left = Counter(
        exchange.kind
        for seed in range(60)
        for exchange in Talk(scenes, seed, cut=DATA_SETS["editing"]).lesson(1, ("changes", "brief"))
        if exchange.shown
    )
    assert 0 < left["changes"] < 12 and left.total() == 60
