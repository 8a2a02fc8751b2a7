"""GILL's reply in pieces, what of it is cut, and a conversation as what GILL reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("transformers", reason="GILL needs transformers")

from support.tiny_gill import recorder, tiny_gill

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.stream import GumbelMaxSampler
from llmga.gill import GILL, Match, ReplyOptions, answer
from llmga.gill.answer import decide, first_sentence
from llmga.gill.model import Written
from llmga.gill.transcript import prompt_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def gill(tmp_path_factory: pytest.TempPathFactory) -> GILL:
    return tiny_gill(tmp_path_factory.mktemp("gill"))


def replying(gill: GILL, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let GILL write this text."""
    ids = gill.token_ids(text)
    states = torch.randn(len(ids), gill.language.width, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(gill, "write", lambda *_: Written(tuple(ids), states))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\na fox. a whale.", "a fox."),
        ("a fox.\n", "a fox."),
        ("a fox\na whale", "a fox\n"),
        ("a fox", "a fox"),
        ("", ""),
    ],
)
def test_the_first_sentence(text: str, kept: str) -> None:
    assert first_sentence(text) == kept


def test_text_and_pictures_come_in_their_order_and_what_is_cut_is_said(
    gill: GILL, monkeypatch: pytest.MonkeyPatch
) -> None:
    img = gill.img_text
    replying(gill, monkeypatch, f"a fox. a whale{img} two cats{img} snow")
    reply = answer(gill, ["x"], max_pictures=2)
    words = [piece for piece in reply.pieces if isinstance(piece, str)]
    assert [word.strip() for word in words] == ["a fox.", "two cats"]
    assert [isinstance(piece, str) for piece in reply.pieces] == [True, False, True, False]
    assert [one.strip() for one in reply.cut] == ["a whale", "snow"]
    assert reply.turn_text.split() == ["a", "fox.", img, "two", "cats", img]
    one = answer(gill, ["x"])
    assert len(one.pictures) == 1 and len(one.cut) == 2
    assert reply.pictures[0].conditioning.shape == (77, 768)
    assert not torch.equal(reply.pictures[0].conditioning, reply.pictures[1].conditioning)


class Searched:
    """An index that notes what it was asked."""

    model = ""

    def __init__(self, size: int) -> None:
        self.size = size
        self.asked: list[list[int]] = []

    def search(self, query: torch.Tensor, count: int, without: Sequence[int] = ()) -> list[Match]:
        assert query.shape == (20,) and query.norm() == pytest.approx(1, rel=1e-5)
        self.asked.append(list(without))
        return [Match(row, f"{row}.png", 0.5) for row in range(self.size) if row not in without][:count]


def test_a_picture_is_not_found_twice(gill: GILL, monkeypatch: pytest.MonkeyPatch) -> None:
    replying(gill, monkeypatch, f"a fox{gill.img_text}two cats{gill.img_text}")
    index = Searched(3)
    reply = answer(gill, ["x"], index=index, max_pictures=2, matches=2)
    assert index.asked == [[], [0, 1]]
    assert [[match.row for match in picture.matches] for picture in reply.pictures] == [[0, 1], [2]]
    reply = answer(gill, ["x"], index=Searched(0))
    assert (
        reply.pictures[0].decision.source == "generate" and "no picture" in reply.pictures[0].decision.reason
    )


def test_decisions(gill: GILL) -> None:
    state = torch.randn(32, generator=torch.Generator().manual_seed(1))
    assert gill.decision is not None
    logits = gill.decision(state[None])[0]
    found = decide(gill.decision, state)
    assert found.source == ("generate", "retrieve")[int(logits.argmax())]
    assert found.probability == pytest.approx(logits.softmax(0).max().item(), rel=1e-6)
    assert decide(None, state).source == "generate"


def test_the_same_seed_writes_the_same_and_cancel_passes(gill: GILL) -> None:
    warm: dict[str, Any] = {"temperature": 1.0, "max_tokens": 8}
    state = torch.random.get_rng_state()
    first, again, other = (gill.write(["a fox"], ReplyOptions(**warm, seed=seed)).ids for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), state)

    class Stop(BaseException):
        pass

    seen: list[str] = []

    def stop(text: str) -> None:
        seen.append(text)
        if len(seen) == 3:
            raise Stop

    with pytest.raises(Stop):
        gill.write(["a fox"], ReplyOptions(**warm), stop)
    assert len(seen) == 3 and seen[0] == ""


def test_a_reply_ends_with_its_line(gill: GILL, monkeypatch: pytest.MonkeyPatch) -> None:
    newline = gill.token_ids("\n")[0]
    script = [gill.token_ids("fox")[0], newline, gill.token_ids("cats")[0]]
    monkeypatch.setattr(gill, "_choose", lambda logits, step, *_: script[step])
    assert gill.write(["x"], ReplyOptions(max_tokens=3)).ids == (script[0],)
    script[:2] = [newline, newline]
    assert gill.write(["x"], ReplyOptions(max_tokens=3)).ids == (newline, newline, script[2])


