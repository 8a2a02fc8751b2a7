"""An API key that must never be seen again: all loggers, the server's log, its HTTP, history, queue, and every file."""

from __future__ import annotations

import base64
import json
import logging
import random
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from support.graphs import chat, endpoint, node, preview
from support.host import KEY, KEY_VARIABLE
from support.openai_server import OpenAIServer

from tools.comfy_client import ComfyError, ServerError
from tools.comfy_server import ComfyServer

from ..behaviours import known
from ..budget import Budget
from ..report import Counts, Finding
from ..server import Prompt, live

VARIABLE = KEY_VARIABLE
PLACES = (
    "/internal/logs/raw",
    "/internal/logs",
    "/history",
    "/queue",
    "/object_info",
    "/settings",
    "/userdata?dir=",
    "/system_stats",
)
WAIT = 12.0
PART = 8  # characters of the key that are a hit by themselves: what a server's masking leaves


def spellings(key: str) -> list[str]:
    """The key as it may be written: plain, in a URL, in base64 at any place, in hex, turned, and its first characters."""
    raw = key.encode()
    shifted = [base64.b64encode(bytes(n) + raw).decode()[8:-8] for n in range(3)]
    return [key, quote(key, safe=""), raw.hex(), key[::-1], *shifted, key[:PART], key[-PART:]]


def hits(text: str, place: str) -> list[str]:
    """Where and how the key is in a text."""
    low = text.lower()
    return [f"{place}: {one}" for one in _named() if one[1].lower() in low for one in [one[0]]]


def _named() -> list[tuple[str, str]]:
    names = (
        "the key",
        "URL-encoded",
        "hex",
        "turned",
        "base64",
        "base64",
        "base64",
        "its beginning",
        "its end",
    )
    return list(zip(names, spellings(KEY), strict=True))


def run(budget: Budget, rng: random.Random) -> tuple[list[Finding], Counts]:
    findings, counts = [], Counts()
    names = [name for name in known(rng) if not name.startswith("chance_")]
    rng.shuffle(names)
    records = Records()
    with live(arguments=("--verbose", "DEBUG")) as (server, assistant):
        budget.restart(counts.ran)
        while budget and names:
            name = names.pop()
            try:
                seen = scenario(server, assistant, name, cancel=rng.random() < 0.1)
            except ServerError as error:
                findings.append(
                    Finding("exit", "the server ended", f"a chat whose endpoint answers {name!r}", str(error))
                )
                break
            counts.ran["secret scenarios"] += 1
            where = {"events and error": seen, "loggers of the client": records.take()}
            findings += _found(where, f"a chat whose endpoint answers {name!r}", counts)
            findings += _found(_served(server), f"… after a chat whose endpoint answered {name!r}", counts)
        findings += _found(
            dict(_files(server.base)), "files below ComfyUI's base folder after all scenarios", counts
        )
    return _first_of_each(findings), counts


def scenario(server: ComfyServer, assistant: OpenAIServer, behaviour: str, cancel: bool) -> str:
    """One chat, saved; all that came back over the websocket and in the history."""
    heard: list[str] = []
    assistant.behave(behaviour)
    prompt: Prompt = {
        "1": endpoint(),
        "2": chat("1", f"scenario {behaviour}"),
        "3": preview(["2", 0]),
        "4": node("LLMGA_SaveHistory", history=["2", 4], name="canary"),
    }
    queued = server.queue(prompt, extra_data={"extra_pnginfo": {"workflow": {"nodes": [prompt]}}})
    heard.append(json.dumps(server.get("/queue")))
    try:
        if cancel:
            server.interrupt(queued)
        server.wait(queued, WAIT, lambda kind, data: heard.append(f"{kind} {data!r}"))
    except TimeoutError:
        server.interrupt(queued)
        try:
            server.wait(queued, WAIT)
        except (ComfyError, TimeoutError) as error:
            heard.append(repr(error))
    except ComfyError as error:
        heard.append(f"{error!r} {json.dumps(getattr(error, 'entry', {}), default=str)}")
    assistant.behave("normal")
    return "\n".join(heard)


class Records:
    """Everything that any logger of this process writes, down to DEBUG."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        lines = self._lines

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                lines.append(self.format(record))

        root = logging.getLogger()
        root.setLevel(logging.DEBUG)
        root.addHandler(Handler())

    def take(self) -> str:
        text = "\n".join(self._lines)
        self._lines.clear()
        return text


def _served(server: ComfyServer) -> dict[str, str]:
    found = {"server.log": server.log_text()}
    for place in PLACES:
        try:
            found[place] = server.request(place).decode("utf-8", "replace")
        except OSError as error:
            found[place] = f"{error!r}"
    return found


def _files(base: Path) -> Iterable[tuple[str, str]]:
    for path in base.rglob("*"):
        if (
            path.is_file()
            and path.suffix != ".safetensors"
            and "custom_nodes" not in path.relative_to(base).parts
        ):
            yield path.relative_to(base).as_posix(), path.read_bytes().decode("latin-1")


def _found(texts: dict[str, str], case: str, counts: Counts) -> list[Finding]:
    findings = []
    for place, text in texts.items():
        for hit in hits(text, place):
            counts.ran["canary hits"] += 1
            findings.append(Finding("secret", hit, case))
    return findings


def _first_of_each(findings: list[Finding]) -> list[Finding]:
    """A log keeps what was written to it: only the scenario that first showed the key there is to blame."""
    seen: dict[tuple[str, str], Finding] = {}
    for one in findings:
        seen.setdefault((one.kind, one.where), one)
    return list(seen.values())
