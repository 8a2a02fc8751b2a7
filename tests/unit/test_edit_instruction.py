"""From an instruction to the two prompts of an edit: what is asked, what is taken, and how edits follow one another."""

from __future__ import annotations

import pytest
from PIL import Image

from llmga.chat import Conversation, Picture, Said, Sampling
from llmga.chat.tasks import TRAINED
from llmga.edit.instruction import kept_share, rewrite

SOURCE = "a large red star in the centre, on snow, under warm light"
TARGET = "a large blue star in the centre, on snow, under warm light"
PICTURE = Picture.from_pil(Image.new("RGB", (8, 8), "red"))


def tagged(text: str) -> str:
    return f"Here you are. <gen_image> {text} </gen_image>"


class Scripted:
    """Says what it was given, in order, and remembers what it was asked."""

    name = "scripted"
    supports_pictures = True

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.heard: list[Conversation] = []
        self.seeds: list[int] = []

    def generate(self, conversation, sampling, on_text):
        self.heard.append(conversation)
        self.seeds.append(sampling.seed)
        on_text(self.replies[0])
        return Said.of(self.replies.pop(0))


def ask(engine, instruction="make the star blue", conversation=None, **options):
    return rewrite(
        engine,
        conversation or Conversation(),
        instruction,
        sampling=options.pop("sampling", Sampling(seed=3)),
        on_text=lambda text: None,
        **options,
    )


def test_a_picture_is_described_and_then_rewritten() -> None:
    engine = Scripted(tagged(SOURCE), tagged(TARGET))
    edit = ask(engine, picture=PICTURE)
    assert (edit.source, edit.target, edit.asked_again) == (SOURCE, TARGET, False)
    assert edit.kept == pytest.approx(11 / 12)
    described, rewritten = engine.heard
    assert described.turns[-1].pictures == (PICTURE,) and "make the star blue" not in described.turns[-1].text
    assert "make the star blue" in rewritten.turns[-1].text and not rewritten.turns[-1].pictures
    assert [turn.role for turn in edit.conversation.turns] == ["user", "assistant"] * 2
    assert "92%" in edit.report()


def test_the_last_target_is_the_next_source() -> None:
    first = ask(Scripted(tagged(SOURCE), tagged(TARGET)), picture=PICTURE)
    night = TARGET.replace("warm light", "a night sky")
    engine = Scripted(tagged(night))
    second = ask(engine, "make it night", first.conversation)
    assert (second.source, second.target) == (TARGET, night)
    assert len(engine.heard) == 1, "the picture is not described again"
    third = ask(Scripted(tagged(SOURCE)), "make the star red, and warm light", second.conversation)
    assert third.source == night


def test_a_known_prompt_is_asked_about_without_the_picture() -> None:
    engine = Scripted(tagged(TARGET))
    edit = ask(engine, source=f" {SOURCE}\n")
    assert (edit.source, edit.target) == (SOURCE, TARGET)
    (heard,) = engine.heard
    assert heard.turns[-1].text.startswith(f"{SOURCE}\n") and not heard.pictures


def test_a_known_prompt_goes_before_that_of_the_conversation() -> None:
    first = ask(Scripted(tagged(SOURCE), tagged(TARGET)), picture=PICTURE)
    other = "a small green ring on sand"
    engine = Scripted(tagged("a small green star on sand"))
    assert ask(engine, "make it a star", first.conversation, source=other).source == other
    assert engine.heard[0].turns[-1].text.startswith(other)
    engine = Scripted(tagged(TARGET.replace("star", "ring")))
    ask(engine, "make it a ring", first.conversation, source=TARGET)
    assert TARGET not in engine.heard[0].turns[-1].text, "the conversation has just said it"


@pytest.mark.parametrize(
    "poor", [tagged(SOURCE), tagged("an entirely other picture of nothing alike"), "I would paint it blue."]
)
def test_a_poor_rewrite_is_asked_for_once_more(poor: str) -> None:
    engine = Scripted(poor, tagged(TARGET))
    edit = ask(engine, source=SOURCE)
    assert edit.target == TARGET and edit.asked_again
    assert SOURCE in engine.heard[1].turns[-1].text and engine.seeds[0] != engine.seeds[1]
    request, reply = edit.conversation.turns
    assert "make the star blue" in request.text and TARGET in reply.text, (
        "the history holds one clean exchange"
    )


