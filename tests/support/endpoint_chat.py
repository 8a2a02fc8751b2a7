"""What the tests of the endpoint engine share: one request, its reply, and what no error may give away."""

from __future__ import annotations

import base64
import time
import traceback
from collections.abc import Callable

import httpx

from llmga.chat.conversation import Conversation
from llmga.chat.endpoints import Endpoint
from llmga.chat.engines.base import Sampling
from llmga.chat.engines.endpoint import EndpointEngine

from .openai_server import OpenAIServer

REPLY = "A 小 fox — <gen_img>a red fox in the snow, détails 🎨</gen_img>"
ASK = Conversation(system="You paint.").say("user", "a fox")
KEY = "sk-Canary/+0123456789abcdefghijklmnopqrstuvwxyz=="
PATIENCE_S = 60.0
"""After so long something hangs, however busy the machine is."""


def engine(server: OpenAIServer, deadline_s: float = 60.0, key_env: str = "LLMGA_TEST_KEY") -> EndpointEngine:
    return EndpointEngine(Endpoint("my server", server.url, "tiny", key_env, deadline_s=deadline_s))


def ask(engine: EndpointEngine, on_text: Callable[[str], None] = lambda text: None) -> str:
    """The answer; a request that hangs is an error, for ``on_text`` is called while nothing arrives."""
    end = time.monotonic() + PATIENCE_S

    def watched(text: str) -> None:
        if time.monotonic() > end:
            raise AssertionError(f"the request still runs after {PATIENCE_S:g} s")
        on_text(text)

    return engine.generate(ASK, Sampling(), watched).answer


def comes_true(condition: Callable[[], bool]) -> bool:
    """Wait for a condition, patiently."""
    end = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def all_gone(server: OpenAIServer) -> bool:
    """Whether every request has ended, which for one that the server holds open means a closed socket."""
    return comes_true(lambda: server.active == 0)


class Cancelled(BaseException):
    """Like the host's interrupt, no Exception."""


def spellings(secret: str) -> set[str]:
    raw = secret.encode()
    inside = {base64.b64encode(b"x" * n + raw).decode()[4:-4] for n in range(3)}
    return {secret, secret[:-2], httpx.QueryParams(k=secret).__str__()[2:], *inside}


def check_discreet(error: BaseException, log: str, server: OpenAIServer) -> None:
    """Neither the exception, with all that is printed with it, nor a log line gives key or address away."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__) + str(error)
    assert not [form for form in spellings(KEY) if form in shown or form in log]
    assert "://" not in shown and str(server.port) not in shown and "127.0.0.1" not in shown
    assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
    _, _, said = str(error).partition("It said: ")
    assert len(said) <= 200 and said.isprintable()
