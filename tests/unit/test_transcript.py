import json

import pytest
from PIL import Image

from llmga.chat import MAX_TRANSCRIPT, Picture, Turn, read_transcript

PICTURE = Picture.from_pil(Image.new("RGB", (4, 3), "red"))
USER = {
    "role": "user",
    "text": "Draw a fox",
    "images": [PICTURE.sha256],
    "task": "refine",
    "instruction": "a fox",
}
ANSWER = {"role": "assistant", "text": "<gen_image> a fox </gen_image>", "images": []}


def find(sha256: str) -> Picture:
    if sha256 != PICTURE.sha256:
        raise ValueError("no such picture")
    return PICTURE


def read(*turns) -> tuple[Turn, ...]:
    return read_transcript(json.dumps(turns), find)


def test_turns_are_what_the_model_read_and_wrote() -> None:
    assert read(USER, ANSWER) == (Turn("user", "Draw a fox", (PICTURE,)), Turn("assistant", ANSWER["text"]))


@pytest.mark.parametrize("text", ["", " \n"])
def test_nothing_is_no_turns(text: str) -> None:
    assert read_transcript(text, find) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("{}", "must be a list of at most 200 turns"),
        (json.dumps([USER, ANSWER] * 101), "must be a list of at most 200 turns"),
        (json.dumps([USER]), "must end with a turn of the assistant"),
        (json.dumps([ANSWER, USER]), "turn 1 of 'transcript' must be one of the user"),
        (json.dumps([USER, USER]), "turn 2 of 'transcript' must be one of the assistant"),
        (json.dumps([7, ANSWER]), "turn 1 of 'transcript' must be one of the user"),
        (json.dumps([{**USER, "text": 7}, ANSWER]), "turn 1 of 'transcript' has no text"),
        (json.dumps([{**USER, "images": ["../../secret"]}, ANSWER]), "something other than its sha256"),
        (json.dumps([{**USER, "images": "x"}, ANSWER]), "something other than its sha256"),
        (json.dumps([{**USER, "images": None}, ANSWER]), "something other than its sha256"),
        (json.dumps([{**USER, "images": ["0" * 64]}, ANSWER]), "no such picture"),
        (json.dumps([{**USER, "text": "\ud800"}, ANSWER]), "half a surrogate pair"),
        (json.dumps([USER, {**ANSWER, "images": [PICTURE.sha256]}]), "only user turns hold pictures"),
        (" " * MAX_TRANSCRIPT + "[]", "at most 4000000 are allowed"),
    ],
)
def test_what_is_no_transcript_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_transcript(text, find)
