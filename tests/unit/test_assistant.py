from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from PIL import Image

from llmga.chat import (
    SYSTEM_PROMPT,
    ChatEngine,
    Conversation,
    OnText,
    Picture,
    Policy,
    Reply,
    Said,
    Sampling,
    render,
    respond,
)
from llmga.chat.engines.base import CutAt, check_conversation

FOX = "<gen_image> a red fox </gen_image>"
REFUSAL = "I'm sorry, but I can't help with that."
PICTURE = Picture.from_pil(Image.new("RGB", (4, 3), "red"))


class ScriptedEngine:
    """Keeps the protocol and replays replies, word by word."""

    name = "scripted"

    def __init__(self, *replies: str, supports_pictures: bool = True) -> None:
        self.supports_pictures = supports_pictures
        self.replies = list(replies)
        self.heard: list[tuple[Conversation, Sampling]] = []

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        check_conversation(conversation, self)
        self.heard.append((conversation, sampling))
        reply = self.replies.pop(0)
        words = reply.split(" ")
        for count in range(1, len(words) + 1):
            on_text(" ".join(words[:count]))
        return Said.of(reply)


def ask(engine: ChatEngine, conversation: Conversation | None = None, **changes: Any) -> Reply:
    arguments: dict[str, Any] = {
        "task": "refine",
        "instruction": "a fox",
        "sampling": Sampling(seed=7),
        "policy": "error",
        "on_text": lambda text: None,
    }
    return respond(engine, conversation or Conversation(), **{**arguments, **changes})


def test_prompt_is_found_and_the_exchange_is_kept() -> None:
    engine = ScriptedEngine("<think>hm</think>Gladly. <gen_image> a red fox </gen_image>")
    before = Conversation(system="Be brief.").say("user", "Hi").say("assistant", "Hello.")
    reply = ask(engine, before, pictures=[PICTURE])
    assert (reply.text, reply.prompt, reply.prompts) == ("Gladly.\n\na red fox", "a red fox", ("a red fox",))
    assert reply.has_prompt and not reply.refused and not reply.asked_again
    assert reply.conversation == before.say("user", render("refine", "a fox", 7), (PICTURE,)).say(
        "assistant", "Gladly. <gen_image> a red fox </gen_image>"
    )
    ((heard, sampling),) = engine.heard
    assert heard.turns == reply.conversation.turns[:-1] and sampling == Sampling(
        seed=7, stop_after=1, min_prompts=1
    )


def test_seed_picks_the_phrasing_and_repeats_it() -> None:
    said = [
        ask(ScriptedEngine(FOX), sampling=Sampling(seed=seed)).conversation.turns[0].text
        for seed in (0, 1, 0)
    ]
    assert said[0] == said[2] != said[1]


@pytest.mark.parametrize(
    ("own", "system", "used"),
    [
        ("", None, SYSTEM_PROMPT),
        ("", "Short.", "Short."),
        ("", "", ""),
        ("Mine.", None, "Mine."),
        ("Mine.", "Short.", "Mine."),
    ],
)
def test_system_prompt_fills_an_empty_place_only(own: str, system: str | None, used: str) -> None:
    engine = ScriptedEngine(FOX)
    reply = ask(engine, Conversation(system=own), system=system)
    assert reply.conversation.system == used == engine.heard[0][0].system


def test_story_brings_all_its_prompts() -> None:
    engine = ScriptedEngine(f"Once {FOX} then <gen_image> a hen </gen_image> end")
    assert ask(engine, task="story").prompts == ("a red fox", "a hen")


