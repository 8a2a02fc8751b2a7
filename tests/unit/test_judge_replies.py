"""What a judge's model writes: questions, answers, yes or no, and a person's own questions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmga.chat.judge import MOST_QUESTIONS, PictureClaim, given_claims
from llmga.chat.judge_replies import read_answers, read_questions, read_yes_no


def questions(*texts: str) -> str:
    return json.dumps({"questions": [{"claim": f"claim of {text}", "question": text} for text in texts]})


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (questions("Is it red?"), [("claim of Is it red?", "Is it red?")]),
        (
            "Sure!\n```json\n" + questions("A?", "B?") + "\n```",
            [("claim of A?", "A?"), ("claim of B?", "B?")],
        ),
        ("{'questions': ['A?', \"B?\",]}", [("", "A?"), ("", "B?")]),
        ('["A?", "A?", "B?"]', [("", "A?"), ("", "B?")]),
        (
            "1. Is it red?\n2) **Is it round?**\n- 有一颗星吗？\nThat is all.",
            [("", "Is it red?"), ("", "Is it round?"), ("", "有一颗星吗？")],
        ),
        ('{"questions": [{"claim": "a", "question": "A?"}, {"claim": "b", "que', [("a", "A?")]),
        (
            '{"questions": [{"claim": "a", "question": "A?"}, {"claim": "b", "question": "A?"}]}',
            [("a", "A?")],
        ),
        ('{"questions": ["A?"]} or {"questions": ["B?"]}', [("", "A?")]),
        ("A" * 500 + "?", [("", "A" * 400)]),
        ("{}", []),
        ("I will not.", []),
    ],
)
def test_questions_are_read_as_models_write_them(reply: str, found: list[tuple[str, str]]) -> None:
    assert read_questions(reply) == found


NUMBERS = (
    "5、 5） （5） (5) 5． 5: 5： ５、 [5] 【5】 ⑤ ⑤、 ⑸ ⒌ ❺ ⑤️ 五、 （五） 十二、 ㈤ 第五题： 第5問、 问题5： 问题五、 "
    "Q5: Q5） Q: Question_5: a) ii) **5.** 5.** #_5. •_5. •"
)


@pytest.mark.parametrize("number", NUMBERS.split())
def test_the_number_of_a_question_is_no_part_of_it(number: str) -> None:
    number = number.replace("_", " ")
    for question in ("图中有猫吗？", "Is there a cat?", "5 cats?", '"Sale" on it?'):
        line = f"{number} {question}"
        assert read_questions(f"Sure:\n{line}") == [("", question.strip('"'))]
        assert read_questions(questions(line)) == [(f"claim of {line}", question)]
        assert given_claims(line) == (PictureClaim(question, question),)


@pytest.mark.parametrize(
    "question",
    [
        "5 cats?",
        "1.5 metres tall?",
        "12:30 on the clock?",
        "五只猫？",
        "(red) hats?",
        "A. Lincoln?",
        "Queen?",
        "一、",
        "7.",
    ],
)
def test_a_question_that_begins_with_a_number_keeps_it(question: str) -> None:
    assert given_claims(question)[0].question == question


@pytest.mark.parametrize(
    "number", ["1", "1、", "（1）", "①", "⑴", "Q1", "Question 1", "第1题", "问题1", "#1", "１"]
)
def test_an_answer_is_found_by_its_number(number: str) -> None:
    reply = json.dumps(
        {"answers": [{"number": "2"}, {"number": number, "answer": "yes"}]}, ensure_ascii=False
    )
    assert read_answers(reply, 2) == {0: (True, "")}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes.", True),
        ("  **yes**, it is", True),
        ("Answer: No, it is blue", False),
        ("The answer is yes", True),
        ("not really", False),
        ("There is no star", False),
        (True, True),
        (False, False),
        ("true", True),
        ("是的，有", True),
        ("不是", False),
        ("没有", False),
        ("there is none", None),
        ("nothing", None),
        ("Yesterday", None),
        ("", None),
        ("It is red.", None),
    ],
)
def test_a_yes_is_one_at_the_beginning_of_a_reply(text: Any, answer: bool | None) -> None:
    assert read_yes_no(text) is answer


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (
            '{"answers": [{"number": 2, "answer": "no", "why": "square"}, {"number": 1, "answer": "yes"}]}',
            {0: (True, ""), 1: (False, "square")},
        ),
        ('{"answers": ["yes", "no"]}', {0: (True, ""), 1: (False, "")}),
        ("Here: [true, False]", {0: (True, ""), 1: (False, "")}),
        ('{"1": "no", "Q2": "yes"}', {0: (False, ""), 1: (True, "")}),
        (
            '{"answers": [{"number": 3, "answer": "no"}, {"number": 1, "answer": "maybe"}, {"answer": "no"}]}',
            {},
        ),
        ('{"answers": [{"number": 1, "answer": "no"}, {"number": 1, "answer": "yes"}]}', {0: (False, "")}),
        ('{"answers": [{"number": 0, "answer": "no"}]}', {}),
        (f'{{"answers": [{{"answer": "no", "why": "{"w" * 500}"}}]}}', {0: (False, "w" * 400)}),
        ("yes", {}),
        ("[" * 60, {}),
    ],
)
def test_answers_go_to_their_questions(reply: str, found: dict[int, Any]) -> None:
    assert read_answers(reply, 2) == found


def test_questions_of_ones_own_are_lines() -> None:
    assert given_claims(" Is it red? \n\n Is it round?") == (
        PictureClaim("Is it red?", "Is it red?"),
        PictureClaim("Is it round?", "Is it round?"),
    )
    assert given_claims("  \n") == ()
    with pytest.raises(ValueError, match=f"holds {MOST_QUESTIONS + 1} lines"):
        given_claims("Is it?\n" * (MOST_QUESTIONS + 1))
