"""Frees the memory of a language-model server: how each kind is asked to unload its model, and to load it again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from ...quiet import no_http_logs
from ..dialect import Unload
from ..endpoints import Endpoint
from .background import in_thread
from .connection import Origin, checked_addresses, headers_of, tls_context

ANSWER_S = 60.0
"""How long a server may take; vLLM copies its weights to the RAM meanwhile."""
_CONNECT_S = 10.0
_TICK_S = 0.125
_MOST_BYTES = 4096


@dataclass(frozen=True)
class Command:
    """A POST to a server.

    Args:
        path: from the server's root, which is its base address without "/v1".
        body: sent as JSON; None sends nothing.
        advice: what the owner can do where the server does not know it.
    """

    path: str
    body: dict[str, Any] | None
    advice: str


def unload_command(kind: Unload, model: str) -> Command:
    """What tells a server of this kind to free the memory of a model.

    Source: the APIs of Ollama (an empty request with keep_alive 0), llama.cpp's server in router mode, LM Studio 0.4 (REST
    API v1), and vLLM's sleep mode at level 1, which keeps the weights in the RAM.
    """
    match kind:
        case "ollama":
            return Command(
                "/api/generate", {"model": model, "keep_alive": 0}, "its 'url' must be Ollama's own"
            )
        case "llamacpp":
            advice = "llama-server unloads models in router mode only: start it without -m"
            return Command("/models/unload", {"model": model}, advice)
        case "lmstudio":
            return Command("/api/v1/models/unload", {"instance_id": model}, "it needs LM Studio 0.4 or newer")
        case "vllm":
            advice = "start vLLM with --enable-sleep-mode and VLLM_SERVER_DEV_MODE=1"
            return Command("/sleep?level=1", None, advice)
    raise ValueError(f"a server of the kind {kind!r} is not known to unload anything")


def load_command(kind: Unload) -> Command | None:
    """What must come before the next request; None where the server loads its model by itself."""
    return Command("/wake_up", None, unload_command("vllm", "").advice) if kind == "vllm" else None


def send_command(
    endpoint: Endpoint,
    forbidden: frozenset[Origin],
    key: str,
    command: Command,
    on_tick: Callable[[], None],
) -> str:
    """What is wrong with the server's answer, or "" if it has done it.

    The request goes to the addresses that the endpoint's record allows, with its key, and follows no redirect. ``on_tick``
    is called while it is waited for; what it raises ends the request.
    """

    async def send() -> str:
        import httpx

        scheme, host, port, path = endpoint.address
        root = path.removesuffix("/v1")
        content = b"" if command.body is None else json.dumps(command.body).encode("ascii")
        client = httpx.AsyncClient(
            verify=tls_context(endpoint),
            proxy=endpoint.proxy or None,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(ANSWER_S, connect=_CONNECT_S),
        )
        try:
            addresses = [host] if endpoint.proxy else await checked_addresses(endpoint, forbidden)
        except (OSError, UnicodeError):
            return "its host name does not resolve"
        except ValueError as refusal:
            return str(refusal)
        async with client:
            for address in addresses:
                literal = f"[{address}]" if ":" in address else address
                try:
                    async with client.stream(
                        "POST",
                        f"{scheme}://{literal}:{port}{root}{command.path}",
                        content=content,
                        headers=headers_of(endpoint, key) | {"Accept": "application/json"},
                        extensions={"sni_hostname": host},
                    ) as response:
                        return await _complaint(response, command)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    continue
                except httpx.HTTPError as error:
                    return f"it broke the connection ({type(error).__name__})"
        return "it cannot be reached"

    with no_http_logs(), in_thread(send) as result:
        end = time.monotonic() + ANSWER_S + _CONNECT_S
        while not wait((result,), timeout=_TICK_S).done:
            on_tick()
            if time.monotonic() > end:
                return f"it gave no answer within {ANSWER_S:g} s"
        return result.result()


async def _complaint(response: Any, command: Command) -> str:
    head = b""
    async for chunk in response.aiter_raw():
        head += chunk
        if len(head) >= _MOST_BYTES:
            break
    if response.status_code == 200:
        return "" if _succeeded(head) else "it says that it has not done it"
    return f"it answered {response.status_code}; {command.advice}"


def _succeeded(answer: bytes) -> bool:
    """llama.cpp says so in a field; the others by the status alone."""
    try:
        document = json.loads(answer)
    except ValueError:
        return True
    return not isinstance(document, dict) or document.get("success", True) is not False