def test_a_full_context_ends_a_reply_and_keeps_its_words(gill: GILL, monkeypatch: pytest.MonkeyPatch) -> None:
    word, img = gill.token_ids("x")[0], gill.language.img_ids(8)
    picture_at = 1000
    monkeypatch.setattr(gill, "_choose", lambda logits, step, *_: img[0] if step == picture_at else word)
    prompt, longest = ["x" * 240], ReplyOptions(max_tokens=1024)
    room = 256 - gill.embed(prompt).shape[1]
    written = gill.write(prompt, longest)
    # The last word need not be read, so that there is one more than fit.
    assert (
        written.ids == (word,) * (room + 1) and len(written.states) == room + 1 and written.cut == "context"
    )
    assert answer(gill, prompt, longest).ended == "context"
    for picture_at, fits in ((room - 8, True), (room - 7, False)):
        written = gill.write(prompt, longest)
        assert (img[-1] in written.ids) == fits and len(written.states) == len(written.ids)
        assert written.ids[:picture_at] == (word,) * picture_at and written.cut == "context"
        assert (answer(gill, prompt, longest).ended == "context") is not fits
    picture_at = 0
    with pytest.raises(ValueError, match="reads at most 256"):  # nothing was written that could be kept
        gill.write(["x" * 254])


def test_why_a_reply_ends_in_the_middle(gill: GILL, monkeypatch: pytest.MonkeyPatch) -> None:
    script = gill.token_ids("fox. cats")
    monkeypatch.setattr(gill, "_choose", lambda logits, step, *_: script[step])
    assert answer(gill, ["x"], ReplyOptions(max_tokens=2)).ended == "max_new_tokens"
    whole = answer(gill, ["x"], ReplyOptions(max_tokens=len(script)))
    assert whole.ended == "" and whole.cut  # its first sentence is whole, and the rest is left out anyway
    script[2:] = gill.token_ids("\n")
    assert answer(gill, ["x"], ReplyOptions(max_tokens=9)).ended == ""


def test_only_the_first_token_of_a_picture_is_ever_chosen(gill: GILL) -> None:
    logits = torch.zeros(1, 334)
    logits[0, 5], logits[0, 328], logits[0, 326] = 1.0, 9.0, -2.0

    def chosen(step: int, **options: Any) -> int:
        return gill._choose(logits.clone(), step, ReplyOptions(**options), GumbelMaxSampler(Sampling()))

    assert chosen(0) == 5
    assert chosen(0, retrieval_scale=1.5) == 326  # its magnitude, 2, times 1.5
    assert chosen(0, generation_scale=1.5) == 326
    assert chosen(2, retrieval_scale=1.5, min_tokens=3) == 5
    assert chosen(3, retrieval_scale=1.5, min_tokens=3) == 326


def test_what_options_must_not_say(gill: GILL) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"top_p": 0.5}, "top_p cannot be used"),
        ({"max_tokens": 0}, "max_tokens must be between"),
        ({"retrieval_scale": -1}, "retrieval_scale must be between"),
        ({"temperature": 3.0}, "temperature must be between"),
    )
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            ReplyOptions(**wrong)
    with pytest.raises(ValueError, match="nothing to read"):
        gill.write([])
    with pytest.raises(ValueError, match="reads at most 256"):
        gill.write(["x" * 1000])
    blind = GILL(gill.language, None, gill.parts)
    with pytest.raises(ValueError, match="cannot see pictures"):
        blind.write([recorder().picture(0)])


FOX = Picture.from_pil(Image.new("RGB", (8, 8), "red"))


def test_a_conversation_as_questions_and_plain(gill: GILL) -> None:
    chat = (
        Conversation()
        .say("user", "a fox", (FOX,))
        .say("assistant", f"here. {gill.img_text}")
        .say("user", "two cats")
    )
    questions = prompt_of(gill, chat)
    assert [part if isinstance(part, str) else "picture" for part in questions] == [
        "picture",
        "Q: a fox\nA:",
        f"here. {gill.img_text}\n",
        "Q: two cats\nA:",
    ]
    assert prompt_of(gill, chat, "plain")[-1] == "two cats"


def test_what_a_user_spells_is_no_token(gill: GILL) -> None:
    (part,) = prompt_of(gill, Conversation().say("user", "[IMG0] and </s>"), "plain")
    assert isinstance(part, str)
    ids = gill.token_ids(part)
    assert not set(ids) & {*gill.language.img_ids(8), gill.language.tokenizer.eos_token_id}


def test_parts_of_other_widths(gill: GILL, tmp_path_factory: pytest.TempPathFactory) -> None:
    from llmga.gill import DecisionModel, GILLParts, GILLSizes

    sizes: Any = {"retrieval": 8, "head_width": 8, "head_layers": 1}
    with pytest.raises(ValueError, match="trained for a language model of width 64"):
        GILL(gill.language, None, GILLParts(GILLSizes(64, 24, **sizes)))
    with pytest.raises(ValueError, match="trained for a vision encoder of width 25"):
        GILL(gill.language, gill.vision, GILLParts(GILLSizes(32, 25, **sizes)))
    with pytest.raises(ValueError, match="decision model was trained for a language model of width 7"):
        GILL(gill.language, None, gill.parts, DecisionModel(7))