@pytest.mark.parametrize("first", ["Which colour?", REFUSAL, f"<gen_image> {REFUSAL} </gen_image>"])
def test_ask_again_reminds_once_and_keeps_the_good_exchange(first: str) -> None:
    engine = ScriptedEngine(first, FOX)
    reply = ask(engine, policy="ask_again")
    assert reply.asked_again and reply.prompts == ("a red fox",) and not reply.refused
    assert [turn.text for turn in reply.conversation.turns] == [render("refine", "a fox", 7), FOX]
    second, sampling = engine.heard[1]
    assert [turn.role for turn in second.turns] == ["user", "assistant", "user"]
    assert second.turns[1].text == first and "<gen_image>" in second.turns[2].text
    assert sampling.seed not in (6, 7, 8) and sampling == Sampling(
        seed=sampling.seed, stop_after=1, min_prompts=1
    )
    again = ScriptedEngine(first, FOX)
    assert ask(again, policy="ask_again") == reply and again.heard == engine.heard


def test_ask_again_is_not_used_without_need() -> None:
    assert not ask(ScriptedEngine(FOX), policy="ask_again").asked_again


def test_ask_again_gives_up_after_the_second() -> None:
    engine = ScriptedEngine("Which colour?", "x" * 300)
    with pytest.raises(
        ValueError, match=rf"'refine'.*'scripted'.*even when asked again.*'policy'.* {'x' * 200}…$"
    ):
        ask(engine, policy="ask_again")
    assert len(engine.heard) == 2


def test_whole_reply_is_the_prompt_without_thinking() -> None:
    reply = ask(ScriptedEngine("<think>x</think>A red fox in snow."), policy="whole_reply")
    assert reply.prompts == ("A red fox in snow.",) and reply.has_prompt


@pytest.mark.parametrize(
    "refusal", [REFUSAL, f"<gen_image> {REFUSAL} </gen_image>", f"<gen_image>{REFUSAL}" * 2]
)
@pytest.mark.parametrize("policy", ["whole_reply", "error", "keep_previous"])
def test_refusal_is_never_painted(policy: str, refusal: str) -> None:
    with pytest.raises(ValueError, match="'scripted' refuses.*'instruction'.*'policy'"):
        ask(ScriptedEngine(refusal), policy=policy)


def test_refusal_around_a_prompt_is_none() -> None:
    reply = ask(ScriptedEngine(f"I cannot generate images, but here is the prompt: {FOX}"))
    assert reply.prompts == ("a red fox",) and not reply.refused


def test_keep_previous_takes_the_latest_that_can_be_painted() -> None:
    before = Conversation()
    for text in ("<gen_image> old </gen_image>", FOX, "no tags", f"<gen_image> {REFUSAL} </gen_image>"):
        before = before.say("user", "<gen_image> the user's own </gen_image>").say("assistant", text)
    reply = ask(ScriptedEngine(REFUSAL), before, policy="keep_previous")
    assert reply.prompts == ("a red fox",) and reply.refused and reply.text == REFUSAL
    assert reply.conversation.turns[-1].text == REFUSAL


def test_keep_previous_prefers_the_new_prompt_and_fails_without_any() -> None:
    before = Conversation().say("user", "x").say("assistant", "<gen_image> old </gen_image>")
    assert ask(ScriptedEngine(FOX), before, policy="keep_previous").prompt == "a red fox"
    with pytest.raises(ValueError, match="'history' has no earlier prompt"):
        ask(ScriptedEngine("Which colour?"), policy="keep_previous")


def test_error_policy_quotes_the_reply() -> None:
    with pytest.raises(ValueError, match="holds no <gen_image> prompt; .* It says: Which colour\\?$"):
        ask(ScriptedEngine("Which colour?"))


@pytest.mark.parametrize("policy", get_args(Policy))
def test_chat_needs_no_prompt_and_takes_one(policy: str) -> None:
    plain = ask(ScriptedEngine("Hello."), task="chat", policy=policy)
    assert plain.prompts == () and plain.prompt == "" and not plain.has_prompt
    assert ask(ScriptedEngine(FOX), task="chat", policy=policy).prompts == ("a red fox",)


