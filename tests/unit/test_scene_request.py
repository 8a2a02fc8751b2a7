"""The task *scene* on engines: the request, the examples, the repair, and a server that can be held to a schema."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from PIL import Image
from support.openai_behaviours import BEHAVIOURS, Exchange, event, head
from support.openai_server import OpenAIServer

from llmga.chat.conversation import Conversation, Picture
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.base import ChatEngine, HasStructuredOutput, OnText, Said, Sampling
from llmga.chat.engines.endpoint import EndpointEngine
from llmga.scene.parse import ScenePlanError, parse_plan
from llmga.scene.request import _EXAMPLES, PLAN_SCHEMA, plan_scene

GOOD = json.dumps(_EXAMPLES[0][1])


@dataclass
class Scripted:
    """An engine that says what it was given, one reply after the other."""

    replies: list[str | Said]
    name: str = "scripted"
    supports_pictures: bool = True
    asked: list[tuple[Conversation, Sampling]] = field(default_factory=list)

    def generate(self, conversation: Conversation, sampling: Sampling, on_text: OnText) -> Said:
        self.asked.append((conversation, sampling))
        said = self.replies[len(self.asked) - 1]
        on_text("…")
        return said if isinstance(said, Said) else Said(said)


def ask(engine: ChatEngine, prompt: str = "a snail overtakes a car", **more: Any) -> Any:
    return plan_scene(engine, prompt, sampling=Sampling(seed=5), on_text=lambda text: None, **more)


def test_the_examples_are_plans_that_follow_the_schema() -> None:
    fields = PLAN_SCHEMA["properties"]["objects"]["items"]["properties"]
    for sentence, document in _EXAMPLES:
        parsed = parse_plan(json.dumps(document), sentence)
        assert parsed.notes == ()
        assert set(document) == set(PLAN_SCHEMA["required"])
        assert all(set(one) == set(fields) and len(one["descriptions"]) == 3 for one in document["objects"])


def test_one_request_shows_examples_and_keeps_the_sentence() -> None:
    engine = Scripted([GOOD])
    planned = ask(engine)
    assert [one.name for one in planned.plan.objects] == ["a snail", "a racing car"]
    assert planned.plan.prompt == "a snail overtakes a car" and not planned.asked_again
    ((asked, sampling),) = engine.asked
    assert [turn.role for turn in asked.turns] == ["user", "assistant"] * 2 + ["user"]
    assert "a snail overtakes a car" in asked.turns[-1].text and sampling.seed == 5
    assert planned.conversation.turns[-1].text == GOOD


def test_an_earlier_plan_is_changed_in_its_own_conversation() -> None:
    first = ask(Scripted([GOOD]))
    engine = Scripted([GOOD.replace("a snail", "two snails")])
    second = ask(engine, "make it two snails", conversation=first.conversation)
    assert engine.asked[0][0].turns[:-1] == first.conversation.turns
    assert second.plan.objects[0].name == "two snails"
    picture = Picture.from_pil(Image.new("RGB", (4, 4)))
    engine = Scripted([GOOD])
    ask(engine, picture=picture)
    assert engine.asked[0][0].turns[-1].pictures == (picture,)


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("A snail beside a car.", "there is no JSON object"),
        ('{"objects": [{"name": "a snail", "box": [0, 0, 1e9, 1]}]}', 'a snail): its "box" holds 1e+09'),
        ("I'm sorry, but I cannot help with that request.", "it refuses"),
        (Said("", "hmm", unfinished=True), "ends inside the model's thinking"),
    ],
)
def test_a_bad_reply_is_answered_once_with_its_fault(bad: str | Said, fault: str) -> None:
    engine = Scripted([bad, GOOD])
    planned = ask(engine)
    assert planned.asked_again and planned.plan.objects[0].name == "a snail"
    (_, first), (asked, second) = engine.asked
    assert fault in asked.turns[-1].text
    assert second.seed != first.seed
    assert fault not in str(planned.conversation) and planned.conversation.turns[-1].text == GOOD
    with pytest.raises(ScenePlanError, match="the reply of 'scripted' cannot be read, even when asked again"):
        ask(Scripted([bad, bad]))


def test_what_is_raised_while_it_writes_passes_through() -> None:
    class Cancelled(BaseException):
        pass

    def cancel(text: str) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        plan_scene(Scripted([GOOD]), "a", sampling=Sampling(), on_text=cancel)
    with pytest.raises(ValueError, match="needs words"):
        ask(Scripted([GOOD]), "  ")


def server_that(refuses: bool) -> Callable[[Exchange], Iterator[bytes]]:
    def script(exchange: Exchange) -> Iterator[bytes]:
        if refuses and "response_format" in exchange.request.body:
            yield head("400 Bad Request", "application/json")
            yield json.dumps(
                {"error": {"message": "response_format of type json_schema is not supported"}}
            ).encode()
            return
        yield head()
        yield event({"content": GOOD}) + event(finish="stop") + b"data: [DONE]\n\n"

    return script


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_is_held_to_the_schema_if_it_can(
    refuses: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(BEHAVIOURS, "scene", server_that(refuses))
    with OpenAIServer("") as server, caplog.at_level(logging.WARNING):
        server.behave("scene")
        engine = EndpointEngine(Endpoint("server", server.url, "m"))
        assert isinstance(engine, HasStructuredOutput)
        for _ in range(2):
            assert ask(engine).plan.objects[1].name == "a racing car"
        sent = [request.body.get("response_format") for request in server.requests]
    assert sent[0]["json_schema"] == {"name": "scene", "schema": dict(PLAN_SCHEMA), "strict": True}
    assert [bool(one) for one in sent] == ([True, False, False] if refuses else [True, True])
    assert ("'response_format', which is left out" in caplog.text) == refuses
