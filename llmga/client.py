"""Client of ComfyUI's HTTP and websocket API, to run a workflow from a program; everything but success is an exception.

It needs nothing but Python. With the package websocket-client it also hears the server's events, and so the text while the
language model writes it.
"""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

TIMEOUT = 600.0
"""Seconds after which an answer or a prompt is no longer waited for."""
_LOOK_S = 5.0
"""Seconds between two looks into the queue, which the server sends whole."""
_POLL_S = 0.2
"""Seconds between two looks into the history where no event says when."""
_LEAST_S = 1.0
"""Seconds that the server always has for an answer."""

OnEvent = Callable[[str, Any], None]
"""``on_event(kind, data)``: the server's own message types with their dicts, and ``"binary"`` with bytes."""

# A proxy from the environment must never stand between us and a server on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class ComfyError(Exception):
    """Something went wrong between us and ComfyUI."""


class ServerError(ComfyError):
    """The server did not start, ended, or does not answer."""


class PromptRejectedError(ComfyError):
    """``/prompt`` refused the prompt or a part of it; ``body`` is its reply."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        self.status = status
        self.body = body
        error = body.get("error")
        parts = [error.get("message", "") if isinstance(error, dict) else str(error)] if error else []
        for node_id, node in (body.get("node_errors") or {}).items():
            # A node's own check is reported once for each input that it looked at, in the same words.
            said = dict.fromkeys(map(_said, node.get("errors", ())))
            parts += [f"node {node_id} ({node.get('class_type')}): {one}" for one in said]
        super().__init__("; ".join(parts) or f"HTTP {status} {body}")


class PromptFailedError(ComfyError):
    """A node raised; the attributes are those of the ``execution_error`` message."""

    def __init__(self, details: dict[str, Any], entry: dict[str, Any]) -> None:
        self.node_id: str = details.get("node_id", "")
        self.node_type: str = details.get("node_type", "")
        self.exception_type: str = details.get("exception_type", "")
        self.exception_message: str = details.get("exception_message", "")
        self.entry = entry
        super().__init__(
            f"node {self.node_id} ({self.node_type}): {self.exception_type}: {self.exception_message}"
        )


class PromptInterruptedError(ComfyError):
    """The prompt was cancelled."""


class ComfyClient:
    """Talks to one ComfyUI server under one client id.

    Args:
        url: such as ``http://127.0.0.1:8188``.
        timeout: seconds.
    """

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.client_id = str(uuid.uuid4())
        self._socket: Any = None

    def check(self) -> None:
        """Raise ``ServerError`` with the reason if the server is known to be gone; a client cannot know."""

    def request(
        self,
        path: str,
        data: bytes | dict[str, Any] | None = None,
        content_type: str = "application/json",
        *,
        timeout: float | None = None,
    ) -> bytes:
        """GET, or POST with data (a dict is sent as JSON).

        Args:
            timeout: seconds, where they are other than the client's.

        Raises:
            ServerError: no answer, or half of one.
            urllib.error.HTTPError: an answer above 399.
        """
        body = json.dumps(data).encode() if isinstance(data, dict) else data
        headers = {"Content-Type": content_type} if body is not None else {}
        request = urllib.request.Request(self.url + path, data=body, headers=headers)
        try:
            with _opener.open(request, timeout=self.timeout if timeout is None else timeout) as reply:
                return reply.read()
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as error:
            self.check()
            raise ServerError(f"{self.url}{path} does not answer: {error}") from error

    def get(self, path: str, *, timeout: float | None = None) -> Any:
        """What a GET returns, parsed as JSON.

        Raises:
            ServerError: no answer, or one that is not JSON, such as the page of a proxy.
        """
        return self._parsed(path, self.request(path, timeout=timeout))

    def _parsed(self, path: str, answer: bytes) -> Any:
        try:
            return json.loads(answer)
        except ValueError as error:
            said = answer[:80].decode("utf-8", "replace")
            raise ServerError(f"{self.url}{path} answers what is not valid JSON: {said!r}") from error

    def object_info(self, node: str = "") -> dict[str, Any]:
        return self.get(f"/object_info/{urllib.parse.quote(node)}" if node else "/object_info")

    def history(self, prompt_id: str, *, timeout: float | None = None) -> dict[str, Any] | None:
        """The finished prompt's entry, or None while it has not finished."""
        return self.get(f"/history/{prompt_id}", timeout=timeout).get(prompt_id)

    def queue(
        self,
        prompt: dict[str, Any],
        client_id: str | None = None,
        extra_data: dict[str, Any] | None = None,
    ) -> str:
        """Queue a prompt in API format; its id. Under our own client id the events are kept for ``wait``.

        Raises:
            PromptRejectedError: the prompt, or a part of it (the valid rest is queued all the same).
        """
        if client_id is None:
            self._listen()
        data = {"prompt": prompt, "client_id": client_id or self.client_id, "extra_data": extra_data or {}}
        try:
            status, body = 200, self._parsed("/prompt", self.request("/prompt", data))
        except urllib.error.HTTPError as error:
            status, body = error.code, _json_object(error.read())
        if status != 200 or body.get("node_errors"):
            raise PromptRejectedError(status, body)
        return body["prompt_id"]

    def wait(
        self, prompt_id: str, timeout: float | None = None, on_event: OnEvent | None = None
    ) -> dict[str, Any]:
        """The history entry of a prompt once it has succeeded, its events passed on while it runs.

        Raises:
            PromptFailedError, PromptInterruptedError: it ended otherwise; the latter also where it was taken out of the
                queue before it ran.
            ServerError: the server ended.
            TimeoutError: it is still running after ``timeout`` seconds, or the server has not said otherwise by then.
        """
        timeout = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + timeout
        try:
            entry = self._wait(prompt_id, deadline, on_event)
        except ServerError as error:
            if time.monotonic() < deadline:
                raise
            raise TimeoutError(f"{error}, after {timeout:.0f} s of waiting for prompt {prompt_id}") from error
        if entry is None:
            raise TimeoutError(f"prompt {prompt_id} is still running after {timeout:.0f} s")
        return _successful(prompt_id, entry)

    def _wait(self, prompt_id: str, deadline: float, on_event: OnEvent | None) -> dict[str, Any] | None:
        """The history entry of a prompt, or None at the deadline."""
        next_look = time.monotonic() + _LOOK_S
        while time.monotonic() < deadline:
            if self._receive(prompt_id, on_event) and time.monotonic() < next_look:
                continue
            there, left = True, max(deadline - time.monotonic(), _LEAST_S)
            # The queue before the history, which a prompt enters as it leaves the queue.
            if time.monotonic() >= next_look:
                there, next_look = self._is_queued(prompt_id, left), time.monotonic() + _LOOK_S
            entry = self.history(prompt_id, timeout=left)
            if entry is not None:
                return entry
            if not there:
                raise PromptInterruptedError(f"prompt {prompt_id} was taken out of the queue")
        return None

    def run(
        self, prompt: dict[str, Any], timeout: float | None = None, on_event: OnEvent | None = None
    ) -> dict[str, Any]:
        """``queue`` and ``wait``."""
        return self.wait(self.queue(prompt), timeout, on_event)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """End a prompt, whether it runs or still waits in the queue; without an id whatever runs now.

        ComfyUI forgets an interruption that reaches it between taking a prompt from the queue and starting it.
        """
        if prompt_id:
            self.request("/queue", {"delete": [prompt_id]})
        self.request("/interrupt", {"prompt_id": prompt_id} if prompt_id else {})

    def _is_queued(self, prompt_id: str, timeout: float) -> bool:
        """Whether a prompt runs or waits."""
        queues = self.get("/queue", timeout=timeout)
        return any(prompt_id in entry[:2] for entries in queues.values() for entry in entries)

    def free(self) -> None:
        """Unload the models and drop the caches."""
        self.request("/free", {"unload_models": True, "free_memory": True})

    def upload_image(self, name: str, data: bytes) -> str:
        """Put an image file into the input folder; the name to give to LoadImage.

        Raises:
            ValueError: the name has a line break.
        """
        if len(name.splitlines()) > 1:
            raise ValueError(f"name must be one line, got {name!r}")
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        boundary = uuid.uuid4().hex
        form = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="overwrite"\r\n\r\ntrue\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{quoted}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        body = form + data + f"\r\n--{boundary}--\r\n".encode()
        answer = self.request("/upload/image", body, f"multipart/form-data; boundary={boundary}")
        return self._parsed("/upload/image", answer)["name"]

    def view(self, image: dict[str, str]) -> bytes:
        """The file behind one of an output's ``{"filename", "subfolder", "type"}``."""
        return self.request(f"/view?{urllib.parse.urlencode(image)}")

    def pictures(self, entry: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """The pictures that a prompt saved, as (file name, file); previews are left out."""
        for output in entry["outputs"].values():
            for image in output.get("images", ()):
                if image.get("type") == "output":
                    yield image["filename"], self.view(image)

    def connect(self, client_id: str) -> Any:
        """A websocket (of websocket-client) that hears what the server sends to ``client_id``."""
        import websocket

        return websocket.create_connection(
            f"{self.url.replace('http', 'ws', 1)}/ws?clientId={client_id}",
            timeout=self.timeout,
            http_no_proxy=["*"],
        )

    def disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _listen(self) -> None:
        """Events are optional: where no websocket comes up, ``wait`` looks into the history alone."""
        if self._socket is not None:
            return
        try:
            import websocket
        except ImportError:
            return
        with contextlib.suppress(OSError, websocket.WebSocketException):
            self._socket = self.connect(self.client_id)

    def _receive(self, prompt_id: str, on_event: OnEvent | None) -> bool:
        """Pass one message on; False when it is time to look into the history.

        A connection that is lost is made anew: the server goes on sending to the same client id.
        """
        if self._socket is None:
            time.sleep(_POLL_S)
            return False
        import websocket

        self._socket.settimeout(0.5)
        try:
            message = self._socket.recv()
        except websocket.WebSocketTimeoutException:
            return False
        except (OSError, websocket.WebSocketException):
            message = ""
        if not message:  # the server's closing frame reads as an empty text
            self.disconnect()
            time.sleep(_POLL_S)
            self._listen()
            return False
        if isinstance(message, bytes):
            if on_event is not None:
                on_event("binary", message)
            return True
        event = json.loads(message)
        data = event.get("data") or {}
        if data.get("prompt_id", prompt_id) != prompt_id:
            return True
        if on_event is not None:
            on_event(event["type"], data)
        return not (event["type"] == "executing" and data.get("node") is None)  # sent after the history entry


def with_values(prompt: dict[str, dict[str, Any]], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A copy of an API prompt with other values in some of its inputs.

    Args:
        prompt: as in ``workflows/api``.
        values: by ``"node.input"``; the node is named by its title, its class or its id, and the name of an input may have
            points of its own (``resize_type.width``). A node that occurs several times gets the value every time.

    Raises:
        ValueError: a name fits no node of the prompt, or it is a workflow as the page saves it.
    """
    if not all(isinstance(node, dict) and "class_type" in node for node in prompt.values()):
        raise ValueError("prompt must be in API format; in ComfyUI, Workflow > Export (API) makes one")
    changed = copy.deepcopy(prompt)
    for name, value in values.items():
        names = {found for item in changed.items() for found in _names(*item) if name.startswith(f"{found}.")}
        wanted = max(names, key=len, default="")
        entry = name[len(wanted) + 1 :]
        if not wanted or not entry:
            titles = sorted({_names(*item)[0] for item in prompt.items()})
            raise ValueError(f"{name!r} must be 'node.input' with one of the nodes {', '.join(titles)}")
        for node_id, node in changed.items():
            if wanted in _names(node_id, node):
                node["inputs"][entry] = value
    return changed


def _names(node_id: str, node: dict[str, Any]) -> tuple[str, ...]:
    return (node.get("_meta", {}).get("title") or node["class_type"], node["class_type"], node_id)


def chat_of(entry: dict[str, Any], node_id: str = "") -> dict[str, Any]:
    """What an LLMGA Chat said, from a history entry: ``exchange``, ``prompts``, ``thought`` and ``speed``.

    Args:
        node_id: of the chat, where there are several; else the last one is taken.

    Raises:
        ValueError: no LLMGA Chat has run; a reply that came from ComfyUI's cache is in the entry too.
    """
    found = {
        name: output["llmga_chat"][-1]
        for name, output in entry["outputs"].items()
        if output.get("llmga_chat")
    }
    if not found or (node_id and node_id not in found):
        raise ValueError(
            f"no LLMGA Chat{f' {node_id}' if node_id else ''} is among the outputs {', '.join(entry['outputs'])}"
        )
    return found[node_id] if node_id else list(found.values())[-1]


def _said(error: dict[str, Any]) -> str:
    message, details = error.get("message", ""), str(error.get("details", ""))
    if error.get("type") == "custom_validation_failed":
        return details.partition(" - ")[2] or details
    return f"{message}: {details}"


def _successful(prompt_id: str, entry: dict[str, Any]) -> dict[str, Any]:
    status = entry.get("status") or {}
    if status.get("status_str") == "success":
        return entry
    for kind, details in reversed(status.get("messages", [])):
        if kind == "execution_error":
            raise PromptFailedError(details, entry)
    raise PromptInterruptedError(f"prompt {prompt_id} was interrupted")


def _json_object(body: bytes) -> dict[str, Any]:
    """An error's body; ComfyUI answers some malformed prompts with a bare text."""
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"error": body.decode("utf-8", "replace")[:500]}
