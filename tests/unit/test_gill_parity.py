"""GILL says what the official code says: visual tokens, ids, hidden states, text states, scores and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="GILL needs transformers")

from support.tiny_gill import inside, recorded, recorder, said, tiny_gill

from llmga.gill import GILL, Match, ReplyOptions, answer

pytestmark = pytest.mark.usefixtures("one_thread")
CLOSE: Any = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def gill(tmp_path_factory: pytest.TempPathFactory) -> GILL:
    return tiny_gill(tmp_path_factory.mktemp("gill"))


class Index:
    """The recorded embeddings, searched by a plain product."""

    model = ""

    def search(self, query: torch.Tensor, count: int, without: Sequence[int] = ()) -> list[Match]:
        rows = torch.nn.functional.normalize(recorded()["index"], dim=1)
        scores = rows @ query
        scores[list(without)] -= 100
        best = scores.topk(count)
        return [Match(int(i), str(int(i)), float(s)) for s, i in zip(*best, strict=True)]


def options_of(reply: dict[str, Any]) -> ReplyOptions:
    names = {
        "ret_scale_factor": "retrieval_scale",
        "gen_scale_factor": "generation_scale",
        "min_word_tokens": "min_tokens",
    }
    return ReplyOptions(max_tokens=12, **{names[name]: value for name, value in reply["options"].items()})


def history(turns: int) -> list[Any]:
    """What was read before the reply of that turn, as the demonstration of the official code puts it together."""
    parts: list[Any] = []
    for turn in range(turns + 1):
        for part in recorder().TURNS[turn]:
            parts.append(recorder().picture(int(part[-1])) if part.startswith("picture ") else part)
        if turn < turns:
            parts.append(" ".join(p for p in said()["replies"][turn]["outputs"] if isinstance(p, str)) + "\n")
    return parts


def test_pictures_and_visual_tokens(gill: GILL) -> None:
    assert gill.vision is not None
    pixels = torch.stack([gill.vision.pixels(recorder().picture(i)) for i in range(3)])
    torch.testing.assert_close(pixels, recorded()["pixels"], **CLOSE)
    tokens = gill.parts.visual_tokens(gill.vision.pooled(pixels))
    torch.testing.assert_close(tokens, recorded()["visual_tokens"], **CLOSE)


def test_picture_embeddings(gill: GILL) -> None:
    pooled = torch.cat([gill.pooled(recorder().picture(i)) for i in range(5)])
    expected = torch.nn.functional.normalize(recorded()["index"], dim=1)
    torch.testing.assert_close(gill.parts.picture_embedding(pooled), expected, **CLOSE)


@pytest.mark.parametrize("turn", range(3))
def test_three_interleaved_turns(gill: GILL, turn: int) -> None:
    reply = said()["replies"][turn]
    written = gill.write(history(turn), options_of(reply))
    assert list(written.ids) == reply["ids"][: len(written.ids)]
    assert len(written.ids) == len(reply["ids"])  # none of the three has a line's end
    expected = inside("states")[str(turn)]
    torch.testing.assert_close(written.states[: len(expected)], expected, **CLOSE)
    assert len(written.states) - len(expected) in (
        0,
        1,
        8,
    )  # the last pass, which the official code does not make


@pytest.mark.parametrize("turn", range(3))
def test_the_pictures_of_a_reply(gill: GILL, turn: int) -> None:
    reply = said()["replies"][turn]
    found = answer(gill, history(turn), options_of(reply), index=Index(), max_pictures=2)
    expected = [output for output in reply["outputs"] if not isinstance(output, str)]
    assert len(found.pictures) == len(expected)
    for number, (picture, output) in enumerate(zip(found.pictures, expected, strict=True)):
        rows = recorded()[output["rows"]]
        torch.testing.assert_close(picture.conditioning[::8], rows, **CLOSE)
        scores = torch.tensor([match.score for match in picture.matches]) * said()["scale"]
        official = torch.tensor(output["scores"])
        unseen = official > -500  # there a picture that was shown already loses 1000 and may come again
        torch.testing.assert_close(scores[unseen[: len(scores)]], official[unseen], rtol=1e-5, atol=2e-5)
        source, probabilities = output["decision"]
        assert picture.decision.source == {"gen": "generate", "ret": "retrieve"}[source], number
        assert picture.decision.probability == pytest.approx(max(probabilities), rel=1e-5)


def test_the_words_of_a_reply(gill: GILL) -> None:
    """Words are cut behind a sentence; those of a second picture do not begin with the tokens of the first."""
    for turn, reply in enumerate(said()["replies"]):
        found = answer(gill, history(turn), options_of(reply), index=Index(), max_pictures=2)
        words = [piece for piece in found.pieces if isinstance(piece, str)]
        official = [
            output.removesuffix(gill.img_text).rstrip(" ")
            for output in reply["outputs"]
            if isinstance(output, str)
        ]
        spaced = " ".join(f"[IMG{i}]" for i in range(1, 8))
        assert [w.rstrip(" ") for w in words] == [w.removeprefix(spaced) for w in official][: len(words)]


def test_a_picture_behind_a_prompt_is_the_one_that_would_be_written(gill: GILL) -> None:
    prompt = history(2)
    states = gill.picture_states(prompt)
    torch.testing.assert_close(states, inside("states")["2"][:8], **CLOSE)
    ids = gill.token_ids(gill.img_text)
    torch.testing.assert_close(gill.hidden([*prompt, gill.img_text])[-8:], states, **CLOSE)
    assert ids == gill.language.img_ids(8)


def test_the_ids_begin_behind_the_vocabulary(gill: GILL) -> None:
    """50266 for OPT, whose tokenizer has 50265 tokens: one id is between, ``<|image|>`` of the official code."""
    assert gill.language.text_rows == len(gill.language.tokenizer) + 1
    assert gill.language.img_ids(1) == [326]


def test_every_picture_type_of_a_reply_is_reached(gill: GILL) -> None:
    """The recording holds a reply without pictures, one with a picture behind words, and both decisions."""
    outputs = [output for reply in said()["replies"] for output in reply["outputs"]]
    assert {output["decision"][0] for output in outputs if not isinstance(output, str)} == {"gen", "ret"}
    assert any(not reply["outputs"][1:] for reply in said()["replies"])