def test_of_two_poor_rewrites_the_better_is_taken() -> None:
    far, nearer = "nothing of it", "a large star of some other kind, painted on paper"
    for replies in ((far, nearer), (nearer, far)):
        edit = ask(Scripted(*map(tagged, replies)), source=SOURCE)
        assert edit.target == nearer
    assert "a new caption rather than a rewrite" in edit.report()


def test_only_ask_again_asks_again() -> None:
    for policy in ("whole_reply", "error"):
        edit = ask(Scripted(tagged(SOURCE)), source=SOURCE, policy=policy)
        assert edit.target == SOURCE and "will change nothing" in edit.report()
    assert ask(Scripted("just a blue star"), source=SOURCE, policy="whole_reply").target == "just a blue star"


@pytest.mark.parametrize(
    ("replies", "options", "message"),
    [
        ((), {}, "connect it to 'image', write its caption into 'source_prompt'"),
        ((), {"source": SOURCE, "instruction": " "}, "'instruction' is empty"),
        ((), {"source": SOURCE, "policy": "maybe"}, "'policy' must be one of ask_again, whole_reply, error"),
        (("No prompt.",), {"source": SOURCE, "policy": "error"}, "holds no <gen_image> prompt; change"),
        (("No.", "No."), {"source": SOURCE}, "even when asked again"),
        (
            ("I'm sorry, but I cannot help with that.",),
            {"source": SOURCE, "policy": "whole_reply"},
            "refuses",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_an_error(replies, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ask(Scripted(*replies), **options)


def test_cancel_passes_through() -> None:
    class Cancelled(BaseException):
        pass

    def cancel(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        rewrite(
            Scripted(tagged(TARGET)),
            Conversation(),
            "blue",
            source=SOURCE,
            sampling=Sampling(),
            on_text=cancel,
        )


@pytest.mark.parametrize(
    ("source", "target", "share"),
    [
        ("a red fox", "a red fox", 1.0),
        ("A red fox.", "a RED fox!", 1.0),
        ("a red fox", "a blue fox", 2 / 3),
        ("a red fox", "fox red a", 1 / 3),
        ("a red fox", "", 0.0),
        ("", "a fox", 0.0),
        ("ein roter Fuchs", "ein grüner Fuchs", 2 / 3),
    ],
)
def test_the_share_of_words_kept(source: str, target: str, share: float) -> None:
    assert kept_share(source, target) == pytest.approx(share)


def test_llmgas_own_models_get_the_requests_of_their_training() -> None:
    """Source: LLMGA 7e32eb6, llmga/serve/cli-sd15-editing.py:121-130: a similar image first, then the bare instruction."""
    engine = Scripted(tagged(SOURCE), tagged(TARGET))
    engine.trained_phrases = True
    ask(engine, "make the star blue", picture=PICTURE)
    described, rewritten = engine.heard
    assert described.turns[-1].text in {
        phrase.replace("{instruction}", "").strip() for phrase in TRAINED["similar"]
    }
    assert rewritten.turns[-1].text == "make the star blue"


def test_thoughts_are_kept_apart_from_both_prompts() -> None:
    engine = Scripted(
        f"<think>It is a star. {tagged('a draft')}</think>{tagged(SOURCE)}",
        f"<think>Only the colour.</think>{tagged(TARGET)}",
    )
    edit = ask(engine, picture=PICTURE)
    assert (edit.source, edit.target) == (SOURCE, TARGET)
    assert edit.thought == f"It is a star. {tagged('a draft')}\n\nOnly the colour."
    again = ask(Scripted("<think>One.</think>no tags", f"<think>Two.</think>{tagged(TARGET)}"), source=SOURCE)
    assert again.thought == "One.\n\nTwo." and again.asked_again
