"""Servers that free their memory: what each kind is asked, as its documentation shows it, and what failing comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.openai_behaviours import document
from support.recorded_server import Answers, RecordedServer

from llmga.chat.conversation import Conversation
from llmga.chat.dialect import Dialect
from llmga.chat.endpoints import Endpoint, find_endpoint
from llmga.chat.engines.base import CanUnload, Sampling
from llmga.chat.engines.endpoint import EndpointEngine, EndpointError
from llmga.chat.engines.server_memory import unload_command

ASK = Conversation().say("user", "a fox")
CHAT = {"/v1/chat/completions": (200, document({"content": "a red fox"}))}
OLLAMA = {
    "model": "tiny",
    "created_at": "2026-01-01T00:00:00Z",
    "response": "",
    "done": True,
    "done_reason": "unload",
}
DIALOGUES: dict[str, tuple[str, Any, bytes]] = {
    "ollama": ("/api/generate", {"model": "tiny", "keep_alive": 0}, json.dumps(OLLAMA).encode()),
    "llamacpp": ("/models/unload", {"model": "tiny"}, b'{"success": true}'),
    "lmstudio": ("/api/v1/models/unload", {"instance_id": "tiny"}, b'{"instance_id": "tiny"}'),
    "vllm": ("/sleep?level=1", None, b""),
}
"""Path, body and answer of each kind's request."""


def engine(server: RecordedServer, kind: str, path: str = "/v1", **more: Any) -> EndpointEngine:
    dialect = Dialect(unload=kind, stream=False)  # type: ignore[arg-type]
    return EndpointEngine(Endpoint("my server", server.root + path, "tiny", dialect=dialect, **more))


def say(subject: EndpointEngine) -> str:
    return subject.generate(ASK, Sampling(), lambda text: None).answer


@pytest.mark.parametrize("path", ["/v1", "", "/proxy/v1"])
@pytest.mark.parametrize("kind", DIALOGUES)
def test_each_kind_is_told_in_its_own_words(kind: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMGA_TEST_KEY", "sk-canary")
    wanted, body, answer = DIALOGUES[kind]
    root = path.removesuffix("/v1")
    with RecordedServer({root + wanted: (200, answer)}) as server:
        subject = engine(server, kind, path, key_env="LLMGA_TEST_KEY")
        assert isinstance(subject, CanUnload)
        subject.unload()
    ((asked, sent, headers),) = server.asked
    assert (asked, sent) == (root + wanted, body)
    assert headers["authorization"] == "Bearer sk-canary" and headers["host"] == server.root.removeprefix(
        "http://"
    )


def test_vllm_is_woken_before_the_next_reply_and_only_then() -> None:
    answers: Answers = {**CHAT, "/sleep?level=1": (200, b""), "/wake_up": (200, b"")}
    with RecordedServer(answers) as server:
        subject = engine(server, "vllm")
        assert [say(subject), say(subject)] == ["a red fox"] * 2
        subject.unload()
        say(subject)
    chat = "/v1/chat/completions"
    assert server.paths == ["/wake_up", chat, chat, "/sleep?level=1", "/wake_up", chat]


@pytest.mark.parametrize("kind", ["ollama", "llamacpp", "lmstudio"])
def test_other_servers_load_by_themselves(kind: str) -> None:
    path, _, answer = DIALOGUES[kind]
    with RecordedServer({**CHAT, path: (200, answer)}) as server:
        subject = engine(server, kind)
        say(subject)
        subject.unload()
        say(subject)
    assert server.paths == ["/v1/chat/completions", path, "/v1/chat/completions"]


def test_without_the_field_nothing_is_sent() -> None:
    with RecordedServer(CHAT) as server:
        engine(server, "").unload()
        assert server.asked == []
    with pytest.raises(ValueError, match="not known to unload"):
        unload_command("", "tiny")


@pytest.mark.parametrize(
    ("kind", "answer", "said"),
    [
        ("llamacpp", (200, b'{"success": false}'), "it says that it has not done it"),
        ("llamacpp", (404, b""), "answered 404; llama-server unloads models in router mode only"),
        ("vllm", (404, b""), "answered 404; start vLLM with --enable-sleep-mode"),
        ("ollama", (302, b""), "answered 302"),
        ("lmstudio", (500, b"x" * 100_000), "answered 500; it needs LM Studio 0.4"),
    ],
)
def test_a_server_that_does_not_do_it_is_an_error(kind: str, answer: tuple[int, bytes], said: str) -> None:
    with RecordedServer({DIALOGUES[kind][0]: answer}) as server:
        with pytest.raises(
            EndpointError, match=f"endpoint 'my server' did not free its memory: .*{said}"
        ) as caught:
            engine(server, kind).unload()
    assert server.paths == [DIALOGUES[kind][0]] and "127.0.0.1" not in str(caught.value)


def test_a_server_that_is_gone_or_not_allowed_is_an_error() -> None:
    with RecordedServer({}) as server:
        address = ("127.0.0.1", int(server.root.rpartition(":")[2]))
        record = Endpoint("my server", server.root, "tiny", dialect=Dialect(unload="ollama"))
        with pytest.raises(EndpointError, match="the server that this program runs in"):
            EndpointEngine(record, forbidden=frozenset({address})).unload()
    with pytest.raises(EndpointError, match="cannot be reached"):
        engine(server, "ollama").unload()
    with pytest.raises(EndpointError, match="did not load its model again: it cannot be reached"):
        say(engine(server, "vllm"))


def test_a_cancel_ends_the_waking() -> None:
    class Cancelled(BaseException):
        pass

    def on_text(text: str) -> None:
        if server.asked:
            raise Cancelled

    with RecordedServer(CHAT, held="/wake_up") as server:
        with pytest.raises(Cancelled):
            engine(server, "vllm").generate(ASK, Sampling(), on_text)
        assert server.paths == ["/wake_up"]


def test_the_field_is_read_from_a_record(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.json"
    record = {"url": "http://127.0.0.1:11434/v1", "model": "tiny", "unload": "ollama"}
    path.write_text(json.dumps({"endpoints": {"mine": record, "other": {**record, "unload": "now"}}}))
    assert find_endpoint(path, "mine").dialect.unload == "ollama"
    with pytest.raises(ValueError, match="'unload' must be one of ollama, llamacpp, lmstudio, vllm"):
        find_endpoint(path, "other")
