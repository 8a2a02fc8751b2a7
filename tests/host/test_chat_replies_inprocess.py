"""LLMGA Chat and Chat per Picture in this process, with a scripted engine: what is said of a reply that is not as asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from PIL import Image
from support import comfy_inprocess as comfy

REASON = comfy.skip_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

COMMON = {
    "instruction": "", "task": "similar", "seed": 0, "temperature": 0.2, "max_new_tokens": 64, "policy": "error",
}  # fmt: skip
GOOD = "<gen_image> a fox </gen_image>"


class Scripted:
    """Says one reply after the other."""

    name, supports_pictures = "scripted", True

    def __init__(self, *replies: Any) -> None:
        self.replies = list(replies)
        self.heard: list[Any] = []

    def generate(self, conversation: Any, sampling: Any, on_text: Any) -> Any:
        self.heard.append(conversation)
        reply = self.replies.pop(0)
        return comfy.pack("llmga.chat").Said(reply) if isinstance(reply, str) else reply


def each(engine: Any, image: torch.Tensor, **options: Any) -> Any:
    comfy.start()
    with torch.inference_mode():
        node = comfy.pack("nodes.chat_per_picture").ChatPerPicture
        return node.execute(engine, image, **{**COMMON, **options})


def test_an_empty_mask_among_several_fails_its_picture_alone() -> None:
    masks = torch.zeros(3, 8, 8)
    masks[1:, :4] = 1
    engine = Scripted(GOOD, GOOD)
    output = each(engine, torch.full((3, 8, 8, 3), 0.5), task="inpaint", mask=masks)
    assert output.result[:2] == (["", "a fox", "a fox"], ["", "a fox", "a fox"]) and len(engine.heard) == 2
    assert output.result[2].startswith("picture 1 of 3: mask 1 is empty, and the task 'inpaint' fills a hole")
    assert output.ui["text"] == [output.result[2], "a fox", "a fox"]


def test_one_mask_is_the_hole_of_all_pictures() -> None:
    output = each(
        Scripted(GOOD, GOOD), torch.rand(2, 8, 8, 3), task="outpaint", mask=torch.ones(1, 8, 8)
    ).result
    assert output == (["a fox"] * 2, ["a fox"] * 2, "")
    masks = torch.zeros(2, 8, 8)
    masks[0] = 1
    assert each(Scripted(GOOD, GOOD), torch.rand(2, 8, 8, 3), mask=masks).result[2] == ""


def talk(engine: Any, **options: Any) -> Any:
    comfy.start()
    widgets = {**COMMON, "task": "story", "instruction": "a fox", "top_p": 1.0}
    with torch.inference_mode():
        return comfy.pack("nodes.chat").Chat.execute(engine, **{**widgets, **options})


def test_the_panel_says_which_prompt_is_a_refusal() -> None:
    reply = f"Once {GOOD} then <gen_image> I'm sorry, but I can't create this image. </gen_image>"
    output = talk(Scripted(reply))
    assert output.result[2] == ["a fox"]
    (note,) = output.ui["llmga_chat"][0]["notes"]
    assert note.startswith("1 of the reply's 2 prompts is a refusal and left out")


def test_the_panel_says_how_many_pages_came() -> None:
    output = talk(Scripted(f"One {GOOD} two {GOOD}"), task="picture_book", pages=3, policy="whole_reply")
    assert output.ui["llmga_chat"][0]["notes"] == ["The reply has 2 of the 3 pages that 'pages' asks for."]


def test_the_panel_and_the_failures_say_that_a_reply_was_cut_off() -> None:
    comfy.start()
    cut = comfy.pack("llmga.chat").Said("<gen_image> a fox in the sno", cut="max_new_tokens")
    said = "The reply ended at 'max_new_tokens', before the model had finished; raise it."
    output = talk(Scripted(cut))
    assert output.result[1] == "a fox in the sno" and output.ui["llmga_chat"][0]["notes"] == [said]
    output = each(Scripted(GOOD, cut), torch.rand(2, 8, 8, 3))
    assert output.result == (
        ["a fox", "a fox in the sno"],
        ["a fox", "a fox in the sno"],
        f"picture 2 of 2: {said}",
    )
    assert output.ui["text"] == ["a fox", f"a fox in the sno\n\n{said}"]


def conversation(turns: int, pictures: int = 0) -> Any:
    made, colour = comfy.pack("llmga.chat"), comfy.pack("llmga.chat.conversation").Picture.from_pil
    shown = tuple(colour(Image.new("RGB", (4, 4), (i, 9, 9))) for i in range(pictures))
    said = made.Conversation().say("user", "hi", shown).say("assistant", "hello")
    for _ in range(turns // 2 - 1):
        said = said.say("user", "and?").say("assistant", "so")
    return said


def test_too_many_pictures_are_said_with_their_sockets_and_the_way_out() -> None:
    comfy.start()
    engine = Scripted(GOOD)
    seventeen = torch.rand(17, 4, 4, 3)
    per_picture = "let LLMGA Chat per Picture ask about each by itself"
    with pytest.raises(
        ValueError, match=f"16 pictures, got 17: 17 from 'image'; show fewer, or {per_picture}$"
    ):
        talk(engine, image=seventeen)
    said = "got 18: 3 from 'image', 15 from 'history'; .*per Picture.*; or go on from an earlier 'history'"
    with pytest.raises(ValueError, match=said):
        talk(engine, image=seventeen[:3], history=conversation(2, 15))
    said = "got 17: 1 from 'image', 16 from 'history'; go on from an earlier 'history', or disconnect it"
    for ask in (talk, each):
        with pytest.raises(ValueError, match=said):
            ask(engine, image=seventeen[:1], history=conversation(2, 16))
    assert not engine.heard
    assert talk(engine, image=seventeen[:1], history=conversation(2, 15)).result[1] == "a fox"


def test_too_many_turns_are_said_with_their_sockets_and_the_way_out() -> None:
    comfy.start()
    said = (
        "at most 200 turns, and this exchange would add 2 to 200: 200 from 'history'; go on from an earlier"
    )
    with pytest.raises(ValueError, match=said):
        talk(Scripted(), history=conversation(200))
    exchange = [{"role": "user", "text": "and?"}, {"role": "assistant", "text": "so"}]
    said = "add 2 to 202: 200 from 'history', 2 from 'transcript'; .*; or press Clear in the panel"
    with pytest.raises(ValueError, match=said):
        talk(Scripted(), history=conversation(200), transcript=json.dumps(exchange))
    assert len(talk(Scripted(GOOD), history=conversation(198)).result[4].turns) == 200
