"""LLMGA Judge in this process: the best of a batch, what is wrong, a better prompt, and what becomes of odd input."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from support import comfy_inprocess as comfy

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

QUESTIONS = "Is it red?\nIs it bright?"
JUDGE = {
    "request": "a red picture", "prompt": "something red", "threshold": 1.0, "max_questions": 8, "questions": "",
    "asking": "together", "rewrite": True, "seed": 0, "temperature": 0.2, "max_new_tokens": 64,
}  # fmt: skip
DERIVED = json.dumps({"questions": [{"claim": "it is red", "question": "Is it red?"}]})
BLUE, RED = (torch.tensor(colour).expand(1, 8, 8, 3) for colour in ([0.0, 0, 1], [1.0, 0, 0]))
BOTH = torch.cat([BLUE, RED])


class Seeing:
    """Sees whether a picture is more red than blue, derives one question, and rewrites a prompt."""

    name, supports_pictures = "seeing", True

    def __init__(self, broken: bool = False, cut: str = "") -> None:
        self.asked: list[str] = []
        self.broken, self.cut = broken, cut

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        turn = conversation.turns[-1]
        self.asked.append(turn.text)
        on_text("…")
        return comfy.pack("llmga.chat").Said(self.reply(turn), cut="" if turn.pictures else self.cut)

    def reply(self, turn: Any) -> str:
        if not turn.pictures:
            return "<gen_image> red, all of it </gen_image>" if "gen_image" in turn.text else DERIVED
        red, _, blue = turn.pictures[0].to_pil().getpixel((0, 0))
        if self.broken and blue > red:
            raise ValueError("this picture is too blue")
        return "Yes." if red > blue else "No, it is blue."


def judge(engine: Any, image: Any = BOTH, **options: Any) -> Any:
    node = comfy.pack("nodes.judge").Judge
    with torch.inference_mode():
        return node.execute(engine, image, **{**JUDGE, **options})


def test_the_best_of_a_batch_is_given_and_the_prompt_stays_if_it_passes() -> None:
    engine = Seeing()
    best, score, passed, better, report, index, asked = judge(engine).result
    assert torch.equal(best, RED) and (score, passed, index) == (1.0, True, 1)
    assert better == "something red" and asked == "Is it red?"
    assert report.startswith("picture 1 of 2: 1.00, passed")
    assert "picture 0: 0.00\n  no: it is red" in report and "picture 1: 1.00\n  yes: it is red" in report
    assert "a red picture" in engine.asked[0] and len(engine.asked) == 3


def test_what_is_wrong_makes_a_better_prompt() -> None:
    engine = Seeing()
    best, score, passed, better, report, index, _ = judge(engine, BLUE).result
    assert (score, passed, index, better) == (0.0, False, 0, "red, all of it")
    assert "- no: it is red" in engine.asked[-1] and "something red" in engine.asked[-1]
    assert judge(Seeing(), BLUE, rewrite=False).result[3] == "something red"
    assert judge(Seeing(), BLUE, threshold=0.0).result[2] is True


def test_what_a_cut_reply_costs_is_said() -> None:
    _, score, passed, better, report, _, asked = judge(Seeing(cut="max_new_tokens"), BLUE).result
    assert (score, passed, better, asked) == (0.0, False, "something red", "Is it red?")
    assert "questions may be missing: the reply ended at 'max_new_tokens'" in report
    assert "the prompt stays as it is, for writing a better one failed: the reply ended at" in report


def test_questions_of_ones_own_are_asked_as_they_are() -> None:
    engine = Seeing()
    result = judge(engine, RED, questions=QUESTIONS, asking="one by one", request="", prompt="").result
    assert engine.asked == QUESTIONS.splitlines() and result[6] == QUESTIONS
    assert result[1] == 1.0 and result[3] == ""
    first = judge(Seeing(), BLUE).result
    again = judge(Seeing(), RED, questions=first[6]).result
    assert again[6] == first[6]


def test_the_report_holds_what_the_model_described_first() -> None:
    class Describing(Seeing):
        def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
            said = super().generate(conversation, sampling, on_text)
            first = len(conversation.turns) == 1
            return replace(said, answer="A thing.", cut="max_new_tokens") if first else said

    report = judge(Describing(), RED, questions=QUESTIONS, asking="describe first").result[4]
    assert "\n  described as: A thing.\n  the description is not whole: " in report


def test_a_picture_that_fails_does_not_cost_the_others_theirs() -> None:
    result = judge(Seeing(broken=True)).result
    assert result[5] == 1 and "picture 0 could not be checked: this picture is too blue" in result[4]
    with pytest.raises(ValueError, match="too blue"):
        judge(Seeing(broken=True), BLUE)


def test_a_reply_without_a_prompt_leaves_the_prompt_as_it_is() -> None:
    class Silent(Seeing):
        def reply(self, turn: Any) -> str:
            return "I do not know." if "gen_image" in turn.text else super().reply(turn)

    result = judge(Silent(), BLUE).result
    assert result[3] == "something red" and "wrote no better prompt" in result[4]


@pytest.mark.parametrize("what", ["empty", "in a thought", "endpoint"])
def test_a_rewriting_that_fails_costs_no_verdict(what: str) -> None:
    failed = comfy.pack("llmga.chat.engines.endpoint").EndpointError("endpoint 'x' cannot be reached")

    class Failing(Seeing):
        def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
            said = super().generate(conversation, sampling, on_text)
            if "gen_image" not in conversation.turns[-1].text:
                return said
            if what == "endpoint":
                raise failed
            return type(said)("", "hm" * (what == "in a thought"), unfinished=what == "in a thought")

    best, score, passed, better, report, index, asked = judge(Failing(), BLUE).result
    assert torch.equal(best, BLUE) and (score, passed, index, asked) == (0.0, False, 0, "Is it red?")
    assert better == "something red" and "picture 0: 0.00\n  no: it is red" in report
    reason = {"empty": "is empty", "in a thought": "raise 'thought_tokens'", "endpoint": "cannot be reached"}
    assert "\nthe prompt stays as it is, for writing a better one failed: " in report
    assert reason[what] in report.splitlines()[-1]


def test_a_cancel_while_the_prompt_is_rewritten_is_no_note(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = comfy.pack("nodes.host").comfy.model_management.InterruptProcessingException
    engine = Seeing()

    def cancelled() -> None:
        if engine.asked and "gen_image" in engine.asked[-1]:
            raise stopped

    monkeypatch.setattr(comfy.pack("nodes.host"), "raise_if_cancelled", cancelled)
    with pytest.raises(stopped):
        judge(engine, RED[:, :, :, [2, 1, 0]])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"request": " ", "prompt": ""}, "request is empty"),
        ({"threshold": 2.0}, "threshold must be a number from 0 to 1"),
        ({"max_questions": 0}, "max_questions must be a whole number from 1 to 24"),
        ({"asking": "all"}, "asking must be one of"),
        ({"questions": "Is it?\n" * 25}, "questions holds 25 lines"),
        ({"rewrite": 1}, "rewrite must be true or false"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"image": None}, "image must be"),
    ],
)
def test_a_wrong_input_is_named(options: dict[str, Any], said: str) -> None:
    image = options.pop("image", BOTH)
    with pytest.raises(ValueError, match=said):
        judge(Seeing(), image, **options)
    with pytest.raises(ValueError, match="engine must come from an LLMGA loader"):
        judge(None)


def test_an_engine_that_cannot_see_is_an_error() -> None:
    language = comfy.pack("llmga.chat.engines.base")

    class Blind(Seeing):
        supports_pictures = False

        def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
            language.check_conversation(conversation, self)
            return super().generate(conversation, sampling, on_text)

    with pytest.raises(ValueError, match="cannot see pictures"):
        judge(Blind())


def test_a_cancel_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = comfy.pack("nodes.host").comfy.model_management.InterruptProcessingException
    engine = Seeing()

    def cancelled() -> None:
        if len(engine.asked) == 2:
            raise stopped

    monkeypatch.setattr(comfy.pack("nodes.host"), "raise_if_cancelled", cancelled)
    with pytest.raises(stopped):
        judge(engine)
    assert len(engine.asked) == 2
