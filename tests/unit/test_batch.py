"""A batch of pictures as one reply each."""

from __future__ import annotations

import pytest
from PIL import Image

from llmga.chat import Conversation, Picture, Said, Sampling, respond, respond_each

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
    assert each == alone and each[0].prompt != each[1].prompt
    assert all(len(reply.conversation.turns) == 4 for reply in each)


def test_an_error_names_its_picture() -> None:
    with pytest.raises(ValueError, match="^picture 2 of 2: the task 'similar' needs a prompt"):
        respond_each(Engine(), Conversation(), pictures=PICTURES, sampling=Sampling(seed=8), **SETTINGS)
    with pytest.raises(ValueError, match="^the task"):
        respond_each(Engine(), Conversation(), pictures=PICTURES[:1], sampling=Sampling(seed=9), **SETTINGS)
    with pytest.raises(ValueError, match="needs a picture; connect 'image'"):
        respond_each(Engine(), Conversation(), pictures=(), sampling=Sampling(), **SETTINGS)