@pytest.mark.parametrize(
    ("said", "prompts"), [("A fox sits.", ("A fox sits.",)), (f"See: {FOX}", ("a red fox",)), (REFUSAL, ())]
)
def test_description_is_a_caption(said: str, prompts: tuple[str, ...]) -> None:
    reply = ask(ScriptedEngine(said), task="describe", pictures=(PICTURE,))
    assert reply.prompts == prompts and reply.refused == (not prompts)


@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize("empty", ["", " \n", "<gen_image></gen_image>", "<think>hm</think>"])
def test_empty_reply_is_an_error_of_its_own(empty: str, policy: str) -> None:
    with pytest.raises(ValueError, match="'scripted' is empty .*'max_new_tokens'"):
        ask(ScriptedEngine(empty, FOX), policy=policy)


@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize("task", ["refine", "chat", "story"])
@pytest.mark.parametrize(
    "unfinished",
    [
        "<think>hm",
        "Sure. <think>hm",
        f"<think>So {FOX}?",
        f"[THINK]{FOX}",
        f"<think>a</think><think>{FOX} or",
    ],
)
def test_of_an_unfinished_thought_nothing_is_painted(unfinished: str, task: str, policy: str) -> None:
    before = Conversation().say("user", "Hi").say("assistant", FOX)
    with pytest.raises(
        ValueError, match="'scripted' ends inside the model's thinking.*raise 'thought_tokens'"
    ):
        ask(ScriptedEngine(unfinished, unfinished), before, policy=policy, task=task)


def test_the_thought_is_handed_on_apart() -> None:
    reply = ask(ScriptedEngine(f"<think>A <gen_image>hen</gen_image>?</think>Here: {FOX}"))
    assert reply.thought == "A <gen_image>hen</gen_image>?" and reply.prompts == ("a red fox",)
    assert "hen<" not in reply.text and "hen<" not in reply.conversation.to_json()
    assert ask(ScriptedEngine(FOX)).thought == ""


def test_a_prompt_that_stands_before_an_unfinished_thought_is_kept() -> None:
    assert ask(ScriptedEngine(f"{FOX}<think>was that right")).prompts == ("a red fox",)


def test_earlier_picture_serves_a_later_task() -> None:
    before = Conversation().say("user", "Look.", (PICTURE,)).say("assistant", "Nice.")
    assert ask(ScriptedEngine(FOX), before, task="edit", instruction="make it blue").has_prompt


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "edit"}, "'image'"),
        ({"task": "paint"}, "'task'"),
        ({"instruction": " "}, "'instruction'"),
        (
            {"policy": "hope"},
            "'policy' must be one of ask_again, whole_reply, keep_previous, error, got 'hope'",
        ),
    ],
)
def test_wrong_input_is_named_before_anything_is_generated(changes: dict[str, Any], message: str) -> None:
    engine = ScriptedEngine(FOX)
    with pytest.raises(ValueError, match=message):
        ask(engine, **changes)
    assert not engine.heard


def test_engine_that_cannot_see_says_so() -> None:
    with pytest.raises(ValueError, match="'scripted' cannot see pictures"):
        ask(ScriptedEngine(FOX, supports_pictures=False), pictures=(PICTURE,))


def test_on_text_gets_both_tries() -> None:
    heard: list[str] = []
    ask(ScriptedEngine("Which one?", "Fine. " + FOX), policy="ask_again", on_text=heard.append)
    assert heard[:3] == ["Which", "Which one?", "Fine."] and heard[-1] == "Fine. " + FOX


@pytest.mark.parametrize(
    "kind", [KeyboardInterrupt, RuntimeError, type("HostInterrupt", (BaseException,), {})]
)
def test_what_on_text_raises_passes_through(kind: Callable[[], BaseException]) -> None:
    raised = kind()

    def cancel(text: str) -> None:
        raise raised

    with pytest.raises(BaseException) as caught:
        ask(ScriptedEngine(FOX), policy="ask_again", on_text=cancel)
    assert caught.value is raised


