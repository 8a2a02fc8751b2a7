"""What LLMGA GILL Chat says at its limits: what it got, what is allowed, and which socket to change."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from support import comfy_inprocess, tiny_gill

pytestmark = pytest.mark.skipif(
    comfy_inprocess.comfy_path() is None, reason=str(comfy_inprocess.skip_reason())
)


@pytest.fixture(scope="module")
def node() -> Any:
    return comfy_inprocess.pack("nodes.gill_chat")


@pytest.fixture(scope="module")
def gill(node: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The recorded model, of the pack's own ``llmga``; it reads 256 tokens."""
    files = tiny_gill.write_gill(tmp_path_factory.mktemp("gill"))
    own = import_module(f"{node.__name__.removesuffix('.nodes.gill_chat')}.llmga.gill")
    language, vision = own.load_language(files["language"]), own.load_vision(files["vision"])
    return own.GILL(language, vision, own.load_parts(files["parts"]))


def run(node: Any, gill: Any, **inputs: Any) -> Any:
    defaults = {
        "message": "a fox",
        "picture": "auto",
        "transcript": "questions",
        "seed": 0,
        "temperature": 0.0,
    }
    defaults |= {"max_tokens": 4, "picture_scale": 1.0, "decide": True}
    with torch.inference_mode():
        return node.GILLChat.execute(gill, **{**defaults, **inputs}).args


def pictures(count: int) -> torch.Tensor:
    return torch.linspace(0, 1, count)[:, None, None, None].expand(-1, 8, 8, 3)


def test_too_many_pictures_are_counted_by_socket(node: Any, gill: Any) -> None:
    with pytest.raises(
        ValueError, match="image holds 17 pictures and history 0, .* at most 16; show fewer in 'image'"
    ):
        run(node, gill, image=pictures(17))
    history = node.Conversation().say(
        "user", "", tuple(map(node.Picture.from_pil, node.to_pil(pictures(16))))
    )
    with pytest.raises(ValueError, match="image holds 1 pictures and history 16"):
        run(node, gill, image=pictures(1), history=history.say("assistant", "foxes"))


@pytest.mark.parametrize(
    "inputs",
    [
        {"message": "a fox " * 400},
        {"message": "a fox " * 400, "picture": "always"},
        {"message": "x" * 250, "picture_scale": 100000.0, "transcript": "plain"},
    ],
)
def test_too_long_a_text_is_counted_in_tokens(node: Any, gill: Any, inputs: dict[str, Any]) -> None:
    wanted = "tokens with the reply, .* at most 256; shorten 'message' or 'history', or show fewer pictures in 'image'"
    with pytest.raises(ValueError, match=f"has [0-9]+ {wanted}"):
        run(node, gill, **inputs)


@pytest.mark.parametrize("more", [{"picture_scale": 0.0}, {"min_tokens": 8, "picture_scale": 100000.0}])
def test_what_was_written_stays_where_the_context_is_full(node: Any, gill: Any, more: dict[str, Any]) -> None:
    """The second would write a picture then, of which the last tokens do not fit."""
    asked: dict[str, Any] = {"message": "x" * 240, "transcript": "plain", "max_tokens": 1024}
    text, decision, *_, history, readout = run(node, gill, **asked, **more)
    assert text and history.turns[-1].text.strip() == text and decision == "no picture"
    assert "the reply ended where the language model's context is full" in readout
    assert "shorten 'message'" in readout and "one may not have fitted any more" in readout


def test_a_reply_that_ends_at_its_longest_says_so(node: Any, gill: Any) -> None:
    assert "the reply ended at 'max_tokens', before its line had ended; raise it" in run(node, gill)[-1]


def test_top_p_without_a_temperature_names_both(node: Any, gill: Any) -> None:
    with pytest.raises(
        ValueError, match="temperature 0, .* got top_p 0.5: set it to 1, or raise temperature"
    ):
        run(node, gill, top_p=0.5)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"picture": "never"}, "GILL wrote no picture; picture is set to never"),
        ({"min_tokens": 9}, "min_tokens is 9 and max_tokens 4: lower min_tokens, or raise max_tokens"),
        ({}, "raise picture_scale, or set picture to always"),
    ],
)
def test_the_readout_says_why_there_is_no_picture(
    node: Any, gill: Any, inputs: dict[str, Any], said: str
) -> None:
    assert said in run(node, gill, **inputs)[-1]
