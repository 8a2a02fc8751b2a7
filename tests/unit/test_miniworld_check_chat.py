"""The check of the miniature's chat: what it makes of a reply, of a silent model, and of an edit."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmga.chat import TASKS, Conversation, Reply
from miniworld.checks.chat import Answer, _answer, _scored, _talk, edit_made
from miniworld.world.edits import KINDS, sample_edit
from miniworld.world.facts import Facts, caption_facts, facts
from miniworld.world.scene import sample_scene


def _reply(raw: str, prompts: tuple[str, ...] = ()) -> Reply:
    return Reply(raw, prompts, Conversation().say("user", "?").say("assistant", raw))


def test_judging_a_reply() -> None:
    given = Facts((), background="sand")
    good = "<gen_image> a red star on sand </gen_image>"
    assert _scored("x", "one", _reply(good, ("a red star on sand",)), given) == Answer("x", True, 1, 1)
    assert not _scored("x", "one", _reply(good + good, ("a", "b")), given).formed
    assert not _scored("x", "one", _reply("a star on sand"), given).formed
    assert not _scored("x", "caption", _reply(good, ("a",)), given).formed
    assert _scored("x", "caption", _reply("a star on snow"), given) == Answer("x", True, 0, 1)
    assert _scored("x", "several", _reply(f"One. {good} Two. {good}"), given).formed
    assert not _scored("x", "several", _reply(f"One. {good}"), given).formed
    assert _scored("x", "one", None, given) == Answer("x", False, 0, 1)


def test_perfect_and_silent_models_get_what_they_deserve(monkeypatch: pytest.MonkeyPatch) -> None:
    from miniworld.checks import chat

    asked: list[str] = []

    def silent(folder, temperature, conversation, task, instruction, pictures, seed):
        asked.append(instruction)
        needs = TASKS[task].needs_picture
        assert bool(pictures) >= needs and all(picture.size == (128, 128) for picture in pictures)

    monkeypatch.setattr(chat, "ask", silent)
    for task in (each.name for each in chat._TAUGHT):
        answer = _answer(Path(), 0.2, task, 7)
        assert not answer.formed and answer.kept == 0
    talk = _talk(Path(), 0.2, 11)
    assert len(talk) == 8 and not any(answer.formed for answer in talk)
    assert all(asked[-8:])


def test_an_edit_is_made_if_what_it_asks_for_is_found_and_nothing_else_is_needed() -> None:
    for kind in KINDS:
        for seed in range(40):
            try:
                edit = sample_edit(sample_scene(seed, (2, 4)), seed, kind)
                break
            except ValueError:
                continue
        source, target = facts(edit.source), facts(edit.target)
        assert edit_made(source, target, caption_facts(edit.detailed[1])), kind
        assert not edit_made(source, target, caption_facts(edit.detailed[0])), kind
