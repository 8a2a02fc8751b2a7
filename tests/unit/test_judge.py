"""The judge: its questions, its answers as models write them, the best of several pictures, and painting again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import CUT_REASONS, OnText, Said, Sampling
from llmga.chat.engines.endpoint import EndpointError
from llmga.chat.judge import (
    ClaimVerdict,
    PictureCheck,
    PictureClaim,
    best_index,
    better_prompt,
    check_claims,
    check_each,
    derive_claims,
    given_claims,
)
from llmga.chat.judge_repeat import repeat_until

RED, BLUE, GREEN = (Picture.from_pil(Image.new("RGB", (8, 8), name)) for name in ("red", "blue", "green"))
COLOURS = {RED: "red", BLUE: "blue", GREEN: "green"}
CLAIMS = (PictureClaim("it is red", "Is it red?"), PictureClaim("it is round", "Is it round?"))
SPOKEN: dict[str, Any] = {"sampling": Sampling(seed=5), "on_text": lambda text: None}


@dataclass
class Replying:
    """An engine that gives one reply after the other, and writes down what it was asked."""

    replies: Sequence[str | Said | Exception]
    name: str = "replying"
    supports_pictures: bool = True
    asked: list[tuple[Conversation, Sampling]] = field(default_factory=list)

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        reply = self.replies[len(self.asked)]
        self.asked.append((conversation, sampling))
        on_text("…")
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Said) else Said(reply)

    @property
    def words(self) -> list[str]:
        return [conversation.turns[-1].text for conversation, _ in self.asked]


@dataclass
class Structured(Replying):
    schemas: list[Any] = field(default_factory=list)

    def generate_json(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, schema: Any
    ) -> Said:
        self.schemas.append(schema)
        return self.generate(conversation, sampling, on_text)


class Seeing:
    """An engine that sees the one colour of a picture, and answers each question in a sentence of its own."""

    name, supports_pictures = "seeing", True

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        turn = conversation.turns[-1]
        if not turn.pictures:
            return Said("<gen_image> a red thing, red all over </gen_image>")
        colour = COLOURS[turn.pictures[0]]
        return Said("Yes, it is." if colour in turn.text else f"No, it is {colour}.")


def questions(*texts: str) -> str:
    return json.dumps({"questions": [{"claim": f"claim of {text}", "question": text} for text in texts]})


def test_questions_are_derived_from_the_request_under_a_schema() -> None:
    engine = Structured([questions("Is it red?", "Is it round?", "Is it big?")])
    claims = derive_claims(engine, " a red ball ", most=2, **SPOKEN)
    assert claims.remark == "" and claims.claims == (
        PictureClaim("claim of Is it red?", "Is it red?"),
        PictureClaim("claim of Is it round?", "Is it round?"),
    )
    assert "a red ball\n" in engine.words[0] and "at most 2" in engine.words[0]
    listed = engine.schemas[0]["properties"]["questions"]
    assert (listed["minItems"], listed["maxItems"]) == (1, 2)


def test_a_reply_without_questions_is_asked_again_and_then_an_error() -> None:
    engine = Replying(["I like it.", questions("Is it red?")])
    assert derive_claims(engine, "a red ball", **SPOKEN).claims[0].question == "Is it red?"
    (first, one), (second, other) = engine.asked
    assert second.turns[: len(first.turns)] == first.turns and "cannot be read" in second.turns[-1].text
    assert one.seed != other.seed
    with pytest.raises(ValueError, match="holds no questions, even when asked again.*'questions'.*Nice"):
        derive_claims(Replying(["", "Nice picture."]), "a red ball", **SPOKEN)
    with pytest.raises(ValueError, match="refuses"):
        derive_claims(Replying(["no", "I'm sorry, but I can't help with that."]), "a red ball", **SPOKEN)
    with pytest.raises(ValueError, match="request is empty"):
        derive_claims(Replying([]), "  ", **SPOKEN)
    with pytest.raises(ValueError, match="thought_tokens"):
        derive_claims(Replying([Said("", "hm", unfinished=True)]), "a red ball", **SPOKEN)


@pytest.mark.parametrize("cut", ["max_new_tokens", "context"])
def test_questions_of_a_reply_that_is_cut_off_are_whole_and_the_loss_is_said(cut: Any) -> None:
    reply = questions("Is it red?", "Is it ro")
    claims = derive_claims(Replying([Said(reply, cut=cut)]), "a red ball", most=3, **SPOKEN)
    assert [claim.question for claim in claims.claims] == ["Is it red?"]
    assert "questions may be missing" in claims.remark and CUT_REASONS[cut] in claims.remark
    full = derive_claims(Replying([Said(reply, cut=cut)]), "a red ball", most=1, **SPOKEN)
    assert full.remark == ""  # what follows is not asked anyway


def test_all_questions_are_asked_in_one_turn_and_what_is_left_out_alone() -> None:
    engine = Structured(
        ['{"answers": [{"number": 2, "answer": "no", "why": "a square"}]}', "Yes, bright red."]
    )
    check = check_claims(engine, RED, CLAIMS, **SPOKEN)
    assert [one.met for one in check.verdicts] == [True, False] and check.score == 0.5
    assert [str(one) for one in check.wrong] == ["no: it is round (a square)"]
    assert "1. Is it red?\n2. Is it round?" in engine.words[0]
    assert engine.words[1] == "Is it red?" and len(engine.asked) == 2 and len(engine.schemas) == 1
    assert all(conversation.turns[-1].pictures == (RED,) for conversation, _ in engine.asked)


def test_one_by_one_each_question_has_a_conversation_of_its_own() -> None:
    engine = Replying(["yes", "Hard to say.", "I cannot tell.", "It is round.", "No."])
    check = check_claims(
        engine, RED, (*CLAIMS, PictureClaim("it is big", "Is it big?")), asking="one by one", **SPOKEN
    )
    assert [str(one) for one in check.verdicts] == [
        "yes: it is red",
        "not answered: it is round (Hard to say.)",
        "no: it is big",
    ]
    assert check.score == 1 / 3
    assert engine.words == [
        "Is it red?", "Is it round?", "Answer with yes or no.", "Is it big?", "Answer with yes or no.",
    ]  # fmt: skip
    assert [len(conversation.turns) for conversation, _ in engine.asked] == [1, 1, 3, 1, 3]
    with pytest.raises(ValueError, match="'asking' must be one of together, one by one, describe first"):
        check_claims(engine, RED, CLAIMS, asking="all", **SPOKEN)  # type: ignore[arg-type]


def test_each_question_follows_the_description_where_it_is_described_first() -> None:
    engine = Replying(["A red square.", "Yes.", "Hard to say.", "No."])
    check = check_claims(engine, RED, CLAIMS, asking="describe first", **SPOKEN)
    assert [one.met for one in check.verdicts] == [True, False]
    assert (check.description, check.remark) == ("A red square.", "")
    first, *others = (conversation for conversation, _ in engine.asked)
    assert first.turns[0].text == "Describe this image in detail." and first.turns[0].pictures == (RED,)
    asked = [[turn.text for turn in one.turns[1:]] for one in others]
    assert asked == [
        ["A red square.", "Is it red?"],
        ["A red square.", "Is it round?"],
        ["A red square.", "Is it round?", "Hard to say.", "Answer with yes or no."],
    ]
    assert all(one.turns[0] == first.turns[0] and not one.turns[2].pictures for one in others)


def test_a_description_that_is_cut_off_is_said_and_an_empty_one_is_an_error() -> None:
    check = check_claims(
        Replying([Said("A red", cut="max_new_tokens"), "yes", "no"]),
        RED,
        CLAIMS,
        asking="describe first",
        **SPOKEN,
    )
    assert check.description == "A red" and check.remark.endswith(CUT_REASONS["max_new_tokens"])
    checks = check_each(
        Replying([" ", "Round.", "no"]), (BLUE, RED), CLAIMS[:1], asking="describe first", **SPOKEN
    )
    assert "with an empty reply" in checks[0].failure and checks[1].description == "Round."


def test_a_picture_that_fails_does_not_cost_the_others_theirs() -> None:
    engine = Replying(["no", EndpointError("the server is gone"), "yes"])
    checks = check_each(engine, (BLUE, GREEN, RED), CLAIMS[:1], **SPOKEN)
    assert [check.score for check in checks] == [0.0, 0.0, 1.0]
    assert [check.failure for check in checks] == ["", "the server is gone", ""]
    assert best_index(checks) == 2
    assert [sampling.seed for _, sampling in engine.asked] == [5, 6, 7]
    with pytest.raises(EndpointError, match="gone"):
        check_each(Replying([EndpointError("gone")] * 2), (BLUE, RED), CLAIMS[:1], **SPOKEN)
    with pytest.raises(ValueError, match="got 0 and 1"):
        check_each(engine, (), CLAIMS[:1], **SPOKEN)


def test_an_endpoint_that_is_gone_is_not_asked_about_every_picture() -> None:
    engine = Replying(["yes", *[EndpointError("gone")] * 3])
    checks = check_each(engine, (RED, BLUE, GREEN, RED, BLUE, GREEN), CLAIMS[:1], **SPOKEN)
    assert len(engine.asked) == 4 and [check.failure for check in checks[:4]] == ["", "gone", "gone", "gone"]
    assert {check.failure for check in checks[4:]} == {
        "not asked, because the endpoint failed 3 times in a row"
    }
    assert best_index(checks) == 0


def test_seeds_stay_below_2_to_the_64() -> None:
    engine = Replying(["no", "yes"])
    check_each(engine, (BLUE, RED), CLAIMS[:1], sampling=Sampling(seed=2**64 - 1), on_text=lambda text: None)
    assert [sampling.seed for _, sampling in engine.asked] == [2**64 - 1, 0]


def test_half_a_surrogate_pair_in_a_reply_is_replaced() -> None:
    check = check_claims(Replying(["It is \ud83d.", "Who knows?"]), RED, CLAIMS[:1], **SPOKEN)
    assert check.verdicts[0].why == "It is ?."


def test_the_best_is_the_first_of_equals_and_never_one_that_failed() -> None:
    good, bad = (PictureCheck((ClaimVerdict(CLAIMS[0], met),)) for met in (True, None))
    failed = PictureCheck(failure="gone")
    assert best_index([bad, good, good]) == 1
    assert best_index([failed, bad]) == 1
    assert best_index([failed, failed]) == 0
    assert bad.score == 0.0 and bad.wrong == bad.verdicts


class Weighing(Replying):
    """An engine that says how likely yes and no are, in the order of the questions."""

    likely: Sequence[tuple[float, float]] = ()

    def generate_with_probabilities(
        self, conversation: Conversation, sampling: Sampling, on_text: OnText, words: Sequence[str]
    ) -> tuple[Said, tuple[float, ...]]:
        assert words == ("yes", "no")
        return self.generate(conversation, sampling, on_text), self.likely[len(self.asked) - 1]


def test_an_engine_that_weighs_its_answer_is_judged_by_the_weight() -> None:
    engine = Weighing(["Yes", "Yes"])
    engine.likely = [(0.6, 0.2), (0.3, 0.6)]
    check = check_claims(engine, RED, CLAIMS, asking="one by one", **SPOKEN)
    assert [one.met for one in check.verdicts] == [True, False]
    assert [one.likely for one in check.verdicts] == pytest.approx([0.75, 1 / 3])
    assert check.score == 0.5 and check.likely == pytest.approx((0.75 + 1 / 3) / 2)
    assert str(check.verdicts[0]) == "yes 0.75: it is red"


def test_a_reply_that_begins_otherwise_is_read_by_its_words() -> None:
    engine = Weighing(["Yes, it is.", "No."])
    engine.likely = [(0.1, 0.01), (0.3, 0.1)]
    check = check_claims(engine, RED, CLAIMS, asking="one by one", **SPOKEN)
    assert [(one.met, one.likely) for one in check.verdicts] == [(True, None), (False, None)]


def test_of_equals_the_best_is_the_likeliest() -> None:
    def checked(*likely: float | None) -> PictureCheck:
        return PictureCheck(tuple(ClaimVerdict(CLAIMS[0], True, likely=one) for one in likely))

    assert best_index([checked(0.6, 0.7), checked(0.9, 0.8), checked(0.7, 0.9)]) == 1
    assert best_index([checked(0.9), checked(None)]) == 1
    assert best_index([PictureCheck((ClaimVerdict(CLAIMS[0], False, likely=0.49),)), checked(0.51)]) == 1


def test_a_better_prompt_is_asked_for_by_what_is_wrong() -> None:
    wrong = PictureCheck((ClaimVerdict(CLAIMS[0], True), ClaimVerdict(CLAIMS[1], False, "a square")))
    engine = Replying(["Here: <gen_image> a round red ball </gen_image>"])
    assert better_prompt(engine, "a ball", "a red ball", wrong, **SPOKEN) == "a round red ball"
    assert "- no: it is round (a square)" in engine.words[0] and "it is red" not in engine.words[0]
    assert "a ball\n" in engine.words[0] and "a red ball\n" in engine.words[0]
    assert better_prompt(Replying(["No idea."]), "a ball", "a red ball", wrong, **SPOKEN) == ""
    half = Said("<gen_image> a round red ball in", cut="max_new_tokens")
    with pytest.raises(ValueError, match="ended at 'max_new_tokens'"):
        better_prompt(Replying([half]), "a ball", "a red ball", wrong, **SPOKEN)
    right = PictureCheck((ClaimVerdict(CLAIMS[0], True),))
    assert better_prompt(Replying([]), "a ball", "a red ball", right, **SPOKEN) == "a red ball"


def test_painting_is_repeated_until_a_picture_is_right() -> None:
    rounds = [(BLUE, GREEN), (GREEN, RED), (RED,)]
    painted: list[tuple[str, int]] = []

    def paint(prompt: str, attempt: int) -> Sequence[Picture]:
        painted.append((prompt, attempt))
        return rounds[attempt]

    made = repeat_until(
        Seeing(), paint, "a thing", given_claims("Is it red?"), request="a red thing", **SPOKEN
    )
    assert painted == [("a thing", 0), ("a red thing, red all over", 1)]
    assert [(attempt.score, attempt.best) for attempt in made] == [(0.0, 0), (1.0, 1)]
    never = repeat_until(
        Seeing(), lambda prompt, attempt: [BLUE], "a thing", CLAIMS[:1], attempts=2, **SPOKEN
    )
    assert len(never) == 2 and never[-1].score == 0.0
    lenient = repeat_until(Seeing(), paint, "a thing", CLAIMS[:1], threshold=0.0, **SPOKEN)
    assert len(lenient) == 1


def test_a_rewriting_that_fails_between_attempts_costs_none_of_them() -> None:
    engine = Replying(["yes", "no", " ", "yes", "yes"])
    made = repeat_until(
        engine, lambda prompt, attempt: [RED], "a ball", CLAIMS, attempts=2, asking="one by one", **SPOKEN
    )
    assert [one.prompt for one in made] == ["a ball", "a ball"] and made[1].score == 1.0
    assert "is empty" in made[0].remark and made[1].remark == ""


def test_what_is_wrong_in_the_best_picture_is_rewritten_and_only_before_another_attempt() -> None:
    """Two pictures of which the first is better, a reply without a prompt, then one picture that is no better."""
    engine = Replying(["yes", "no", "no", "no", "No idea.", "no", "no"])
    prompts: list[str] = []

    def paint(prompt: str, attempt: int) -> Sequence[Picture]:
        prompts.append(prompt)
        return (GREEN,) if attempt else (RED, BLUE)

    made = repeat_until(engine, paint, "a ball", CLAIMS, attempts=2, asking="one by one", **SPOKEN)
    assert prompts == ["a ball", "a ball"] and [one.best for one in made] == [0, 0]
    assert [sampling.seed for _, sampling in engine.asked] == [5, 5, 6, 6, 5, 7, 7]
    assert "- no: it is round" in engine.words[4] and "it is red" not in engine.words[4]
