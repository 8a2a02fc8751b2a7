"""A batch of pictures as one reply each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from llmga.chat import Conversation, Failed, Picture, Said, Sampling, respond, respond_each
from llmga.chat.batch import shortcomings
from llmga.chat.engines.endpoint import EndpointError

PICTURES = [Picture.from_pil(Image.new("RGB", (8, 8), colour)) for colour in ("red", "blue")]
SETTINGS = {"task": "similar", "instruction": "", "policy": "error", "on_text": lambda _: None}


class Engine:
    name = "scripted"
    supports_pictures = True

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
        if sampling.seed == 9:
            return Said("no idea")
        return Said(f"<gen_image> {conversation.pictures[-1].sha256[:6]} {sampling.seed} </gen_image>")


def test_each_picture_gets_the_reply_that_it_gets_alone() -> None:
    history = Conversation().say("user", "hi").say("assistant", "hello")
    each = respond_each(Engine(), history, pictures=PICTURES, sampling=Sampling(seed=2**64 - 1), **SETTINGS)
    alone = [
        respond(Engine(), history, pictures=(picture,), sampling=Sampling(seed=seed), **SETTINGS)
        for picture, seed in zip(PICTURES, (2**64 - 1, 0), strict=True)
    ]
    assert each == alone and alone[0].prompt != alone[1].prompt
    assert all(len(reply.conversation.turns) == 4 for reply in alone)


class Flaky(Engine):
    """Raises or says what stands at the place of the seed."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = outcomes
        self.asked: list[int] = []

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
        self.asked.append(sampling.seed)
        outcome = self.outcomes[sampling.seed]
        if isinstance(outcome, BaseException):
            raise outcome
        return Said.of(str(outcome))


GOOD = "<gen_image> a fox </gen_image>"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (EndpointError("endpoint 'x' answered 500"), "picture 3 of 5: endpoint 'x' answered 500"),
        ("I'm sorry, but I can't help with that.", "picture 3 of 5: the task"),
        ("<think>hm", "picture 3 of 5: the reply of 'scripted' ends inside the model's thinking"),
        ("", "picture 3 of 5: the reply of 'scripted' is empty"),
    ],
)
def test_one_bad_picture_never_loses_the_others(bad: object, reason: str) -> None:
    engine = Flaky(GOOD, GOOD, bad, GOOD, GOOD)
    each = respond_each(
        engine,
        Conversation(),
        pictures=PICTURES[:1] * 5,
        sampling=Sampling(),
        **{**SETTINGS, "policy": "whole_reply"},
    )
    assert [i for i, one in enumerate(each) if isinstance(one, Failed)] == [2]
    assert isinstance(each[2], Failed) and each[2].reason.startswith(reason)
    assert all(one.prompt == "a fox" for one in each if not isinstance(one, Failed))


def test_a_dead_endpoint_is_not_asked_for_ever_and_what_is_not_asked_is_said() -> None:
    error = EndpointError("endpoint 'x' cannot be reached", retry_in=0)
    engine = Flaky(GOOD, *[error] * 5)
    each = respond_each(engine, Conversation(), pictures=PICTURES[:1] * 6, sampling=Sampling(), **SETTINGS)
    assert engine.asked == [0, 1, 2, 3]
    assert [one.reason[:26] for one in each if isinstance(one, Failed)][-1] == "picture 6 of 6: not asked,"
    with pytest.raises(EndpointError, match="^picture 1 of 2: endpoint 'x' cannot") as caught:
        respond_each(Flaky(error, error), Conversation(), pictures=PICTURES, sampling=Sampling(), **SETTINGS)
    assert caught.value.retry_in == 0


def test_a_reply_and_any_other_error_end_a_row_of_endpoint_errors() -> None:
    gone, empty = EndpointError("endpoint 'x' cannot be reached"), ""
    engine = Flaky(gone, gone, GOOD, gone, gone, empty, gone, gone, gone, GOOD)
    each = respond_each(engine, Conversation(), pictures=PICTURES[:1] * 10, sampling=Sampling(), **SETTINGS)
    assert engine.asked == list(range(9))
    assert [isinstance(one, Failed) for one in each] == [i != 2 for i in range(10)]
    assert each[9] == Failed("picture 10 of 10: not asked, because the endpoint failed 3 times in a row")


def test_a_cancel_ends_the_batch() -> None:
    with pytest.raises(KeyboardInterrupt):
        respond_each(
            Flaky(GOOD, KeyboardInterrupt()),
            Conversation(),
            pictures=PICTURES,
            sampling=Sampling(),
            **SETTINGS,
        )


def test_an_error_names_its_picture() -> None:
    replies = respond_each(Engine(), Conversation(), pictures=PICTURES, sampling=Sampling(seed=8), **SETTINGS)
    assert isinstance(replies[1], Failed)
    assert replies[1].reason.startswith("picture 2 of 2: the task 'similar' needs a prompt")
    with pytest.raises(ValueError, match="^the task"):
        respond_each(Engine(), Conversation(), pictures=PICTURES[:1], sampling=Sampling(seed=9), **SETTINGS)
    with pytest.raises(ValueError, match="needs a picture; connect 'image'"):
        respond_each(Engine(), Conversation(), pictures=(), sampling=Sampling(), **SETTINGS)


def test_a_picture_without_a_hole_is_not_asked_to_have_it_filled() -> None:
    engine = Flaky(GOOD, GOOD, GOOD)
    settings = {**SETTINGS, "task": "inpaint"}
    three = PICTURES[:1] * 3
    each = respond_each(
        engine, Conversation(), pictures=three, sampling=Sampling(), holes=[True, False, True], **settings
    )
    assert engine.asked == [0, 2] and [isinstance(one, Failed) for one in each] == [False, True, False]
    said = "picture 2 of 3: mask 2 is empty, and the task 'inpaint' fills a hole"
    assert isinstance(each[1], Failed) and each[1].reason.startswith(said)
    similar = respond_each(
        engine, Conversation(), pictures=three, sampling=Sampling(), holes=[False] * 3, **SETTINGS
    )
    assert not any(isinstance(one, Failed) for one in similar)
    with pytest.raises(ValueError, match="holes says of 1 pictures"):
        respond_each(engine, Conversation(), pictures=three, sampling=Sampling(), holes=[True], **settings)


def test_a_reply_that_is_cut_off_is_said_with_its_picture() -> None:
    class Short(Flaky):
        def generate(self, conversation: Conversation, sampling: Sampling, on_text: object) -> Said:
            said = super().generate(conversation, sampling, on_text)
            return replace(said, cut="max_new_tokens" if "sno" in said.answer else "")

    outcomes = (GOOD, "<gen_image> a fox in the sno", EndpointError("endpoint 'x' answered 500"))
    each = respond_each(
        Short(*outcomes), Conversation(), pictures=PICTURES[:1] * 3, sampling=Sampling(), **SETTINGS
    )
    assert shortcomings(each) == [
        "picture 2 of 3: The reply ended at 'max_new_tokens', before the model had finished; raise it.",
        "picture 3 of 3: endpoint 'x' answered 500",
    ]
    assert shortcomings(each[:1]) == []