def test_three_turns_survive_a_save_in_between() -> None:
    def chat(save: bool) -> Reply:
        reply = Reply("", (), Conversation())
        for said in ("Hello.", FOX, "Which colour?"):
            before = Conversation.from_json(reply.conversation.to_json()) if save else reply.conversation
            reply = ask(ScriptedEngine(said), before, pictures=(PICTURE,), policy="whole_reply")
        return reply

    assert chat(save=True) == chat(save=False)


@pytest.mark.parametrize("reply", [b"<gen_image> a fox </gen_image>", "text", None, 3])
def test_an_engine_that_says_nothing_is_named(reply: object) -> None:
    class Broken(ScriptedEngine):
        def generate(self, *_: Any) -> Any:
            return reply

    with pytest.raises(ValueError, match=f"'scripted' replied with {type(reply).__name__} instead of a Said"):
        ask(Broken())


def test_half_a_surrogate_pair_is_replaced() -> None:
    reply = ask(ScriptedEngine("<gen_image> a \ud800 fox </gen_image>"))
    assert reply.prompt == "a ? fox"


def test_a_refused_prompt_of_a_story_costs_no_other() -> None:
    hen = "<gen_image> a hen </gen_image>"
    no = "<gen_image> I'm sorry, but I can't create this image. </gen_image>"
    reply = ask(ScriptedEngine(f"Once {FOX} then {no} at last {hen} end."), task="story")
    assert reply.prompts == ("a red fox", "a hen") and not reply.refused
    assert reply.passages == ("Once", "at last\n\nend.")
    (remark,) = reply.remarks
    assert remark.startswith("1 of the reply's 3 prompts is a refusal and left out") and "I'm sorry" in remark
    assert ask(ScriptedEngine(FOX)).remarks == ()
    with pytest.raises(ValueError, match="refuses"):
        ask(ScriptedEngine(f"{no} {no}"), task="story")
    before = Conversation().say("user", "hi").say("assistant", f"{no} {hen}")
    assert ask(ScriptedEngine("Hm?"), before, policy="keep_previous").prompts == ("a hen",)


@pytest.mark.parametrize(
    ("replies", "policy", "remarks"),
    [
        ([f"One {FOX} two {FOX}"], "error", ()),
        ([f"One {FOX}"], "whole_reply", ("The reply has 1 of the 2 pages that 'pages' asks for.",)),
        ([f"One {FOX}"] * 2, "ask_again", ("The reply has 1 of the 2 pages that 'pages' asks for.",)),
        (
            [f"One {FOX} two {FOX} three {FOX}"],
            "error",
            ("The reply has 3 pages, and 'pages' asks for 2: what is beyond is left out.",),
        ),
    ],
)
def test_pages_that_are_too_few_or_too_many_are_said(
    replies: list[str], policy: Policy, remarks: tuple[str, ...]
) -> None:
    reply = ask(ScriptedEngine(*replies), task="picture_book", pages=2, policy=policy)
    assert reply.remarks == remarks


class CutEngine(ScriptedEngine):
    """Whose replies end at a limit."""

    def __init__(self, *replies: str, cut: CutAt = "max_new_tokens") -> None:
        super().__init__(*replies)
        self.cut: CutAt = cut

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        return replace(super().generate(conversation, sampling, on_text), cut=self.cut)


def test_a_prompt_that_is_cut_off_is_used_and_said() -> None:
    reply = ask(CutEngine("<gen_image> a fox in the sno"))
    assert reply.prompt == "a fox in the sno" and reply.cut == "max_new_tokens"
    assert reply.remarks == ("The reply ended at 'max_new_tokens', before the model had finished; raise it.",)
    (remark,) = ask(CutEngine("<gen_image> a fox in the sno", cut="context")).remarks
    assert "context is full" in remark and "shorten 'history'" in remark
    with pytest.raises(
        ValueError, match="holds no <gen_image> prompt; raise 'max_new_tokens', where the reply"
    ):
        ask(CutEngine("A fox in the sno"))
